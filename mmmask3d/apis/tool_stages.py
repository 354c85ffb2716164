"""The project's tools as stages: train, export the encoder, evaluate."""

import argparse
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config, DictAction

from mmmask3d.apis.stages import Stage, stage
from mmmask3d.engine.run_config import load_config

#: Figures of a validation that are worth a line on the screen.
_SHOWN = (
    'masked_depth/rmse',
    'masked_depth/interp_rmse',
    'masked_depth/mean_rmse',
    'masked_depth/aligned_rmse',
    'mIoU',
    'coco/bbox_mAP',
    'coco/segm_mAP',
)


def resolve_config(config: str | os.PathLike, overrides: Sequence[str]) -> Config:
    """Read a config and apply ``key=value`` overrides as ``--cfg-options`` of the tools does.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: An override is not of the form ``key=value``.
    """
    for item in overrides:
        if '=' not in item:
            raise ValueError(f'override {item!r}: expected key=value')
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='*', action=DictAction)
    options = parser.parse_args(['--cfg-options', *overrides]).cfg_options
    return load_config(config, cfg_options=options)


def final_checkpoint_name(cfg: Config) -> str:
    """Name of the checkpoint that mmengine's ``CheckpointHook`` writes last."""
    if cfg.train_cfg.get('max_epochs') is not None:
        return f'epoch_{cfg.train_cfg.max_epochs}.pth'
    return f'iter_{cfg.train_cfg.max_iters}.pth'


def training_stage(
    root: Path,
    name: str,
    config: str | os.PathLike,
    overrides: Sequence[str],
    tools: Path,
    export: Stage | None = None,
) -> Stage:
    """Stage that trains with ``tools/train.py`` and goes on where it was interrupted.

    What is hashed is the config as it results from file and overrides, so an edited file is
    another run, and an override that changes nothing is not.

    Args:
        root: Folder of the whole chain.
        name: Name of the stage.
        config: Config file.
        overrides: ``key=value`` pairs as for ``--cfg-options``.
        tools: Folder with ``train.py``.
        export: Stage of :func:`export_stage` whose encoder the backbone starts from.
    """
    cfg = resolve_config(config, overrides)
    options = dict(config=cfg.to_dict(), after=export.key if export else None)
    extra = encoder_overrides(export.products[0]) if export else []
    cfg_options = ['--cfg-options', *overrides, *extra] if overrides or extra else []
    return stage(
        root,
        name,
        options,
        lambda folder: [
            tools / 'train.py', config, '--work-dir', folder, '--resume', *cfg_options,
        ],
        lambda folder: [folder / final_checkpoint_name(cfg)],
        show_training,
    )  # fmt: skip


def encoder_overrides(encoder: str | os.PathLike) -> list[str]:
    """Overrides that make a config's backbone start from an encoder file."""
    return [
        'model.backbone.init_cfg.type=Pretrained',
        f'model.backbone.init_cfg.checkpoint={os.fspath(encoder)}',
    ]


def export_stage(root: Path, training: Stage, tools: Path) -> Stage:
    """Stage that writes the encoder of a pre-training, ``encoder.pth`` (its first product)."""
    return stage(
        root,
        'encoder',
        dict(after=training.key),
        lambda folder: [
            tools / 'model_converters/extract_backbone.py',
            training.products[0],
            folder / 'encoder.pth',
        ],
        lambda folder: [folder / 'encoder.pth'],
    )


def evaluation_stage(
    root: Path,
    name: str,
    config: str | os.PathLike,
    overrides: Sequence[str],
    tools: Path,
    training: Stage,
) -> Stage:
    """Stage that evaluates the last checkpoint of a training; see :func:`metrics_of`."""
    cfg_options = ['--cfg-options', *overrides] if overrides else []
    return stage(
        root,
        name,
        dict(config=resolve_config(config, overrides).to_dict(), after=training.key),
        lambda folder: [
            tools / 'test.py', config, training.products[0], '--work-dir', folder,
            '--out', folder / 'metrics.json', *cfg_options,
        ],
        lambda folder: [folder / 'metrics.json'],
    )  # fmt: skip


def metrics_of(evaluation: Stage) -> dict[str, float]:
    """Figures that a finished stage of :func:`evaluation_stage` has measured."""
    return json.loads(evaluation.products[0].read_text())


def show_training(line: str) -> str | None:
    """Shorten a line of a training's log; None for what is not progress.

    Progress, losses, chosen figures of validations and the checkpoint that is resumed from stay.
    """
    if line.startswith('Resuming from '):
        return line
    message = line.split(' - INFO - ', 1)[-1]
    train = re.match(r'Epoch\(train\)\s+\[(\d+)\]\[\s*(\d+)/(\d+)\]', message)
    iteration = re.match(r'Iter\(train\)\s+\[\s*(\d+)/(\d+)\]', message)
    if train or iteration:
        place = (
            f'epoch {train[1]}, batch {train[2]}/{train[3]}'
            if train
            else f'iteration {iteration[1]}/{iteration[2]}'
        )
        values = dict(re.findall(r'(\w+): (\S+)', message))
        shown = [f'{key} {values[key]}' for key in ('loss', 'eta') if key in values]
        return ', '.join([place, *shown])
    if re.match(r'(Epoch|Iter)\(val\).*\[(\d+)/\2\] ', message):
        values: dict[str, Any] = dict(re.findall(r'([\w/]+): (\S+)', message))
        shown = [f'{key} {values[key]}' for key in _SHOWN if key in values]
        return 'validation: ' + ', '.join(shown) if shown else None
    return None
