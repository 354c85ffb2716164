"""Say what can be read off frozen encoders: labels or depth, by a linear map or by neighbours.

    python tools/analysis_tools/probe.py configs/segmentation/mask3d-tiny_fcn_rooms-240x320.py \
        --encoder mask3d=encoder.pth --random

The config names the data (its training frames are read with the validation pipeline), the encoder's
architecture and the normalisation; a config of depth estimation or of pre-training probes depth.
"""

# ruff: noqa: E402
from mmmask3d.preflight import check_environment

check_environment()  # plain words before an import below fails

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from mmengine.config import Config, DictAction
from mmengine.registry import init_default_scope
from torch import nn

from mmmask3d.engine.run_config import load_config
from mmmask3d.evaluation.dense_probe import probe
from mmmask3d.evaluation.frozen_features import (
    extract_features,
    image_normaliser,
    with_pipeline,
)
from mmmask3d.registry import DATASETS, MODELS
from mmmask3d.setup_env import register_all_modules
from mmmask3d.weights.zoo import init_quietly


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', help='config of segmentation, depth or pre-training')
    parser.add_argument(
        '--encoder', nargs='+', default=[], metavar='NAME=FILE', help='exported encoders'
    )
    parser.add_argument(
        '--random', action='store_true', help='random weights too, as what is to be beaten'
    )
    parser.add_argument(
        '--methods', nargs='+', choices=['linear', 'knn'], default=['linear', 'knn']
    )
    parser.add_argument('--limit', type=int, metavar='N', help='at most N frames of each split')
    parser.add_argument('--batch-size', type=int, default=16)
    parser.add_argument('--seed', type=int, default=0, help='of the random weights')
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--out', type=Path, metavar='JSON', help='write the figures')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, help='overrides, as for tools/train.py'
    )
    args = parser.parse_args(argv)
    args.encoders = {}
    for given in args.encoder:
        name, separator, file = given.partition('=')
        if not separator or not name or not file:
            parser.error(f'--encoder takes NAME=FILE, got {given!r}')
        if name in args.encoders or name == 'random':
            parser.error(f'--encoder: {name!r} is named twice (random is taken)')
        args.encoders[name] = file
    if not args.encoders and not args.random:
        parser.error('name at least one --encoder, or --random')
    if args.limit is not None and args.limit < 1:
        parser.error(f'--limit must be at least 1, got {args.limit}')
    return args


def build_encoder(cfg: Config, checkpoint: str | None, seed: int) -> nn.Module:
    """Build the config's backbone, filled from a file or at random."""
    backbone = cfg.model.backbone.copy()
    backbone.pop('init_cfg', None)
    if checkpoint is not None:
        backbone.init_cfg = dict(type='Pretrained', checkpoint=checkpoint)
    torch.manual_seed(seed)
    model = MODELS.build(backbone)
    init_quietly(model)
    return model


def run(args: argparse.Namespace) -> dict[str, dict[str, dict[str, float]]]:
    """Probe all encoders; figures by encoder and method."""
    cfg = load_config(args.config, cfg_options=args.cfg_options)
    register_all_modules(init_default_scope=False)
    init_default_scope(cfg.get('default_scope', 'mmmask3d'))
    if not cfg.get('val_dataloader'):
        raise ValueError(f'{args.config} has no val_dataloader, on whose frames to score.')
    val = with_pipeline(cfg.val_dataloader.dataset, cfg.val_dataloader.dataset.pipeline)
    train = with_pipeline(cfg.train_dataloader.dataset, val.pipeline)
    datasets = [DATASETS.build(train), DATASETS.build(val)]
    classes = datasets[0].metainfo.get('classes')
    normalise = image_normaliser(cfg.model.get('data_preprocessor') or {})
    results = {}
    for name, file in {**args.encoders, **({'random': None} if args.random else {})}.items():
        encoder = build_encoder(cfg, file, args.seed).to(args.device)
        features = [
            extract_features(encoder, d, normalise, args.batch_size, args.limit, args.device)
            for d in datasets
        ]
        results[name] = {
            method: probe(*features, method, None if classes is None else len(classes))
            for method in args.methods
        }
    return results


def table(results: dict[str, dict[str, dict[str, float]]]) -> str:
    """The figures as a Markdown table."""
    first = next(iter(next(iter(results.values())).values()))
    lines = ['| encoder | probe | ' + ' | '.join(first) + ' |', '|---' * (2 + len(first)) + '|']
    for name, methods in results.items():
        for method, figures in methods.items():
            row = ' | '.join(f'{value:.4g}' for value in figures.values())
            lines.append(f'| {name} | {method} | {row} |')
    return '\n'.join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    args = parse_args(argv)
    try:
        results = run(args)
    except (OSError, ValueError, RuntimeError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    print(table(results))
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(results, indent=2) + '\n')
    return 0


if __name__ == '__main__':
    sys.exit(main())
