"""What a pre-trained network reconstructs: one PNG a frame, and all of them on a sheet."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope

from mmmask3d.datasets.masking_config import hand_masking_to, masking_defaults
from mmmask3d.inspection.browse import choose
from mmmask3d.registry import DATASETS
from mmmask3d.visualization import panel_of_sample, stack_panels, write_png
from mmmask3d.weights.zoo import get_model


@torch.no_grad()
def draw_reconstruction(model: Any, packed: Mapping, **options: Any) -> tuple[np.ndarray, str]:
    """Draw what a model makes of a frame of a pre-training data set.

    Args:
        model: the pre-training model.
        packed: the frame, as the pipeline packed it.
        **options: of :func:`~mmmask3d.visualization.samples.panel_of_sample`.

    Returns:
        RGB uint8 (H', W', 3), and the name of the frame.
    """
    data = pseudo_collate([packed])
    sample = model.test_step(data)[0]
    panel = panel_of_sample(data['inputs']['img'][0], sample, **options)
    return panel, str(sample.get('frame', 'frame'))


def draw_reconstructions(
    cfg: Config,
    checkpoint: str,
    out_dir: str | os.PathLike,
    split: str = 'val',
    num: int = 8,
    indices: Sequence[int] | None = None,
    device: str = 'cpu',
    seed: int = 0,
    paste_kept: bool = False,
) -> list[Path]:
    """Draw frames of a split and write the pictures.

    Args:
        cfg: Pre-training config.
        checkpoint: Checkpoint of the whole pre-training model.
        out_dir: Folder for the pictures.
        split: 'train', 'val' or 'test'.
        num: Number of frames, spread over the split.
        indices: Frames by index instead.
        device: Where the model runs.
        seed: Of the random crops and masks of the split 'train'.
        paste_kept: Show the kept readings in the prediction.

    Returns:
        The files written, the sheet last.

    Raises:
        ValueError: The config has no such split, the split no such frame, or ``masking`` is wrong.
        RuntimeError: The checkpoint belongs to another model.
    """
    init_default_scope(cfg.get('default_scope', 'mmmask3d'))
    loader = cfg.get(f'{split}_dataloader')
    if not loader:
        raise ValueError(f'{cfg.filename} has no {split}_dataloader; choose another --split')
    model = get_model(cfg, checkpoint, device)
    torch.manual_seed(seed)
    np.random.seed(seed)
    dataset = DATASETS.build(loader.dataset)
    hand_masking_to(dataset, masking_defaults(cfg, model))

    folder, files, panels = Path(out_dir), [], []
    for index in choose(len(dataset), num, indices):
        panel, name = draw_reconstruction(model, dataset[index], paste_kept=paste_kept)
        frame = re.sub(r'[^\w.-]+', '_', name)
        files.append(write_png(folder / f'{split}_{index:05d}_{frame}.png', panel))
        panels.append(panel)
        print(files[-1])
    files.append(write_png(folder / f'{split}_sheet.png', stack_panels(panels)))
    return files
