"""Figures of monocular depth estimation, with mmseg's ``DepthMetric``."""

import math
from collections.abc import Sequence

import torch
from mmengine.logging import MMLogger
from mmseg.evaluation.metrics import DepthMetric
from torch import Tensor

from mmmask3d.registry import METRICS

_NYU_SIZE = (480, 640)


@METRICS.register_module()
class MonocularDepthMetric(DepthMetric):
    """mmseg's ``DepthMetric`` as the NYUv2 protocol is meant (Eigen et al., NeurIPS 2014).

    d1 to d3 (share of pixels within a factor of 1.25, 1.25^2, 1.25^3), abs_rel, sq_rel, rmse,
    rmse_log, log10 and silog, each over the valid pixels of a frame, then averaged over frames.
    It differs from the parent in four things:

    - predictions are clamped to the evaluated range, as the protocol does; the parent's
      logarithms of a prediction of 0 or less are NaN, and so is the whole figure;
    - ``crop_type='nyu_crop'``, rows 45 to 471 and columns 41 to 601 of 480x640, is refused for
      maps of another size, where the parent cuts out the wrong part;
    - frames without a valid pixel are left out and counted; they make the parent's mean NaN;
    - each frame is reduced at once, where the parent holds all pixels of all frames.

    Args:
        min_depth_eval: metres; pixels at or below are left out.
        max_depth_eval: metres; pixels at or beyond are left out.
        crop_type: None or 'nyu_crop'.
        **kwargs: further arguments of the parent.

    Raises:
        ValueError: the range is empty.
    """

    def __init__(
        self,
        min_depth_eval: float = 1e-3,
        max_depth_eval: float = 10.0,
        crop_type: str | None = None,
        **kwargs,
    ) -> None:
        if not 0 < min_depth_eval < max_depth_eval:
            raise ValueError(
                f'MonocularDepthMetric: expected 0 < min_depth_eval < max_depth_eval, got '
                f'{min_depth_eval}, {max_depth_eval}.'
            )
        super().__init__(
            min_depth_eval=min_depth_eval,
            max_depth_eval=max_depth_eval,
            crop_type=crop_type,
            **kwargs,
        )

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Reduce each frame to its figures."""
        for sample in data_samples:
            pred = sample['pred_depth_map']['data']
            clamped = pred.clamp(self.min_depth_eval, self.max_depth_eval)
            super().process(data_batch, [{**sample, 'pred_depth_map': {'data': clamped}}])
            if self.format_only:
                continue
            truth, predicted = self.results.pop()
            self.results.append(self._calc_all_metrics(truth, predicted) if len(truth) else None)

    def _get_eval_mask(self, gt_depth: Tensor) -> Tensor:
        if self.crop_type == 'nyu_crop' and tuple(gt_depth.shape) != _NYU_SIZE:
            raise ValueError(
                f"MonocularDepthMetric: crop_type='nyu_crop' is defined for maps of "
                f'{_NYU_SIZE[0]}x{_NYU_SIZE[1]}, found {tuple(gt_depth.shape)}. Evaluate at that '
                f'size (load depth after the resize), or leave crop_type out.'
            )
        return super()._get_eval_mask(torch.nan_to_num(gt_depth, nan=0.0, posinf=0.0, neginf=0.0))

    def compute_metrics(self, results: list[dict[str, float] | None]) -> dict[str, float]:
        """Average over the frames that have a valid pixel."""
        if self.format_only:
            return super().compute_metrics(results)
        scored = [result for result in results if result is not None]
        logger = MMLogger.get_current_instance()
        if len(scored) < len(results):
            logger.warning(
                f'{len(results) - len(scored)} of {len(results)} frames have no valid pixel '
                f'and are left out of the depth figures.'
            )
        if not scored:
            return dict.fromkeys(self.metrics, math.nan)
        return {name: sum(r[name] for r in scored) / len(scored) for name in self.metrics}
