"""Write encoders between two others: a share of the weights of each (WiSE-FT).

    mmmask3d interpolate before.safetensors after.safetensors
    mmmask3d interpolate before.pth after.pth --share 0.25 0.5 0.75

A is the encoder before a training and B the one after it. Between the two, an encoder often keeps
more of what A knew than B does, and most of what B learned. ``--share`` is the share of B.
"""

import argparse
from collections.abc import Sequence

from mmmask3d.cli.options import weights_file
from mmmask3d.cli.start import command


def parse_args(argv: Sequence[str] | None = None, prog: str | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog=prog, description=__doc__.splitlines()[0])
    parser.add_argument('first', metavar='A', help='encoder before: a file, URL or hub location')
    parser.add_argument('second', metavar='B', help='encoder after it, of the same architecture')
    parser.add_argument(
        '--share', type=float, nargs='+', default=[0.5], metavar='S',
        help='share of B in the weights, 0 to 1; several write several files (default: 0.5)',
    )  # fmt: skip
    parser.add_argument(
        '--out', type=weights_file, metavar='FILE',
        help='file to write, .pth or .safetensors, in which {share} is replaced (default: '
        'NAME_OF_B_share-{share}.safetensors in the current folder)',
    )  # fmt: skip
    return parser.parse_args(argv)


@command(parse_args)
def main(args: argparse.Namespace) -> None:
    """Run the command; 0 when the files were written."""
    from mmmask3d.weights.wise_ft import default_name, interpolate

    out = args.out or default_name(args.second)
    lines = interpolate(args.first, args.second, args.share, out)
    print('\n'.join(lines))
