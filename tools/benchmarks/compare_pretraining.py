"""Compares pre-training methods at equal budget over several seeds, and prints one table.

For each method and seed: pre-training, export of the encoder, fine-tuning, evaluation of the last
checkpoint; with `--probe` also a fine-tuning with the encoder frozen. `scratch` is the fine-tuning
without a pre-training.

    python tools/benchmarks/compare_pretraining.py \
        --methods mask3d mae rgb2depth scratch --seeds 0 1 2 --work-dir work_dirs/compare \
        --downstream configs/segmentation/mask3d-tiny_fcn_rooms-240x320.py

The same call again goes on where the last one stopped. With another config, override or
predecessor a step works in another folder, so adding a method or a seed costs only what is new.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mmmask3d.cli.start import start

if TYPE_CHECKING:
    from mmengine.config import Config

    from mmmask3d.steps import Step


TOOLS = Path(__file__).resolve().parents[1]
PRETRAIN_CONFIGS = TOOLS.parent / 'configs/mask3d'
METHODS = {
    name: PRETRAIN_CONFIGS / f'{name}_vit-tiny_b32-100e_rooms-240x320.py'
    for name in ('mask3d', 'mae', 'rgb2depth', 'rgbd2rgbd')
}
SCRATCH = 'scratch'
#: Figures that make a column where the downstream evaluation reports them.
METRICS = ('mIoU', 'coco/bbox_mAP', 'coco/segm_mAP')


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--methods', nargs='+', default=['mask3d', 'mae', 'rgb2depth', SCRATCH],
        metavar='NAME[=CONFIG]',
        help=f'{", ".join(METHODS)} and {SCRATCH} are known; others as NAME=CONFIG, which also '
        'replaces the config of a known one',
    )  # fmt: skip
    parser.add_argument('--downstream', required=True, help='fine-tuning config, mmseg or mmdet')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--work-dir', type=Path, required=True, help='folder for everything')
    parser.add_argument('--probe', action='store_true', help='also train with a frozen encoder')
    for name, what in (
        ('pretrain', 'of every pre-training'),
        ('downstream', 'of fine-tuning, evaluation and probe'),
        ('probe', 'of the probe only, after the former'),
    ):
        parser.add_argument(
            f'--{name}-cfg-options', nargs='+', default=[], metavar='KEY=VALUE',
            help=f'config overrides {what}',
        )  # fmt: skip
    args = parser.parse_args(argv)
    for name, values in (('methods', args.methods), ('seeds', args.seeds)):
        if len(set(values)) != len(values):
            parser.error(f'--{name} {values}: each may be given once')
    if args.probe_cfg_options and not args.probe:
        parser.error('--probe-cfg-options needs --probe')
    return args


def pretraining_configs(methods: Sequence[str]) -> dict[str, Path | None]:
    """Config file of each method, None for the one without pre-training.

    Raises:
        ValueError: A name without a config is not known.
    """
    known: dict[str, Path | None] = {**METHODS, SCRATCH: None}
    configs: dict[str, Path | None] = {}
    for item in methods:
        name, _, path = item.partition('=')
        if not path and name not in known:
            raise ValueError(
                f'--methods {item}: unknown. Known are {", ".join(known)}; give another one with '
                f'its config: {item}=path/to/config.py'
            )
        configs[name] = Path(path) if path else known[name]
    return configs


def budget(cfg: Config) -> dict[str, Any]:
    """What has to be equal for two pre-trainings to have had the same budget."""
    backbone = cfg.model.backbone
    return {
        'train_cfg.max_epochs': cfg.train_cfg.get('max_epochs'),
        'train_cfg.max_iters': cfg.train_cfg.get('max_iters'),
        'train_dataloader.batch_size': cfg.train_dataloader.batch_size,
        'train_dataloader.dataset': without_pipelines(cfg.train_dataloader.dataset.to_dict()),
        'model.backbone (arch, patch_size)': architecture(backbone),
        'model.backbone.init_cfg': backbone.get('init_cfg'),
    }


def without_pipelines(value: Any) -> Any:
    """A data set's config without its transforms, in which methods do differ."""
    if isinstance(value, dict):
        return {k: without_pipelines(v) for k, v in value.items() if k != 'pipeline'}
    return [without_pipelines(v) for v in value] if isinstance(value, list) else value


def architecture(backbone: dict) -> dict[str, Any]:
    """What an encoder file has to agree with; names of mmpretrain's zoo are resolved."""
    from mmmask3d.models.encoder_record import arch_settings

    return {**arch_settings(backbone), 'patch_size': backbone.get('patch_size', 16)}


def check_comparable(pretrain: dict[str, Config], downstream: Config, downstream_name: str) -> None:
    """Refuse a comparison that would not be one, before hours are spent on it.

    Raises:
        ValueError: Two pre-trainings differ in their budget, or the fine-tuned backbone is not the
            one that is pre-trained.
    """
    kind = str(downstream.model.get('backbone', {}).get('type'))
    if kind.split('.')[-1] not in ('Mask3DViT', 'Mask3DPyramid', 'VisionTransformer'):
        raise ValueError(
            f'{downstream_name}: model.backbone is {kind}; expected mmmask3d.Mask3DViT, '
            'mmmask3d.Mask3DPyramid or mmpretrain.VisionTransformer, which the exported encoder '
            'fits. How to put one into an existing config is described in docs/transfer.md.'
        )
    ours, first = architecture(downstream.model.backbone), next(iter(pretrain), '')
    for name, cfg in pretrain.items():
        expected = budget(pretrain[first])
        for key, value in budget(cfg).items():
            if value != expected[key]:
                raise ValueError(
                    f'{key} is {value} for {name} and {expected[key]} for {first}: not an equal '
                    'budget. Make them equal in the configs or with --pretrain-cfg-options.'
                )
        theirs = architecture(cfg.model.backbone)
        if theirs != ours:
            raise ValueError(
                f'{downstream_name}: model.backbone has arch and patch size {ours}, the '
                f'pre-training of {name} has {theirs}. The encoder could not be loaded.'
            )


class Measurement(NamedTuple):
    """One fine-tuning of one method: its place in the table and the steps that lead to it."""

    method: str
    seed: int
    setting: str  # 'fine-tuned' or 'frozen'
    steps: tuple[Step, ...]  # in order; the last one evaluates


def plan(args: argparse.Namespace) -> list[Measurement]:
    """Lay out all steps; nothing is run.

    Raises:
        FileNotFoundError: A config does not exist.
        ValueError: An option is wrong or the methods cannot be compared.
    """
    from mmmask3d.steps import evaluation_step, export_step, resolve_config, training_step

    configs = pretraining_configs(args.methods)
    pretrain = {k: resolve_config(v, args.pretrain_cfg_options) for k, v in configs.items() if v}
    downstream = resolve_config(args.downstream, args.downstream_cfg_options)
    check_comparable(pretrain, downstream, args.downstream)
    settings: list[tuple[str, str, list[str]]] = [('fine-tuned', 'finetune', [])]
    if args.probe:
        frozen = [
            f'model.backbone.frozen_stages={architecture(downstream.model.backbone)["num_layers"]}',
            'model.backbone.drop_path_rate=0.0',
            'model.backbone.drop_rate=0.0',
        ]
        settings.append(('frozen', 'probe', [*frozen, *args.probe_cfg_options]))
    measurements = []
    # Seeds outside: after the first round there is a table with every method in it.
    for seed in args.seeds:
        for method, config in configs.items():
            root = args.work_dir / method / f'seed{seed}'
            seeded = f'randomness.seed={seed}'
            before: tuple[Step, ...] = ()
            if config is not None:
                overrides = [*args.pretrain_cfg_options, seeded]
                training = training_step(root, 'pretrain', config, overrides, TOOLS)
                before = (training, export_step(root, training.products[0], TOOLS))
            encoder = before[-1].products[0] if before else None
            for setting, name, extra in settings:
                overrides = [*args.downstream_cfg_options, *extra, seeded]
                training = training_step(root, name, args.downstream, overrides, TOOLS, encoder)
                evaluation = evaluation_step(
                    root, f'{name}-test', args.downstream, overrides, TOOLS, training.products[0]
                )
                measurements.append(
                    Measurement(method, seed, setting, (*before, training, evaluation))
                )
    return measurements


def collect(measurements: Sequence[Measurement]) -> list[dict[str, Any]]:
    """Rows of the table from the measurements that are finished, in order of appearance.

    Returns:
        One dict per method and setting: ``method``, ``setting``, ``seeds`` (those finished) and
        ``values``, which has a list with a figure per seed for each metric.
    """
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for item in measurements:
        last = item.steps[-1]
        if not last.finished:
            continue
        figures = json.loads(last.products[0].read_text())
        known = [name for name in METRICS if name in figures]
        if not known:
            raise ValueError(
                f'{last.products[0]}: the evaluator of the downstream config has to report one of '
                f'{", ".join(METRICS)}; found {", ".join(figures)}.'
            )
        row = rows.setdefault(
            (item.method, item.setting),
            dict(method=item.method, setting=item.setting, seeds=[], values={}),
        )
        row['seeds'].append(item.seed)
        for name in known:
            row['values'].setdefault(name, []).append(figures[name])
    return sorted(rows.values(), key=lambda row: row['setting'])


def format_rows(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown table: mean, sample standard deviation and single values of every metric."""
    metrics = [name for name in METRICS if any(name in row['values'] for row in rows)]
    lines = [['method', 'encoder', 'seeds', *metrics, *(f'{name} per seed' for name in metrics)]]
    for row in rows:
        values = [row['values'][name] for name in metrics]
        lines.append(
            [row['method'], row['setting'], str(len(row['seeds']))]
            + [format_mean(v) for v in values]
            + [' '.join(format_figure(x) for x in v) for v in values]
        )
    lines.insert(1, ['---'] * len(lines[0]))
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def format_mean(values: Sequence[float]) -> str:
    """Mean and, of two values and more, their sample standard deviation."""
    mean = format_figure(statistics.mean(values))
    return mean if len(values) < 2 else f'{mean} ± {format_figure(statistics.stdev(values))}'


def format_figure(value: float) -> str:
    """Two decimals for percentages, three digits for what lies between 0 and 1."""
    return f'{value:.3f}' if abs(value) < 1 else f'{value:.2f}'


def write_table(measurements: Sequence[Measurement], work_dir: Path) -> str:
    """Write what is finished as ``table.md`` and ``table.json``; returns the table."""
    from mmmask3d.atomic_file import write_file

    rows = collect(measurements)
    if not rows:
        return 'No measurement is finished.'
    table = format_rows(rows)
    done = sum(item.steps[-1].finished for item in measurements)
    note = '' if done == len(measurements) else f'\n\n{done} of {len(measurements)} measurements.'
    write_file(work_dir / 'table.md', (table + note + '\n').encode())
    content = dict(rows=rows, measurements=len(measurements), finished=done)
    write_file(work_dir / 'table.json', json.dumps(content, indent=1).encode())
    return table + note


def main(argv: list[str] | None = None) -> int:
    """Run the comparison; 0 when every measurement is there."""
    args = parse_args(argv)
    start()

    from mmmask3d.steps import StepFailed

    try:
        measurements = plan(args)
        for number, item in enumerate(measurements, 1):
            for step in item.steps:
                if not step.finished:
                    print(
                        f'[{number}/{len(measurements)}] {item.method}, seed {item.seed}, '
                        f'{item.setting}: {step.folder}',
                        flush=True,
                    )
                    step.run()
            write_table(measurements, args.work_dir)
    except (FileNotFoundError, ValueError, StepFailed) as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    print(write_table(measurements, args.work_dir))
    print(f'Written to {args.work_dir / "table.md"} and table.json.')
    return 0


if __name__ == '__main__':
    sys.exit(main())
