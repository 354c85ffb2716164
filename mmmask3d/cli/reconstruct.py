"""Draw what a pre-trained network reconstructs.

Example:
    mmmask3d reconstruct CONFIG CHECKPOINT --out-dir pictures
"""

import argparse
from collections.abc import Sequence

from mmmask3d.cli.options import add_config_overrides
from mmmask3d.cli.start import command
from mmmask3d.conversion.options import at_least_one


def parse_args(argv: Sequence[str] | None = None, prog: str | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog=prog, description=__doc__.splitlines()[0])
    parser.add_argument('config', help='pre-training config')
    parser.add_argument('checkpoint', help='checkpoint of the whole pre-training model')
    parser.add_argument('--out-dir', required=True, help='folder for the pictures')
    parser.add_argument('--num', type=at_least_one, default=8, help='frames, spread over the split')
    parser.add_argument('--index', type=int, nargs='+', help='frames by index instead')
    parser.add_argument('--split', choices=['train', 'val', 'test'], default='val')
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--seed', type=int, default=0, help='for --split train, which is random')
    parser.add_argument(
        '--paste-kept', action='store_true', help='show the kept readings in the prediction'
    )
    add_config_overrides(parser)
    return parser.parse_args(argv)


@command(parse_args, tracebacks=True)
def main(args: argparse.Namespace) -> None:
    """Run the command; 0 when the pictures are written."""
    from mmmask3d.apis.reconstructions import draw_reconstructions
    from mmmask3d.config_files import read_config_file

    cfg = read_config_file(args.config, args.cfg_options)
    files = draw_reconstructions(
        cfg, args.checkpoint, args.out_dir, args.split, args.num, args.index, args.device,
        args.seed, args.paste_kept,
    )  # fmt: skip
    print(f'{len(files) - 1} frames drawn; all on one sheet: {files[-1]}')
