"""Transforms that keep colour, depth and validity of a frame together."""

from mmmask3d.datasets import packed_lmdb as packed_lmdb  # registers the file backend

from .depth_map import LoadDepthMap
from .formatting import PackRGBDInputs
from .geometry import RGBDRandomFlip, RGBDRandomResizedCrop, RGBDResize
from .loading import LoadRGBD
from .masking import DepthAwareMasking

__all__ = [
    'DepthAwareMasking',
    'LoadDepthMap',
    'LoadRGBD',
    'PackRGBDInputs',
    'RGBDRandomFlip',
    'RGBDRandomResizedCrop',
    'RGBDResize',
]
