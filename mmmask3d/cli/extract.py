"""Write the encoder of a pre-training checkpoint to a separate file.

    mmmask3d extract work_dirs/run/epoch_100.pth encoder.pth
    mmmask3d extract epoch_100.pth encoder.safetensors --grid 14

The export keeps the patch grid it was trained on, unless ``--grid`` asks for another. A square
grid is what ``mmpretrain.VisionTransformer`` needs to resize the position embedding to other image
sizes by itself.
"""

import argparse
from collections.abc import Sequence

from mmmask3d.cli.options import weights_file
from mmmask3d.cli.start import command
from mmmask3d.conversion.options import at_least_one


def parse_args(argv: Sequence[str] | None = None, prog: str | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog=prog, description=__doc__.splitlines()[0])
    parser.add_argument(
        'checkpoint', help='checkpoint of a pre-training run, an exported encoder, or an adapter'
    )
    parser.add_argument('out', type=weights_file, help='file to write, .pth or .safetensors')
    parser.add_argument('--config', help='config of the run; default: the text in the checkpoint')
    parser.add_argument(
        '--grid', type=at_least_one, nargs='+', metavar='N',
        help='resample the position embedding to N x N patches, or to ROWS COLUMNS',
    )  # fmt: skip
    parser.add_argument(
        '--adapter', action='store_true',
        help='write the LoRA matrices of the run alone, for others to add to the same weights',
    )  # fmt: skip
    parser.add_argument(
        '--base', metavar='FILE',
        help='weights that LoRA or the adapter belongs to; default: as the config or adapter says',
    )  # fmt: skip
    args = parser.parse_args(argv)
    if args.adapter and args.grid is not None:
        parser.error('--adapter takes no --grid: an adapter serves every size')
    if args.grid is not None and len(args.grid) > 2:
        parser.error('--grid takes one or two numbers: N, or ROWS COLUMNS')
    return args


@command(parse_args)
def main(args: argparse.Namespace) -> None:
    """Write the file, verified."""
    from mmmask3d.weights.extraction import extract

    lines = extract(args.checkpoint, args.out, args.config, args.grid, args.adapter, args.base)
    print('\n'.join(lines))
