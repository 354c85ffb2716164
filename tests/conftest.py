"""What several tests need: small RGB-D folders and a config that trains on them in seconds."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

# Several libraries would each take every core, also in the processes that tests start.
os.environ.setdefault('OMP_NUM_THREADS', '1')
torch.set_num_threads(1)


def write_rgbd_folder(path, n=4, size=(32, 48), seed=0):
    """Write `n` smooth frames of `size` (height, width): rgb/*.png, depth/*.png in millimetres.

    Each frame has a hole (0) in its depth, of another size, so that frames differ in the number of
    valid pixels.
    """
    path, rng = Path(path), np.random.default_rng(seed)
    height, width = size
    y, x = np.mgrid[0:height, 0:width] / max(size)
    for folder in ('rgb', 'depth'):
        (path / folder).mkdir(parents=True, exist_ok=True)
    for i in range(n):
        a, b, c, phase = rng.uniform(0.3, 3.0, 4)
        depth = 1.0 + a * x + b * y + 0.3 * np.sin(6 * c * x + phase)  # metres
        shading = 255 / (0.5 + depth)[..., None] * rng.uniform(0.5, 1.0, 3)
        image = np.clip(shading + rng.normal(0, 4, (height, width, 3)), 0, 255)
        hole = 2 + (3 * i) % (height // 2)
        depth[:hole, : hole + 1] = 0
        name = f'frame_{i:03d}.png'
        assert cv2.imwrite(str(path / 'rgb' / name), image.astype(np.uint8))
        assert cv2.imwrite(str(path / 'depth' / name), (depth * 1000).astype(np.uint16))
    return path


@pytest.fixture
def make_rgbd_folder():
    """Function `make_rgbd_folder(path, n=4, size=(height, width), seed=0)`, returns the path."""
    return write_rgbd_folder
