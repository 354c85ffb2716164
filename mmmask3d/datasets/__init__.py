"""Data sets of RGB-D frames, their transforms and samplers.

The names below are imported when they are first used, so that what needs no torch (``depth_io``,
``classes``, ...: the converters) is imported without it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .depth_io import FrameError
    from .masking_config import resolve_masking
    from .packed_lmdb import PackedLmdbBackend
    from .rgbd_dataset import RGBDDataset
    from .sampling import EpochIndex, EpochIndexSampler, sample_rng
    from .transforms import (
        DepthAwareMasking,
        LoadRGBD,
        PackRGBDInputs,
        RGBDRandomFlip,
        RGBDRandomResizedCrop,
        RGBDResize,
    )

_HOMES = {
    'DepthAwareMasking': 'transforms',
    'EpochIndex': 'sampling',
    'EpochIndexSampler': 'sampling',
    'FrameError': 'depth_io',
    'LoadRGBD': 'transforms',
    'PackRGBDInputs': 'transforms',
    'PackedLmdbBackend': 'packed_lmdb',
    'RGBDDataset': 'rgbd_dataset',
    'RGBDRandomFlip': 'transforms',
    'RGBDRandomResizedCrop': 'transforms',
    'RGBDResize': 'transforms',
    'resolve_masking': 'masking_config',
    'sample_rng': 'sampling',
}

__all__ = [
    'DepthAwareMasking',
    'EpochIndex',
    'EpochIndexSampler',
    'FrameError',
    'LoadRGBD',
    'PackRGBDInputs',
    'PackedLmdbBackend',
    'RGBDDataset',
    'RGBDRandomFlip',
    'RGBDRandomResizedCrop',
    'RGBDResize',
    'resolve_masking',
    'sample_rng',
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(import_module(f'.{_HOMES[name]}', __name__), name)
