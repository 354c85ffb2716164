"""Depth losses that see valid pixels only.

Each takes ``pred`` and ``target`` ``(B, 1, H, W)`` and ``mask`` ``(B, 1, H, W)`` bool, and
averages over the masked-in pixels of the whole batch and, in distributed training, of all ranks,
so that gradients do not depend on how frames are spread over processes. Values outside the mask
never enter, not even NaN. With an empty mask a loss is 0 and its gradient is 0.
"""

import torch
from mmengine.dist import all_reduce, get_world_size
from torch import Tensor, nn

from mmmask3d.registry import MODELS


def batch_mean(total: Tensor, count: Tensor) -> Tensor:
    """``total / count`` with the count averaged over ranks; 0 where there is nothing to average.

    DDP averages gradients over ranks, so dividing each rank's sum by the *mean* count gives the
    gradient of the mean over all pixels.
    """
    count = count.detach().to(total.dtype)
    if get_world_size() > 1:
        count = count.clone()
        all_reduce(count, op='mean')
    return total / torch.where(count > 0, count, torch.ones_like(count))


def masked_difference(pred: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """``pred - target`` in float32, 0 outside the mask, with a finite gradient everywhere."""
    return torch.where(mask, pred.float() - torch.where(mask, target.float(), 0), 0)


class DepthLoss(nn.Module):
    """Base of the depth losses.

    Args:
        loss_weight: factor.
    """

    needs_positive_depth = False
    """Whether the loss is only defined for metric or logarithmic targets."""

    def __init__(self, loss_weight: float = 1.0):
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, pred: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """Scalar loss, see the module."""
        return self.loss_weight * self.compute(masked_difference(pred, target, mask), mask)

    def compute(self, diff: Tensor, mask: Tensor) -> Tensor:
        """Reduce the masked difference ``(B, 1, H, W)`` to a scalar."""
        raise NotImplementedError


@MODELS.register_module()
class DepthL2Loss(DepthLoss):
    """Mean squared error."""

    def compute(self, diff: Tensor, mask: Tensor) -> Tensor:
        """See :class:`DepthLoss`."""
        return batch_mean(diff.square().sum(), mask.sum())


@MODELS.register_module()
class DepthL1Loss(DepthLoss):
    """Mean absolute error."""

    def compute(self, diff: Tensor, mask: Tensor) -> Tensor:
        """See :class:`DepthLoss`."""
        return batch_mean(diff.abs().sum(), mask.sum())


@MODELS.register_module()
class DepthBerHuLoss(DepthLoss):
    """Reverse Huber loss (Laina et al., 3DV 2016): L1 below a threshold, quadratic above.

    Args:
        threshold: share of the largest error in the batch (over ranks) where it turns.
        loss_weight: factor.
    """

    def __init__(self, threshold: float = 0.2, loss_weight: float = 1.0):
        super().__init__(loss_weight)
        self.threshold = threshold

    def compute(self, diff: Tensor, mask: Tensor) -> Tensor:
        """See :class:`DepthLoss`."""
        error = diff.abs()
        c = self.threshold * error.detach().max()
        if get_world_size() > 1:
            all_reduce(c, op='max')
        c = c.clamp(min=torch.finfo(error.dtype).tiny)
        loss = torch.where(error <= c, error, (diff.square() + c**2) / (2 * c))
        return batch_mean(torch.where(mask, loss, 0).sum(), mask.sum())


@MODELS.register_module()
class DepthSILogLoss(DepthLoss):
    """Scale-invariant logarithmic error (Eigen et al., NeurIPS 2014, eq. 4).

    ``mean(g^2) - lam * mean(g)^2`` with ``g = log pred - log target`` within a frame, frames
    weighted by their number of pixels.

    Args:
        lam: 0 is plain squared log error, 1 ignores the scale altogether.
        log_input: whether prediction and target are logarithms already (depth target ``log``),
            rather than metres (``metric``).
        eps: metres below which the logarithm is continued by its tangent, so that a prediction of
            0 or less, as a network makes at first, has a finite error and a gradient that leads
            out.
        loss_weight: factor.
    """

    needs_positive_depth = True

    def __init__(
        self,
        lam: float = 0.5,
        log_input: bool = False,
        eps: float = 0.1,
        loss_weight: float = 1.0,
    ):
        super().__init__(loss_weight)
        self.lam = lam
        self.log_input = log_input
        self.eps = eps

    def forward(self, pred: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """Scalar loss, see the module."""
        if not self.log_input:
            pred, target = (self._log(torch.where(mask, x.float(), 1)) for x in (pred, target))
        return super().forward(pred, target, mask)

    def _log(self, depth: Tensor) -> Tensor:
        above = depth.clamp(min=self.eps)
        return above.log() + (depth - above) / self.eps

    def compute(self, diff: Tensor, mask: Tensor) -> Tensor:
        """See :class:`DepthLoss`."""
        count = mask.flatten(1).sum(1)
        frame_sum = diff.flatten(1).sum(1)
        bias = (frame_sum.square() / count.clamp(min=1)).sum()
        return batch_mean(diff.square().sum() - self.lam * bias, count.sum())


@MODELS.register_module()
class DepthGradientLoss(DepthLoss):
    """Multi-scale gradient matching (Li and Snavely, MegaDepth, CVPR 2018, eq. 2).

    Absolute differences of the error between neighbours that are both in the mask, at ``scales``
    subsamplings by powers of two. It says nothing about the level: combine it with another loss.

    Args:
        scales: number of scales.
        loss_weight: factor.
    """

    def __init__(self, scales: int = 4, loss_weight: float = 1.0):
        super().__init__(loss_weight)
        self.scales = scales

    def compute(self, diff: Tensor, mask: Tensor) -> Tensor:
        """See :class:`DepthLoss`."""
        loss = diff.new_zeros(())
        for scale in range(self.scales):
            d, m = diff[..., :: 2**scale, :: 2**scale], mask[..., :: 2**scale, :: 2**scale]
            total = diff.new_zeros(())
            count = diff.new_zeros(())
            for dim in (-2, -1):
                size = d.shape[dim] - 1
                if size < 1:
                    continue
                both = m.narrow(dim, 0, size) & m.narrow(dim, 1, size)
                step = (d.narrow(dim, 1, size) - d.narrow(dim, 0, size)).abs()
                total = total + torch.where(both, step, 0).sum()
                count = count + both.sum()
            loss = loss + batch_mean(total, count)
        return loss
