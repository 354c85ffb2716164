"""Show what the shipped encoder is good for, from generated frames to figures, in minutes.

Makes a small set of generated rooms, which the encoder has not seen; evaluates and draws the depth
that its model sees in RGB images alone; and fine-tunes a small segmentor on 48 labelled frames from
the encoder and from scratch, with three seeds each. Every step runs one of the project's tools,
whose output is in `log.txt` of the step's folder; steps run side by side, one on each core. A call
after an interruption goes on where the last one stopped, a call after a finished one only reports.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mmmask3d.cli.start import start

if TYPE_CHECKING:
    from mmmask3d.steps import Step

# Links in a checkout, copies in a wheel.
ASSETS = Path(__file__).resolve().parents[1] / '.mim'
TOOLS, CONFIGS = ASSETS / 'tools', ASSETS / 'configs'
SHIPPED = 'distilled_vit-mini_b32-6e_rooms-96x128'
PRETRAIN = CONFIGS / f'mask3d/{SHIPPED}.py'
FINETUNE = CONFIGS / 'segmentation/mask3d-mini_fcn_rooms_demo.py'
WEIGHTS = f'mmmask3d://{SHIPPED}'

# The fine-tuned models are evaluated once, at the end, by a step of its own.
WITHOUT_VALIDATION = ('val_cfg=None', 'val_dataloader=None', 'val_evaluator=None')
# The teacher of the pre-training is not needed any more.
WITHOUT_TEACHER = ('model.anchor=None', 'model.cache_gib=0')
DRAWN = 'default_hooks.visualization.draw=True'  # labels, true and predicted
SMALL_BATCHES = (
    'train_cfg.max_epochs=3',  # one more than the warm-up
    'train_dataloader.batch_size=2',
)


class Budget(NamedTuple):
    """How much of everything."""

    rooms: int
    val_rooms: int
    views: int
    frame_size: tuple[int, int]  # width, height
    pictures: int
    seeds: int  # of the fine-tunings
    overrides: tuple[str, ...]  # of every fine-tuning


FULL = Budget(72, 48, 2, (224, 168), 6, 3, ())
TINY = Budget(2, 1, 2, (128, 96), 1, 2, SMALL_BATCHES)


class Steps(NamedTuple):
    """The steps of the demo: each fine-tuning is one step with its evaluation after it."""

    data: Step
    depth: Step
    pictures: Step
    encoder: tuple[tuple[Step, Step], ...]
    scratch: tuple[tuple[Step, Step], ...]


#: What a step does, by the beginning of its name.
TITLES = {
    'data': 'Generating RGB-D frames of rooms',
    'depth': 'Evaluating depth from RGB',
    'pictures': 'Drawing depth from RGB',
    'encoder': 'Fine-tuning a segmentor from the encoder',
    'scratch': 'Fine-tuning the same segmentor from scratch',
    'miou': 'Evaluating a segmentor',
}


def parse_args(argv: Sequence[str] | None = None, prog: str | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog=prog, description=(__doc__ or '').splitlines()[0])
    parser.add_argument('--out', type=Path, help='results; work_dirs/demo by default')
    parser.add_argument('--data', type=Path, help='generated rooms; data/rooms_demo by default')
    parser.add_argument('--seed', type=int, default=0, help='the first one; the data stay')
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
    from mmmask3d.steps import evaluation_step, show_counts, step, training_step, usable_cores

    rooms = step(
        out,
        'data',
        lambda folder: [
            TOOLS / 'dataset_converters/generate_rooms.py', '--out', data, '--seed=0',
            f'--rooms={budget.rooms}', f'--val-rooms={budget.val_rooms}',
            f'--views={budget.views}', '--size', *map(str, budget.frame_size),
            f'--workers={usable_cores()}', '--contact-sheet', folder / 'contact_sheet.png',
        ],
        lambda folder: [
            data / 'manifest.json', data / 'splits/train.txt', folder / 'contact_sheet.png',
        ],
        show_counts,
    )  # fmt: skip
    loaders = ('train_dataloader', 'val_dataloader', 'test_dataloader')
    common = [f'{name}.dataset.data_root={data}' for name in loaders]
    pretrained = [*common, *WITHOUT_TEACHER]
    depth = evaluation_step(out, 'depth', PRETRAIN, pretrained, TOOLS, WEIGHTS)
    pictures = step(
        out,
        'pictures',
        lambda folder: [
            TOOLS / 'analysis_tools/visualize_reconstruction.py', PRETRAIN, WEIGHTS,
            '--out-dir', folder, f'--num={budget.pictures}', '--cfg-options', *pretrained,
        ],
        lambda folder: [folder / 'val_sheet.png'],
    )  # fmt: skip

    def finetuning(name: str, encoder: str | None, number: int) -> tuple[Step, Step]:
        settings = [*common, f'randomness.seed={number}', *budget.overrides]
        overrides = [*(o for o in settings if not o.startswith('val_')), *WITHOUT_VALIDATION]
        training = training_step(out, f'{name}-{number}', FINETUNE, overrides, TOOLS, encoder)
        if encoder and number == seed:
            settings.append(DRAWN)
        name, made = f'miou-{name}-{number}', training.products[0]
        return training, evaluation_step(out, name, FINETUNE, settings, TOOLS, made)

    seeds = range(seed, seed + budget.seeds)
    return Steps(
        rooms,
        depth,
        pictures,
        tuple(finetuning('encoder', WEIGHTS, number) for number in seeds),
        tuple(finetuning('scratch', None, number) for number in seeds),
    )


def run(steps: Steps, say: Callable[[str], None]) -> int:
    """Run what is missing, after the data side by side; returns the number of steps run."""
    from mmmask3d.steps import usable_cores

    def follow(chain: Sequence[Step]) -> int:
        done = 0
        for item in chain:
            if not item.finished:
                say(f'{TITLES[item.folder.name.split("-")[0]]}: {item.folder}')
            done += item.run(threads=1)
        return done

    done = follow([steps.data])
    chains = [[steps.depth], [steps.pictures], *steps.encoder, *steps.scratch]
    with ThreadPoolExecutor(usable_cores()) as pool:
        return done + sum(pool.map(follow, chains))


def figures(evaluation: Step) -> dict[str, float]:
    """What a finished evaluation has measured, by name."""
    return dict(json.loads(evaluation.products[0].read_text()))


def report(steps: Steps) -> str:
    """What the demo found."""
    from mmmask3d.evaluation.masked_depth_metric import format_table

    prefix = 'masked_depth/'
    depth = {key.removeprefix(prefix): value for key, value in figures(steps.depth).items()}
    encoder, scratch = (
        [figures(evaluation)['mIoU'] for _, evaluation in runs]
        for runs in (steps.encoder, steps.scratch)
    )
    gains = [ours - other for ours, other in zip(encoder, scratch, strict=True)]
    return '\n'.join(
        [
            '',
            'Depth from RGB alone, in rooms that the encoder has not seen',
            format_table(depth),
            '',
            'Segmentation, 13 classes, few labels: mIoU [%], mean ± deviation (each seed)',
            f'  from the shipped encoder  {spread(encoder)}',
            f'  from scratch              {spread(scratch)}',
            f'  difference                {spread(gains)}',
            '',
            f'Frames:          {steps.data.folder / "contact_sheet.png"}',
            f'Depth from RGB:  {steps.pictures.products[0]}',
            f'Labels, true and predicted: {steps.encoder[0][1].folder}/*/vis_data/vis_image',
        ]
    )


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation over the seeds, and the value of each."""
    each = ', '.join(f'{value:.2f}' for value in values)
    return f'{statistics.mean(values):6.2f} ± {statistics.stdev(values):.2f}  ({each})'


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Run the demo; 0 if every step's result is there."""
    args = parse_args(argv, prog)
    start(need=['mmseg'])

    from mmmask3d.steps import StepFailed

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
        print(f'Everything was there already; remove {args.out} to start over.')
    return 0
