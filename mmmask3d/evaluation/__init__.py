"""Metrics and the non-learned baselines they are printed next to."""

from importlib.util import find_spec

from mmmask3d.models.interpolation import linear_fill

from .masked_depth_metric import MaskedDepthMetric

__all__ = ['MaskedDepthMetric', 'linear_fill']

if find_spec('mmseg') is not None:
    from . import monocular_depth_metric as monocular_depth_metric
