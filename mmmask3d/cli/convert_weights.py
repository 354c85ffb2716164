"""Convert a ViT encoder between MAE, timm, DINOv2, MultiMAE, Hugging Face, mmpretrain and us.

    mmmask3d convert-weights mae_pretrain_vit_base.pth encoder.safetensors
    mmmask3d convert-weights model.safetensors encoder.pth --from timm
    mmmask3d convert-weights encoder.pth timm.safetensors --to timm

The source is recognised by its names unless ``--from`` gives it. What is written has been loaded
into the model it is meant for, with no missing and no unexpected key, or nothing is written.
docs/weights.md lists what is supported and what is refused.
"""

import argparse
from collections.abc import Sequence
from functools import partial

from mmmask3d.cli.options import weights_file
from mmmask3d.cli.start import command
from mmmask3d.conversion.options import above_zero, at_least_one, number

SOURCES = ('mae', 'timm', 'dinov2', 'multimae', 'mmpretrain', 'huggingface')
_COLOUR = 'a number for colours in 0..1; divide one for colours in 0..255 by 255'
TARGETS = ('mmmask3d', 'timm', 'mmpretrain', 'huggingface')


def parse_args(argv: Sequence[str] | None = None, prog: str | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog=prog, description=__doc__.splitlines()[0])
    parser.add_argument(
        'source', help='file to read, or model.safetensors.index.json; never unpickled'
    )
    parser.add_argument('out', type=weights_file, help='file to write, .pth or .safetensors')
    parser.add_argument('--from', dest='kind', choices=('auto', *SOURCES), default='auto')
    parser.add_argument(
        '--to', dest='target', choices=TARGETS,
        help="whose names to write; mmmask3d's (Mask3DViT) by default, and timm's (TimmViT) of "
        'DINOv2 with registers, DINOv3, CLIP and SigLIP from Hugging Face',
    )  # fmt: skip
    parser.add_argument('--prefix', help="in front of the encoder's names; found if not given")
    parser.add_argument(
        '--grid', type=int, nargs=2, metavar=('ROWS', 'COLUMNS'),
        help='patch grid of the source, if it is neither recorded nor square',
    )  # fmt: skip
    parser.add_argument(
        '--num-heads', type=at_least_one, help='attention heads, where not known by size'
    )
    parser.add_argument(
        '--patch-size',
        type=at_least_one,
        metavar='PIXELS',
        help='resample the patch embedding (FlexiViT)',
    )
    parser.add_argument('--norm-eps', type=above_zero, help='of the layer norms; 1e-6 by default')
    for name, low in (('mean', 0.0), ('std', 1e-6)):
        colour = number(float, partial(_is_colour, low), _COLOUR)
        parser.add_argument(
            f'--input-{name}', type=colour, nargs=3, metavar=('R', 'G', 'B'),
            help=f"the source's {name} of colours in 0..1; the patch embedding is rewritten to "
            "take ImageNet's",
        )  # fmt: skip
    args = parser.parse_args(argv)
    if (args.input_mean is None) != (args.input_std is None):
        parser.error('--input-mean and --input-std go together')
    return args


def _is_colour(low: float, value: float) -> bool:
    return low <= value <= 1


@command(parse_args)
def main(args: argparse.Namespace) -> None:
    """Write the file, verified."""
    from mmmask3d.weights.translation import translate

    lines = translate(
        args.source,
        args.out,
        args.target,
        kind=args.kind,
        prefix=args.prefix,
        grid=None if args.grid is None else (args.grid[0], args.grid[1]),
        num_heads=args.num_heads,
        norm_eps=args.norm_eps,
        patch_size=args.patch_size,
        norm=None if args.input_mean is None else (args.input_mean, args.input_std),
    )
    print('\n  '.join(lines))
