"""Scale-and-shift alignment of predictions that carry no absolute depth.

Without depth input, or with a target that was normalised by statistics the network is not given,
a prediction is only defined up to an affine map. The error is then taken after the least-squares
alignment to the ground truth, as in MiDaS (Ranftl et al., TPAMI 2022), and named so.
"""

import torch
from torch import Tensor

# A prediction whose relative spread lies below this is a constant: only float rounding is left.
_CONSTANT = 1e-6


def fit_scale_shift(prediction: Tensor, target: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Minimise ``sum(weight * (scale * prediction + shift - target) ** 2)`` per frame.

    Closed form (the 2x2 normal equations on centred values), in float64. The scale may be
    negative: plain least squares, without a constraint.

    Degenerate cases: a constant prediction (or a single pixel) is only shifted, with scale 1; a
    frame without weight gets the identity, scale 1 and shift 0.

    Args:
        prediction: (B, ...).
        target: Same shape. Values without weight are never read; they may be NaN or inf, as may
            the prediction's.
        weight: Same shape, bool or non-negative numbers.

    Returns:
        scale and shift, both (B,) float64.

    Raises:
        ValueError: If the shapes differ.
    """
    if not prediction.shape == target.shape == weight.shape:
        raise ValueError(
            'prediction, target and weight must have one shape, got '
            f'{tuple(prediction.shape)}, {tuple(target.shape)} and {tuple(weight.shape)}'
        )
    w = weight.flatten(1).double()
    zero = w.new_zeros(())
    p = torch.where(w > 0, prediction.flatten(1).double(), zero)
    t = torch.where(w > 0, target.flatten(1).double(), zero)

    total = w.sum(dim=1)
    safe_total = torch.where(total > 0, total, torch.ones_like(total))
    p_mean = (w * p).sum(dim=1) / safe_total
    t_mean = (w * t).sum(dim=1) / safe_total
    p_centred = p - p_mean[:, None]
    variance = (w * p_centred**2).sum(dim=1) / safe_total
    covariance = (w * p_centred * (t - t_mean[:, None])).sum(dim=1) / safe_total

    # "not <=" rather than ">": a NaN prediction must stay NaN and not pass for a constant.
    varies = ~(variance <= (_CONSTANT * p_mean) ** 2) & (variance != 0)
    scale = torch.where(
        varies, covariance / torch.where(varies, variance, torch.ones_like(variance)), 1.0
    )
    shift = t_mean - scale * p_mean
    return scale, torch.where(total > 0, shift, torch.zeros_like(shift))


def align_scale_shift(prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """``scale * prediction + shift`` with :func:`fit_scale_shift`, one fit per frame.

    Args:
        prediction: (B, ...). Pixels without weight do not enter the fit but are mapped as well.
        target: Same shape.
        weight: Same shape, bool or non-negative numbers.

    Returns:
        The aligned prediction in float64, same shape.
    """
    scale, shift = fit_scale_shift(prediction, target, weight)
    shape = (-1,) + (1,) * (prediction.ndim - 1)
    return prediction.double() * scale.reshape(shape) + shift.reshape(shape)


def align_target_to_depth(
    pred_target: Tensor, depth: Tensor, fit_on: Tensor, target_mode: str, grid: tuple[int, int]
) -> Tensor:
    """Turn target-space predictions into depth with the help of the ground truth.

    The affine fit is made in the space the network predicts in, where its scale and shift are
    undefined: inverse depth for ``inverse``, log depth for ``log``, depth for every other mode;
    one fit per frame, or one per patch for ``patch``, whose targets have lost the scale and shift
    of every patch. Aligned inverse depth is bounded by the farthest depth fitted on, as it has no
    meaning at or below zero.

    Args:
        pred_target: Predictions in target units (B, H, W).
        depth: Ground truth (B, H, W), metres or relative.
        fit_on: Pixels that are fitted, bool (B, H, W).
        target_mode: Mode of the depth target.
        grid: Patches per column and per row (gh, gw); only read for ``patch``.

    Returns:
        Depth (B, H, W) in the unit of ``depth``, float64.

    Raises:
        ValueError: If a pixel to fit has no positive depth, where its inverse or logarithm is
            needed.
    """
    one = torch.ones((), dtype=torch.float64, device=depth.device)
    safe_depth = torch.where(fit_on, depth.double(), one)
    if target_mode in ('inverse', 'log') and bool((safe_depth <= 0).any()):
        raise ValueError(
            f'aligning a target of mode {target_mode!r} needs positive depth, found '
            f'{float(safe_depth.min())} among the valid pixels; mark such pixels as invalid in the '
            'data set (depth_invalid)'
        )
    if target_mode == 'inverse':
        aligned = align_scale_shift(pred_target, 1 / safe_depth, fit_on)
        farthest = torch.where(fit_on, safe_depth, 0 * one).amax(dim=(1, 2), keepdim=True)
        floor = 1 / torch.where(farthest > 0, farthest, one)
        return 1 / torch.maximum(aligned, floor)
    if target_mode == 'log':
        return align_scale_shift(pred_target, safe_depth.log(), fit_on).exp()
    if target_mode == 'patch':
        return align_patches(pred_target, safe_depth, fit_on, grid)
    return align_scale_shift(pred_target, safe_depth, fit_on)


def align_patches(
    prediction: Tensor, target: Tensor, weight: Tensor, grid: tuple[int, int]
) -> Tensor:
    """:func:`align_scale_shift` with a fit of its own for every patch of every frame.

    Args:
        prediction: (B, H, W).
        target: Same shape.
        weight: Same shape, bool or non-negative numbers.
        grid: Patches per column and per row (gh, gw); H and W are multiples of it.

    Returns:
        The aligned prediction in float64 (B, H, W).
    """
    (b, h, w), (gh, gw) = prediction.shape, grid
    ph, pw = h // gh, w // gw

    def to_patches(maps: Tensor) -> Tensor:
        return maps.reshape(b, gh, ph, gw, pw).transpose(2, 3).reshape(b * gh * gw, ph * pw)

    aligned = align_scale_shift(to_patches(prediction), to_patches(target), to_patches(weight))
    return aligned.reshape(b, gh, gw, ph, pw).transpose(2, 3).reshape(b, h, w)
