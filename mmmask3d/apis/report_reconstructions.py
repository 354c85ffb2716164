"""Reconstructions for the report card, of encoders given as training checkpoints."""

import os
from collections.abc import Mapping, Sequence

import numpy as np
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmmask3d.apis.reconstructions import draw_reconstruction
from mmmask3d.checkpoints.locations import read_checkpoint
from mmmask3d.datasets.masking_config import hand_masking_to, masking_defaults
from mmmask3d.evaluation.frozen_features import with_pipeline
from mmmask3d.models.encoder_record import parse_config_text, read_meta
from mmmask3d.registry import DATASETS
from mmmask3d.weights.zoo import get_model


def pretraining_config(source: str) -> Config | None:
    """The config of the run that wrote a checkpoint; None if it holds no pre-training model.

    Args:
        source: file or URL of an encoder.
    """
    text = read_meta(read_checkpoint(source)).get('cfg')
    cfg = Config(parse_config_text(text)) if text else None
    if cfg is None or not cfg.get('val_dataloader'):
        return None
    return cfg if str(cfg.get('model', {}).get('type')).endswith('MaskedRGBD') else None


def reconstruct_frames(
    source: str, configs: Sequence[Config], frames: Mapping[str, int], device: str = 'cpu'
) -> dict[int, np.ndarray]:
    """Draw frames through a pre-training model, masked as in the validation of its own run.

    Args:
        source: training checkpoint, of which :func:`pretraining_config` tells the config.
        configs: those that name the frames; RGB-D data sets among them are used.
        frames: numbers by the path of the colour picture.
        device: where the model runs.

    Returns:
        RGB uint8 pictures by number, of the frames that have depth.
    """
    run = pretraining_config(source)
    if run is None:
        return {}
    # Model and steps are those of the run, which may be unknown in the scope of the frames.
    scope = run.get('default_scope', 'mmmask3d')
    init_default_scope(scope)
    model = get_model(run, source, device)
    found: dict[int, np.ndarray] = {}
    for cfg in configs:
        init_default_scope(cfg.get('default_scope', 'mmmask3d'))
        dataset = DATASETS.build(with_pipeline(cfg.val_dataloader.dataset, []))
        if 'depth_path' not in dataset.get_data_info(0):  # labels alone
            continue
        init_default_scope(scope)
        pipeline = run.val_dataloader.dataset.pipeline
        dataset = DATASETS.build(with_pipeline(cfg.val_dataloader.dataset, pipeline))
        hand_masking_to(dataset, masking_defaults(run, model))
        for index in range(len(dataset)):
            number = frames.get(os.path.realpath(dataset.get_data_info(index)['img_path']))
            if number is not None:
                found[number] = draw_reconstruction(model, dataset[index], paste_kept=True)[0]
    return found
