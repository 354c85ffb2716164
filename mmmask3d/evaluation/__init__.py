"""Metrics and the non-learned baselines they are printed next to."""

from importlib.util import find_spec

from mmmask3d.models.interpolation import inverse_distance_fill, linear_fill

from .alignment import align_scale_shift, align_target_to_depth, fit_scale_shift
from .masked_depth_metric import MaskedDepthMetric, comparable_depth, depth_figures

__all__ = [
    'MaskedDepthMetric',
    'align_scale_shift',
    'align_target_to_depth',
    'comparable_depth',
    'depth_figures',
    'fit_scale_shift',
    'inverse_distance_fill',
    'linear_fill',
]

if find_spec('mmseg') is not None:
    from . import monocular_depth_metric as monocular_depth_metric
