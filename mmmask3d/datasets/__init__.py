"""Data sets of RGB-D frames, their transforms and samplers."""

from importlib.util import find_spec

from .depth_io import FrameError
from .packed_lmdb import PackedLmdbBackend
from .rgbd_dataset import RGBDDataset
from .sampling import EpochIndex, EpochIndexSampler, sample_rng
from .transforms import (
    DepthAwareMasking,
    LoadRGBD,
    PackRGBDInputs,
    RGBDCenterCrop,
    RGBDRandomFlip,
    RGBDRandomResizedCrop,
    RGBDResize,
)

__all__ = [
    'DepthAwareMasking',
    'EpochIndex',
    'EpochIndexSampler',
    'FrameError',
    'LoadRGBD',
    'PackRGBDInputs',
    'PackedLmdbBackend',
    'RGBDCenterCrop',
    'RGBDDataset',
    'RGBDRandomFlip',
    'RGBDRandomResizedCrop',
    'RGBDResize',
    'sample_rng',
]

# Pre-training does not need mmseg: the segmentation data sets register where it is installed.
if find_spec('mmseg') is not None:
    from . import segmentation as segmentation
