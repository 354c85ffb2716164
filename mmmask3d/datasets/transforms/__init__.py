"""Transforms that keep colour, depth and validity of a frame together."""

from .formatting import PackRGBDInputs
from .geometry import RGBDCenterCrop, RGBDRandomFlip, RGBDRandomResizedCrop, RGBDResize
from .loading import LoadRGBD
from .masking import DepthAwareMasking

__all__ = [
    'DepthAwareMasking',
    'LoadRGBD',
    'PackRGBDInputs',
    'RGBDCenterCrop',
    'RGBDRandomFlip',
    'RGBDRandomResizedCrop',
    'RGBDResize',
]
