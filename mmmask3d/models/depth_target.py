"""What the network is asked to predict for depth, and the way back to metres."""

import torch
from torch import Tensor, nn

from mmmask3d.models.patches import patchify, unpatchify

MODES = ('standardise', 'metric', 'log', 'inverse', 'patch')
_MIN_DEPTH = 1e-3  # metres (or relative units): keeps log and 1/x finite
_MIN_STD = 1e-3  # 1 mm: a flat frame becomes zeros, not amplified rounding
# Of the mean: kept patches that show one wall say little of how far the rest of the frame reaches.
_MIN_KEPT_STD = 0.1


def masked_mean_std(values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over ``mask`` along the last dimension, kept as size 1.

    Values outside the mask are never read. Where the mask is empty: mean 0 and deviation 1.

    Args:
        values: ``(..., L)`` float.
        mask: ``(..., L)`` bool.
    """
    count = mask.sum(-1, keepdim=True)
    n = count.clamp(min=1).to(values.dtype)
    mean = torch.where(mask, values, 0).sum(-1, keepdim=True) / n
    var = torch.where(mask, values - mean, 0).square().sum(-1, keepdim=True) / n
    std = (var + _MIN_STD**2).sqrt()
    return mean, torch.where(count > 0, std, torch.ones_like(std))


class DepthTarget(nn.Module):
    """Depth in metres to the regression target, and back.

    ====================  =============================================  =====================
    mode                  target                                         statistics
    ====================  =============================================  =====================
    ``standardise``       ``(d - mean) / std`` over the frame (default)  mean, std of a frame
    ``metric``            ``d`` in metres                                none
    ``log``               ``log d``                                      none
    ``inverse``           ``1 / d``                                      none
    ``patch``             ``(d - mean) / std`` over each patch           mean, std of a patch
    ====================  =============================================  =====================

    Statistics are those of valid pixels only. ``metric``, ``log`` and ``inverse`` are inverted
    without any; the others with the statistics they were made with, or (``standardise``) with
    those of the kept readings, which is what a fair evaluation may use.

    Args:
        mode: one of the above.
        stats: for ``standardise``: ``'all'`` valid pixels of the frame (our reading of the
            paper), or the ``'kept'`` ones alone, those the network is given, which makes the
            way back exact; the deviation then counts as a tenth of the mean at least.
        patch_size: for ``patch``.
    """

    def __init__(self, mode: str = 'standardise', stats: str = 'all', patch_size: int = 16):
        super().__init__()
        if mode not in MODES:
            raise ValueError(f'depth_target.mode is {mode!r}; expected one of {MODES}.')
        if stats not in ('all', 'kept'):
            raise ValueError(f"depth_target.stats is {stats!r}; expected 'all' or 'kept'.")
        if stats == 'kept' and mode != 'standardise':
            raise ValueError(f"depth_target.stats='kept' goes with mode='standardise', not {mode}.")
        self.mode = mode
        self.stats_from = stats
        self.patch_size = patch_size

    @property
    def needs_metric(self) -> bool:
        """Whether the target only means something for depth in metres."""
        return self.mode in ('metric', 'log', 'inverse')

    @property
    def invertible_without_truth(self) -> bool:
        """Whether a prediction leads to depth with nothing but the kept readings."""
        return self.mode != 'patch'

    def extra_repr(self) -> str:
        """Shown by ``print(model)``."""
        return f'mode={self.mode}, stats={self.stats_from}'

    def statistics(self, depth: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Statistics of ``depth`` ``(B, 1, H, W)`` over ``mask``, shaped to broadcast with it.

        Empty for the modes that use none.
        """
        if self.mode == 'standardise':
            mean, std = masked_mean_std(depth.flatten(1), mask.flatten(1))
            if self.stats_from == 'kept':
                std = torch.maximum(std, _MIN_KEPT_STD * mean)
            return dict(mean=mean[:, :, None, None], std=std[:, :, None, None])
        if self.mode == 'patch':
            p = self.patch_size
            grid = (depth.shape[-2] // p, depth.shape[-1] // p)
            mean, std = masked_mean_std(patchify(depth, p), patchify(mask, p))
            return {
                k: unpatchify(v.expand(-1, -1, p * p), p, grid)
                for k, v in dict(mean=mean, std=std).items()
            }
        return {}

    def encode(self, depth: Tensor, stats: dict[str, Tensor]) -> Tensor:
        """Depth ``(B, 1, H, W)`` to the target; the caller masks what is invalid."""
        if self.mode == 'metric':
            return depth
        if self.mode == 'log':
            return depth.clamp(min=_MIN_DEPTH).log()
        if self.mode == 'inverse':
            return depth.clamp(min=_MIN_DEPTH).reciprocal()
        return (depth - stats['mean']) / stats['std']

    def decode(self, target: Tensor, stats: dict[str, Tensor]) -> Tensor:
        """Target ``(B, 1, H, W)`` back to depth; ``stats`` are those it shall be read with."""
        if self.mode == 'metric':
            return target
        if self.mode == 'log':
            return target.exp()
        if self.mode == 'inverse':
            return target.clamp(min=_MIN_DEPTH).reciprocal()
        return target * stats['std'] + stats['mean']
