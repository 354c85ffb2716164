"""Frames whose pixels say where they come from, a file backend in memory, the warnings logged."""

import logging
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.fileio.backends import BaseStorageBackend, register_backend
from mmengine.logging import MMLogger


def planted_frame(height, width, seed=0, **extra):
    """A loaded frame: blue = column, green = row, depth = 1 + row * 256 + column, holes at random.

    `origin` reads depth back into (row, column), so that after any transform a pixel can be
    compared with the pixel it was.
    """
    y, x = np.mgrid[0:height, 0:width]
    valid = np.random.default_rng(seed).random((height, width)) < 0.7
    return dict(
        img=np.stack([x, y, np.full_like(x, 7)], axis=-1).astype(np.uint8),
        depth=np.where(valid, 1 + 256 * y + x, 0).astype(np.float32),
        valid=valid,
        frame='planted',
        img_shape=(height, width),
        ori_shape=(height, width),
        **extra,
    )


def origin(depth):
    """(row, column) a planted depth value was written to."""
    code = np.asarray(depth).astype(np.int64) - 1
    return code // 256, code % 256


def write_frame(root, name, img=None, depth=None, suffix='.png'):
    """Write one frame as rgb/<name>.png and depth/<name><suffix>; defaults are 12x16, 1..6 m."""
    paths = Path(root) / f'rgb/{name}.png', Path(root) / f'depth/{name}{suffix}'
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
    if img is None:
        img = np.random.default_rng(len(name)).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    if depth is None:
        depth = np.linspace(1000, 6000, 12 * 16).reshape(12, 16).astype(np.uint16)
    assert cv2.imwrite(str(paths[0]), img)
    if suffix == '.npy':
        np.save(paths[1], depth)
    else:
        assert cv2.imwrite(str(paths[1]), depth)
    return paths


@pytest.fixture(name='planted_frame', scope='session')
def _planted_frame():
    return planted_frame


@pytest.fixture(name='origin', scope='session')
def _origin():
    return origin


@pytest.fixture(name='write_frame')
def _write_frame():
    return write_frame


@pytest.fixture
def warnings_logged():
    """List of the warnings logged through mmengine while the test runs."""
    lines = []

    class Collect(logging.Handler):
        def emit(self, record):
            lines.append(record.getMessage())

    handler = Collect(level=logging.WARNING)
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    yield lines
    logger.removeHandler(handler)


_FILES = {}


@register_backend('memory_files', prefixes='memory', force=True)
class MemoryBackend(BaseStorageBackend):
    """Contents by `memory://` name.

    It hands out memoryviews, gives None for a missing name and cannot list folders; each is so in
    one of mmengine's own backends.
    """

    def get(self, filepath):
        content = _FILES.get(filepath)
        return None if content is None else memoryview(content)

    def get_text(self, filepath, encoding='utf-8'):
        return _FILES[filepath].decode(encoding)

    def join_path(self, filepath, *filepaths):
        return '/'.join([filepath, *filepaths])


@pytest.fixture
def memory_files():
    """What the memory backend holds."""
    yield _FILES
    _FILES.clear()
