"""Write an encoder, a pyramid or a segmentor as an ONNX file, checked with onnxruntime.

    mmmask3d export-onnx CONFIG CHECKPOINT encoder.onnx --size 480 640

A pre-trainer gives the maps of its encoder, a segmentor of mmseg its logits. docs/deployment.md
shows how to run the file.
"""

import argparse
import logging
from collections.abc import Sequence

from mmmask3d.cli.options import add_config_overrides
from mmmask3d.cli.start import command
from mmmask3d.conversion.options import at_least_one


def parse_args(argv: Sequence[str] | None = None, prog: str | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog=prog, description=(__doc__ or '').splitlines()[0])
    parser.add_argument('config', help='config of the model, or its name in the zoo')
    parser.add_argument('checkpoint', help='its checkpoint; for an encoder also an exported one')
    parser.add_argument('out', help='file to write, .onnx')
    parser.add_argument(
        '--size', type=at_least_one, nargs=2, required=True, metavar=('HEIGHT', 'WIDTH'),
        help='size of the images in pixels; the file takes no other',
    )  # fmt: skip
    parser.add_argument('--dynamic-batch', action='store_true', help='take batches of any size')
    parser.add_argument(
        '--backbone', action='store_true',
        help='export the maps of the backbone, also of a segmentor or detector',
    )  # fmt: skip
    add_config_overrides(parser)
    return parser.parse_args(argv)


@command(parse_args)
def main(args: argparse.Namespace) -> None:
    """Run the command; 0 when the file was written and checked."""
    from mmmask3d.apis.onnx_export import export_onnx

    # Annotations of torchvision's operators, which no model here has.
    logging.getLogger('torch.onnx').setLevel(logging.ERROR)
    lines = export_onnx(
        args.config, args.checkpoint, args.out, args.size, args.dynamic_batch, args.backbone,
        args.cfg_options,
    )  # fmt: skip
    print('\n  '.join(lines))
