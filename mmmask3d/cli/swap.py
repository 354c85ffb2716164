"""Replace the backbone of an mmseg, mmdet or mmpretrain config by the encoder.

    mmmask3d swap my_config.py --encoder encoder.pth -o swapped.py
    mmmask3d swap my_config.py --encoder timm:vit_base_patch16_dinov3 -o new.py
    mmmask3d swap mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py -o new.py

The new config inherits from the old one and holds the backbone, which gives the strides and
channels of the one it replaces, and what a transformer needs to train well. Before it is written
the model is built, predicts a random image and makes the gradients of one training step.
"""

import argparse
import logging
import signal
import sys
import warnings
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from mmmask3d.cli.start import command
from mmmask3d.conversion.options import above_zero, at_least_one, natural, number

if TYPE_CHECKING:
    from mmmask3d.swap.rewriting import Swapped


def parse_args(argv: Sequence[str] | None = None, prog: str | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog=prog, description=__doc__.splitlines()[0])
    parser.add_argument('config', help='config file, or package::folder/config.py')
    parser.add_argument('-o', '--out', required=True, help='config to write; must not exist')
    parser.add_argument(
        '--encoder', '--checkpoint', dest='checkpoint', metavar='FILE|timm:NAME',
        help="the encoder: path or URL of its weights, or a model of timm with timm's weights",
    )  # fmt: skip
    parser.add_argument(
        '--arch',
        help='deit-tiny, deit-small, base or large; by default that of the checkpoint, or base',
    )
    parser.add_argument(
        '--path',
        default='model.backbone',
        help='location of the backbone, e.g. model.detector.backbone (default %(default)s)',
    )
    parser.add_argument(
        '--lr', type=above_zero, help="learning rate; 1e-4, or an AdamW config's own"
    )
    parser.add_argument(
        '--layer-decay', type=number(float, lambda value: 0 < value <= 1, 'a number in (0, 1]'),
        help='0.7 for base, 0.8 for large, else 0.75',
    )  # fmt: skip
    parser.add_argument(
        '--window-size', type=natural, help='windowed attention; 14 for large images, 0 for none'
    )
    parser.add_argument(
        '--drop-path', dest='drop_path_rate',
        type=number(float, lambda value: 0 <= value < 1, 'a number in [0, 1)'),
        help='0.4 for large, else 0.1',
    )  # fmt: skip
    parser.add_argument(
        '--backbone-only', action='store_true', help='change only the backbone; warn of the rest'
    )
    parser.add_argument(
        '--size', type=at_least_one, nargs=2, default=(384, 512), metavar=('HEIGHT', 'WIDTH'),
        help='of the random image (default 384 512)',
    )  # fmt: skip
    parser.add_argument(
        '--skip-run',
        action='store_true',
        help='write the config without running it, if this machine cannot run the model',
    )
    parser.add_argument(
        '--skip-predict',
        action='store_true',
        help='try only the training step, if this machine cannot run the prediction',
    )
    args = parser.parse_args(argv)
    if Path(args.out).suffix != '.py':
        parser.error(f'{args.out}: the suffix must be .py')
    return args


def report(args: argparse.Namespace, swapped: 'Swapped') -> str:
    """What was changed and what was seen."""
    from mmmask3d.swap.config import describe

    proof, lines = swapped.proof, [describe(swapped.plan)]
    if args.config.startswith('mmseg::'):
        lines.append(
            f'note: _base_ = {args.config!r} is found by the tools of this project; mmengine alone '
            'finds it only where mmseg is installed under the name mmsegmentation.'
        )
    if proof is None:
        lines.append('note: the model was not run.')
    else:
        (size, maps), *_ = proof.shapes.items()
        done = 'was not asked to predict' if args.skip_predict else 'predicts'
        lines.append(
            f'the model {done}; maps for {size[0]}x{size[1]} pixels as before: '
            + ', '.join(f'{c}x{h}x{w}' for c, h, w in maps)
        )
        if proof.losses:
            lines.append(
                f'one training step: loss {proof.losses["loss"]:.4g}, gradient in the first layer '
                f'of the transformer {proof.grad_norm or 0:.3g}'
            )
    use = 'Train it with: mmmask3d train {}'
    if not swapped.trained:
        use = 'Use it with: mmmask3d test {} CHECKPOINT'
    return '\n'.join([*lines, f'{args.out}: written. {use.format(args.out)}'])


@command(parse_args)
def main(args: argparse.Namespace) -> None:
    """Run the command; 0 when the config was proved and written."""
    from mmmask3d.swap.plan import SwapOptions
    from mmmask3d.swap.rewriting import rewrite

    options = SwapOptions(**{f.name: getattr(args, f.name) for f in fields(SwapOptions)})
    # The models are built from random weights here; what they say about that is no news.
    logging.disable(logging.WARNING)
    warnings.simplefilter('ignore')
    # A polite kill ends it as Ctrl-C does, so that the draft is removed.
    previous = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        swapped = rewrite(
            args.config, args.out, options, args.size, args.skip_run, args.skip_predict
        )
    finally:
        signal.signal(signal.SIGTERM, previous)
        logging.disable(logging.NOTSET)
    print(report(args, swapped))
