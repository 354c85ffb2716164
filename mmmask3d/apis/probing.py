"""Probing frozen encoders, given by their files, on the data of a config."""

from collections.abc import Mapping, Sequence

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import nn

from mmmask3d.evaluation.dense_probe import probe
from mmmask3d.evaluation.frozen_features import (
    extract_features,
    image_normaliser,
    with_pipeline,
)
from mmmask3d.registry import DATASETS, MODELS
from mmmask3d.weights.zoo import init_quietly


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


def probe_encoders(
    cfg: Config,
    encoders: Mapping[str, str | None],
    methods: Sequence[str] = ('linear', 'knn'),
    limit: int | None = None,
    batch_size: int = 16,
    seed: int = 0,
    device: str = 'cpu',
) -> dict[str, dict[str, dict[str, float]]]:
    """Probe encoders of one architecture.

    Args:
        cfg: Config of segmentation, depth estimation or pre-training: it names the data, the
            architecture and the normalisation. Training frames are read with the validation
            pipeline.
        encoders: Exported encoder by name; None for random weights.
        methods: 'linear', 'knn'.
        limit: At most so many frames of each split.
        batch_size: Images at a time.
        seed: Of the random weights.
        device: Where the encoders run.

    Returns:
        Figures by encoder and method.

    Raises:
        ValueError: The config has no validation frames.
    """
    init_default_scope(cfg.get('default_scope', 'mmmask3d'))
    if not cfg.get('val_dataloader'):
        raise ValueError(f'{cfg.filename} has no val_dataloader, on whose frames to score.')
    val = with_pipeline(cfg.val_dataloader.dataset, cfg.val_dataloader.dataset.pipeline)
    train = with_pipeline(cfg.train_dataloader.dataset, val.pipeline)
    datasets = [DATASETS.build(train), DATASETS.build(val)]
    classes = datasets[0].metainfo.get('classes')
    normalise = image_normaliser(cfg.model.get('data_preprocessor') or {})
    results = {}
    for name, file in encoders.items():
        encoder = build_encoder(cfg, file, seed).to(device)
        features = [
            extract_features(encoder, d, normalise, batch_size, limit, device) for d in datasets
        ]
        results[name] = {
            method: probe(*features, method, None if classes is None else len(classes))
            for method in methods
        }
    return results
