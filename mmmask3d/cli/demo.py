"""Run Mask3D from generated frames to a comparison, in minutes on two CPU cores.

Makes a small set of generated rooms, pre-trains a small Mask3D on it, draws what it reconstructs,
exports the encoder, and fine-tunes a small segmentor from that encoder and from scratch. Every
step runs one of the project's tools, whose output is in `log.txt` of the step's folder. A call
after an interruption goes on where the last one stopped, a call after a finished one only reports.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mmmask3d.cli.start import start

if TYPE_CHECKING:
    from mmmask3d.steps import Step

# Links in a checkout, copies in a wheel.
ASSETS = Path(__file__).resolve().parents[1] / '.mim'
TOOLS, CONFIGS = ASSETS / 'tools', ASSETS / 'configs'
PRETRAIN = CONFIGS / 'mask3d/mask3d_vit-micro_rooms_demo.py'
FINETUNE = CONFIGS / 'segmentation/mask3d-micro_fcn_rooms_demo.py'

# The fine-tuned models are evaluated once, at the end, by a step of its own.
WITHOUT_VALIDATION = ('val_cfg=None', 'val_dataloader=None', 'val_evaluator=None')
SMALL_BATCHES = (
    'train_cfg.max_epochs=3',  # one more than the warm-up
    'train_dataloader.batch_size=2',
    'train_dataloader.num_workers=0',
)


class Budget(NamedTuple):
    """How much of everything."""

    rooms: int
    val_rooms: int
    views: int
    frame_size: tuple[int, int]  # width, height
    pictures: int
    overrides: tuple[str, ...]  # of both trainings


FULL = Budget(60, 12, 8, (320, 240), 8, ())
TINY = Budget(2, 1, 2, (128, 96), 1, SMALL_BATCHES)


class Steps(NamedTuple):
    """The steps of the demo, in the order they run."""

    data: Step
    pretrain: Step
    depth: Step
    pictures: Step
    export: Step
    finetune: Step
    scratch: Step
    finetune_miou: Step
    scratch_miou: Step


TITLES = (
    'Generating RGB-D frames of rooms',
    'Pre-training Mask3D',
    'Evaluating depth on rooms it has not seen',
    'Drawing reconstructions',
    'Exporting the encoder',
    'Fine-tuning a segmentor from the encoder',
    'Fine-tuning the same segmentor from scratch',
    'Evaluating the segmentor from the encoder',
    'Evaluating the segmentor from scratch',
)


def parse_args(argv: Sequence[str] | None = None, prog: str | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog=prog, description=(__doc__ or '').splitlines()[0])
    parser.add_argument('--out', type=Path, help='results; work_dirs/demo by default')
    parser.add_argument('--data', type=Path, help='generated rooms; data/rooms_demo by default')
    parser.add_argument('--seed', type=int, default=0, help='of the trainings; the data stay')
    parser.add_argument(
        '--fresh', action='store_true', help='remove the results of earlier calls first'
    )
    parser.add_argument(
        '--tiny', action='store_true', help='a few frames and steps, to see that everything runs'
    )
    args = parser.parse_args(argv)
    suffix = '_tiny' if args.tiny else ''
    args.out = args.out or Path(f'work_dirs/demo{suffix}')
    args.data = args.data or Path(f'data/rooms_demo{suffix}')
    return args


def plan(out: Path, data: Path, seed: int, budget: Budget) -> Steps:
    """Lay out the steps; nothing is run."""
    from mmmask3d.steps import evaluation_step, export_step, show_counts, step, training_step

    generate = [
        f'--rooms={budget.rooms}', f'--val-rooms={budget.val_rooms}', f'--views={budget.views}',
        '--seed=0', '--size', *map(str, budget.frame_size),
    ]  # fmt: skip
    rooms = step(
        out,
        'data',
        lambda folder: [
            TOOLS / 'dataset_converters/generate_rooms.py', '--out', data, '--workers=2',
            '--contact-sheet', folder / 'contact_sheet.png', *generate,
        ],
        lambda folder: [
            data / 'manifest.json', data / 'splits/train.txt', folder / 'contact_sheet.png',
        ],
        show_counts,
    )  # fmt: skip
    loaders = ('train_dataloader', 'val_dataloader', 'test_dataloader')
    common = [f'{name}.dataset.data_root={data}' for name in loaders]
    common += [f'randomness.seed={seed}', *budget.overrides]
    pretrain = training_step(out, 'pretrain', PRETRAIN, common, TOOLS)
    checkpoint = pretrain.products[0]
    depth = evaluation_step(out, 'pretrain-depth', PRETRAIN, common, TOOLS, checkpoint)
    pictures = step(
        out,
        'pictures',
        lambda folder: [
            TOOLS / 'analysis_tools/visualize_reconstruction.py', PRETRAIN, checkpoint,
            '--out-dir', folder, f'--num={budget.pictures}', '--cfg-options', *common,
        ],
        lambda folder: [folder / 'val_sheet.png'],
    )  # fmt: skip
    export = export_step(out, checkpoint, TOOLS)
    trained, measured = [], []
    for name, encoder in (('finetune', export.products[0]), ('scratch', None)):
        overrides = [*(o for o in common if not o.startswith('val_')), *WITHOUT_VALIDATION]
        training = training_step(out, name, FINETUNE, overrides, TOOLS, encoder)
        trained.append(training)
        measured.append(
            evaluation_step(out, f'{name}-miou', FINETUNE, common, TOOLS, training.products[0])
        )
    return Steps(rooms, pretrain, depth, pictures, export, *trained, *measured)


def remove_results(out: Path) -> None:
    """Remove the folders of the demo's steps below ``out``, and nothing else."""
    for folder in out.glob('*-' + '[0-9a-f]' * 8):
        if (folder / 'log.txt').exists():
            shutil.rmtree(folder)


def run(steps: Steps, say: Callable[[str], None]) -> int:
    """Run what is missing; returns the number of steps that were run."""
    done = 0
    for number, (item, title) in enumerate(zip(steps, TITLES, strict=True), 1):
        begin = time.monotonic()
        if not item.finished:
            say(f'[{number}/{len(steps)}] {title}: {item.folder}')
        done += item.run()
        if time.monotonic() - begin > 1:
            say(f'  {time.monotonic() - begin:.0f} s')
    return done


def figures(evaluation: Step) -> dict[str, float]:
    """What a finished evaluation has measured, by name."""
    return dict(json.loads(evaluation.products[0].read_text()))


def report(steps: Steps) -> str:
    """What the demo found."""
    from mmmask3d.evaluation.masked_depth_metric import format_table

    prefix = 'masked_depth/'
    depth = {
        key[len(prefix) :]: value
        for key, value in figures(steps.depth).items()
        if key.startswith(prefix)
    }
    mious = [figures(steps.finetune_miou)['mIoU'], figures(steps.scratch_miou)['mIoU']]
    return '\n'.join(
        [
            '',
            format_table(depth),
            '',
            'Segmentation, 13 classes, equal schedule and seed    mIoU [%]',
            f'  from the pre-trained encoder                       {mious[0]:8.2f}',
            f'  from scratch                                       {mious[1]:8.2f}',
            'One short run on little data: a demonstration, not evidence. Several seeds and the '
            'MAE control: tools/benchmarks/compare_pretraining.py',
            '',
            f'Frames:          {steps.data.folder / "contact_sheet.png"}',
            f'Reconstructions: {steps.pictures.products[0]}',
            f'Encoder:         {steps.export.products[0]}',
        ]
    )


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Run the demo; 0 if every step's result is there."""
    args = parse_args(argv, prog)
    start(need=['mmseg'])

    from mmmask3d.steps import StepFailed

    if args.fresh:
        remove_results(args.out)
    begin = time.monotonic()
    steps = plan(args.out, args.data, args.seed, TINY if args.tiny else FULL)
    try:
        done = run(steps, lambda text: print(text, flush=True))
    except StepFailed as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    print(report(steps))
    if done:
        print(f'{done} steps in {(time.monotonic() - begin) / 60:.1f} minutes.')
    else:
        print('Everything was there already; --fresh starts over.')
    return 0
