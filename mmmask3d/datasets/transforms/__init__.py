"""Transforms that keep colour, depth and validity of a frame together."""

from .depth_map import LoadDepthMap
from .formatting import PackRGBDInputs
from .geometry import RGBDCenterCrop, RGBDRandomFlip, RGBDRandomResizedCrop, RGBDResize
from .loading import LoadRGBD
from .masking import DepthAwareMasking

__all__ = [
    'DepthAwareMasking',
    'LoadDepthMap',
    'LoadRGBD',
    'PackRGBDInputs',
    'RGBDCenterCrop',
    'RGBDRandomFlip',
    'RGBDRandomResizedCrop',
    'RGBDResize',
]
