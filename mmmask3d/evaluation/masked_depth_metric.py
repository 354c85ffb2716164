"""Error of reconstructed depth on removed patches, next to baselines without learning.

At high depth ratios most of a depth map follows from the readings around a hole, so an error says
little by itself: every figure comes with that of linear interpolation of the kept readings, the
strongest of the simple ones (docs/evaluation.md compares them), and that of their mean.
"""

import logging
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from mmengine.structures import BaseDataElement
from torch import Tensor

from mmmask3d.evaluation.alignment import align_patches, align_scale_shift, align_target_to_depth
from mmmask3d.models.feature_cache import digest
from mmmask3d.models.interpolation import linear_fill
from mmmask3d.models.patches import patch_mask_to_pixels
from mmmask3d.registry import METRICS

# Below this ratio of standard deviation to mean a depth map is flat: only rounding is left of it.
_FLAT = 1e-6
_REMEMBERED = 10_000  # frames, a few numbers each


class ComparableDepth(NamedTuple):
    """A prediction that can be held against the ground truth, and where.

    Attributes:
        prediction: Depth (H, W) float64 in the unit of the ground truth.
        evaluated: Valid pixels of removed patches, bool (H, W).
        known: Valid pixels of kept patches, bool (H, W): what the network was given.
        aligned: Whether the ground truth was needed to place the prediction (scale and shift).
    """

    prediction: Tensor
    evaluated: Tensor
    known: Tensor
    aligned: bool


def comparable_depth(sample: dict) -> ComparableDepth:
    """Bring the prediction of a frame into the unit of its ground truth.

    Where the network saw depth, ``pred_depth`` is taken as it is: it was scaled by the kept
    readings alone. Where no depth patch was kept, depth is no input of the network, or
    ``pred_depth`` is absent because the target cannot be turned back into depth, the prediction is
    aligned by scale and shift to the ground truth of the evaluated pixels
    (:mod:`mmmask3d.evaluation.alignment`).

    Args:
        sample: Fields of a sample predicted by ``MaskedRGBD``: ``depth`` (H, W), ``valid``
            (H, W), ``depth_mask`` (N,), ``grid``, and ``pred_depth`` or ``pred_target`` (H, W);
            ``target_mode`` where ``pred_depth`` is absent; ``depth_input``, True where absent.

    Returns:
        Prediction, evaluated and known pixels. NaN in the prediction stays NaN.
    """
    has_depth = sample.get('pred_depth') is not None
    depth, valid = sample['depth'], sample['valid'].bool()
    grid = tuple(sample['grid'])
    mask, patch_size = sample['depth_mask'].bool(), depth.shape[0] // grid[0]
    removed = patch_mask_to_pixels(mask[None], patch_size, grid)[0, 0]
    evaluated, known = valid & removed, valid & ~removed

    saw_depth = sample.get('depth_input', True) and not bool(sample['depth_mask'].all())
    if has_depth and saw_depth:
        return ComparableDepth(sample['pred_depth'].double(), evaluated, known, aligned=False)
    if has_depth:
        prediction = align_scale_shift(sample['pred_depth'][None], depth[None], evaluated[None])[0]
    else:
        prediction = align_target_to_depth(
            sample['pred_target'][None], depth[None], evaluated[None], sample['target_mode'], grid
        )[0]
    return ComparableDepth(prediction, evaluated, known, aligned=True)


def depth_figures(
    prediction: Tensor, depth: Tensor, evaluated: Tensor, spread: float, metric: bool
) -> dict[str, float]:
    """Errors of one frame over its evaluated pixels.

    Args:
        prediction: Depth (H, W).
        depth: Ground truth (H, W), positive on evaluated pixels of metric frames.
        evaluated: bool (H, W), at least one True.
        spread: Standard deviation of the frame's depth, in the same unit.
        metric: Whether the frame is in metres.

    Returns:
        ``std_rmse`` (RMSE in standard deviations of the frame); for metric frames also ``rmse``
        (metres), ``abs_rel`` (mean of ``|p - d| / d``) and ``delta1`` (share of pixels with
        ``max(p / d, d / p) < 1.25``; a prediction at or below 0 never counts).
    """
    p, d = prediction[evaluated].double(), depth[evaluated].double()
    rmse = (p - d).square().mean().sqrt()
    figures = {'std_rmse': rmse / spread}
    if metric:
        figures['rmse'] = rmse
        figures['abs_rel'] = ((p - d).abs() / d).mean()
        figures['delta1'] = ((p > d / 1.25) & (p < d * 1.25)).double().mean()
    return {name: float(value) for name, value in figures.items()}


@METRICS.register_module()
class MaskedDepthMetric(BaseMetric):
    """Depth error on removed patches, with the same error of two non-learned baselines.

    Figures are taken per frame over the readings of removed depth patches, then averaged over
    frames. docs/evaluation.md explains each of them:

    * ``std_rmse`` on every frame; ``rmse`` (metres), ``abs_rel``, ``delta1`` on metric frames only;
    * ``interp_*`` and ``mean_*``: the same, for :func:`linear_fill` and the mean of the kept
      readings; ``beats_interp``: share of the frames with a smaller RMSE than the interpolation;
    * ``aligned_*``, ``aligned_mean_*``: frames without a kept depth patch, or whose target cannot
      be turned back into depth, after alignment to the truth; not comparable with the others;
    * ``frames_metric``, ``frames_relative``, ``frames_skipped``.

    Figures of the baselines are remembered by a digest of depth, validity and mask, so that
    validating again on the same frames and masks does not interpolate again.

    Args:
        **kwargs: Arguments of :class:`mmengine.evaluator.BaseMetric`.
    """

    default_prefix = 'masked_depth'

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._baselines: dict[bytes, dict] = {}

    def process(self, data_batch: Any, data_samples: Sequence[dict | BaseDataElement]) -> None:
        """Append one record of plain numbers per sample, skipped ones included.

        Exactly one, because :meth:`evaluate` cuts the collected list to the size of the data set
        to drop what the sampler padded.

        Args:
            data_batch: Not used.
            data_samples: Samples predicted by ``MaskedRGBD``, as such or as dicts.
        """
        for sample in data_samples:
            if isinstance(sample, BaseDataElement):
                sample = sample.to_dict()
            self.results.append(self._evaluate_frame(sample))

    def _evaluate_frame(self, sample: dict) -> dict:
        kind = sample.get('depth_kind', 'metric')
        if kind not in ('metric', 'relative'):
            raise ValueError(
                f"frame {sample.get('frame')}: depth_kind is {kind!r}, expected 'metric' or "
                "'relative'"
            )
        metric = kind == 'metric'
        found = comparable_depth(sample)
        depth, valid = sample['depth'].double(), sample['valid'].bool()
        if not found.evaluated.any():
            return {'kind': 'skipped', 'why': 'no reading in a removed patch'}
        if not found.aligned and not found.known.any():
            return {'kind': 'skipped', 'why': 'no reading in a kept patch'}
        readings = depth[valid]
        if metric and bool((readings <= 0).any()):
            raise ValueError(
                f'frame {sample.get("frame")}: valid depth of {float(readings.min())} m, expected '
                'more than 0; add the stored value to depth_invalid of the data set'
            )
        spread = float(readings.std(correction=0))
        if spread <= _FLAT * float(readings.abs().mean()):
            return {'kind': 'skipped', 'why': 'flat depth'}

        model = depth_figures(found.prediction, depth, found.evaluated, spread, metric)
        record = {'kind': kind, 'aligned': found.aligned, 'model': model}
        if found.aligned:
            # The best constant, of the frame or, for a target per patch, of each patch.
            per_patch = sample.get('pred_depth') is None and sample['target_mode'] == 'patch'
            grid = tuple(sample['grid']) if per_patch else (1, 1)
            zero = torch.zeros_like(depth)[None]
            constant = align_patches(zero, depth[None], found.evaluated[None], grid)[0]
            record['mean'] = depth_figures(constant, depth, found.evaluated, spread, metric)
        else:
            record.update(self._kept_baselines(depth, found, spread, metric))
        return record

    def _kept_baselines(
        self, depth: Tensor, found: ComparableDepth, spread: float, metric: bool
    ) -> dict[str, dict[str, float]]:
        """Figures of interpolation and mean of the kept readings, from the cache if seen."""
        key = digest(depth, found.known, found.evaluated) + bytes([metric])
        if key in self._baselines:
            return self._baselines[key]
        filled = linear_fill(depth[None, None], found.known[None, None])
        mean = torch.full_like(depth, float(depth[found.known].mean()))
        baselines = {
            'interp': depth_figures(filled[0, 0], depth, found.evaluated, spread, metric),
            'mean': depth_figures(mean, depth, found.evaluated, spread, metric),
        }
        if len(self._baselines) < _REMEMBERED:
            self._baselines[key] = baselines
        return baselines

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """Average the records of all ranks over frames.

        Args:
            results: Records of :meth:`process`.

        Returns:
            The figures named in the class docstring, without prefix; only those that at least one
            frame carries.
        """
        used = [r for r in results if r['kind'] != 'skipped']
        kept = [r for r in used if not r['aligned']]
        aligned = [r for r in used if r['aligned']]

        metrics: dict[str, float] = {}
        for prefix, records, source in (
            ('', kept, 'model'),
            ('interp_', kept, 'interp'),
            ('mean_', kept, 'mean'),
            ('aligned_', aligned, 'model'),
            ('aligned_mean_', aligned, 'mean'),
        ):
            for name in ('rmse', 'abs_rel', 'delta1', 'std_rmse'):
                values = [r[source][name] for r in records if name in r[source]]
                if values:
                    metrics[prefix + name] = _mean(values)
        if kept:
            metrics['beats_interp'] = _mean(
                r['model']['std_rmse'] < r['interp']['std_rmse'] for r in kept
            )
        for kind in ('metric', 'relative', 'skipped'):
            metrics[f'frames_{kind}'] = sum(r['kind'] == kind for r in results)

        if not used:
            reasons = sorted({r['why'] for r in results})
            print_log(
                f'{type(self).__name__}: none of {len(results)} frames could be evaluated '
                f'({"; ".join(reasons) or "no frame was processed"})',
                logger='current',
                level=logging.WARNING,
            )
        else:
            print_log('\n' + format_table(metrics), logger='current')
        return metrics


def format_table(metrics: dict[str, float]) -> str:
    """Lay out the figures of :class:`MaskedDepthMetric` with model and baselines side by side.

    Args:
        metrics: Figures named as :meth:`MaskedDepthMetric.compute_metrics` returns them.

    Returns:
        Lines of plain text; the best of each row carries a ``*``.
    """
    labels = {
        'rmse': 'RMSE [m]',
        'abs_rel': 'AbsRel',
        'delta1': 'delta < 1.25',
        'std_rmse': 'RMSE / std of frame',
    }
    title = 'Depth of removed patches'
    parts = {
        title: {'model': '', 'interpolation': 'interp_', 'mean of kept': 'mean_'},
        f'{title}, aligned to the ground truth by scale and shift': {
            'model': 'aligned_',
            'constant': 'aligned_mean_',
        },
    }
    lines = []
    for title, columns in parts.items():
        rows = [name for name in labels if columns['model'] + name in metrics]
        if not rows:
            continue
        lines += [title, ' ' * 20 + ''.join(f'{column:>15}' for column in columns)]
        for name in rows:
            values = [metrics[prefix + name] for prefix in columns.values()]
            best = max(values) if name == 'delta1' else min(values)
            cells = ''.join(f'{v:>14.4f}' + ('*' if v == best else ' ') for v in values)
            lines.append(f'{labels[name]:<20}{cells}'.rstrip())
    counts = ', '.join(f'{metrics[f"frames_{k}"]} {k}' for k in ('metric', 'relative', 'skipped'))
    note = f'frames: {counts}; * = best of the row'
    if 'beats_interp' in metrics:
        note += f'; better than interpolation on {metrics["beats_interp"]:.0%} of the frames'
    return '\n'.join([*lines, note])


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    return math.fsum(values) / len(values)
