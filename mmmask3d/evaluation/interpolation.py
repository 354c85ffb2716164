"""Inverse-distance interpolation of sparse depth: the baseline a network has to beat.

Shepard's method (D. Shepard, *A two-dimensional interpolation function for irregularly-spaced
data*, ACM 1968): an unknown pixel is the mean of **all** known pixels, weighted by
``distance ** -power``. Both sums are convolutions over the pixel grid, so two FFTs replace the
sum over every pair of pixels.
"""

from functools import lru_cache

import torch
from torch import Tensor

# The weight sum of a pixel must exceed the rounding error of the FFT by this factor; pixels far
# from any reading that fall short are summed directly. It bounds the relative error of a fill.
_FFT_SAFETY = 1e6
# Pairs of pixels held at a time by the direct sum (float64: 8 bytes each).
_DIRECT_PAIRS = 4_000_000


@lru_cache(maxsize=8)
def _kernel(height: int, width: int, power: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Spectrum of ``distance ** -power`` over every offset within a map, and the kernel's norm.

    The kernel covers offsets -(height-1)..height-1, wrapped around in a (2 height, 2 width) grid,
    so the circular convolution of a zero-padded map equals the linear one.
    """
    dy = torch.arange(2 * height, dtype=torch.float64, device=device)
    dx = torch.arange(2 * width, dtype=torch.float64, device=device)
    dy = torch.minimum(dy, 2 * height - dy)
    dx = torch.minimum(dx, 2 * width - dx)
    squared = dy[:, None] ** 2 + dx[None, :] ** 2
    squared[0, 0] = 1.0
    kernel = squared ** (-power / 2)
    kernel[0, 0] = 0.0  # a known pixel keeps its reading and never reaches this sum
    return torch.fft.rfft2(kernel), kernel.norm()


def inverse_distance_fill(depth: Tensor, known: Tensor, power: float = 3.0) -> Tensor:
    """Fill unknown pixels with the inverse-distance mean of all known pixels of their frame.

    Computed in float64 whatever the input type. Pixels whose weights are so small that the FFT's
    rounding would show (very high powers, very sparse readings) are summed directly, so the
    result agrees with the sum over all pairs to about 1e-6 of the frame's depth range.

    Args:
        depth: Depth maps (B, 1, H, W), any unit. Where ``known`` is False the value is never
            read; it may be NaN or inf.
        known: Which pixels carry a reading, bool (B, 1, H, W).
        power: Exponent of the distance, > 0. Powers up to 2 tend to the mean of the frame, high
            powers to the nearest reading.

    Returns:
        (B, 1, H, W) in the type of ``depth``: known pixels unchanged, all others interpolated.
        A frame without any known pixel is all 0 (there is nothing to interpolate from).

    Raises:
        ValueError: If the shapes differ, are not (B, 1, H, W), ``known`` is not bool, or
            ``power`` is not positive.
    """
    if depth.ndim != 4 or depth.shape[1] != 1 or depth.shape != known.shape:
        raise ValueError(
            f'depth and known must both be (B, 1, H, W), got {tuple(depth.shape)} and '
            f'{tuple(known.shape)}'
        )
    if known.dtype != torch.bool:
        raise ValueError(f'known must be a bool tensor, got {known.dtype}')
    if not power > 0:
        raise ValueError(f'power must be positive, got {power}')

    height, width = depth.shape[-2:]
    size = (2 * height, 2 * width)
    weight = known.double()
    reading = torch.where(known, depth, torch.zeros_like(depth)).double()
    # Interpolate deviations from the mean: the weights sum to one, so the result is the same, and
    # rounding then scales with the frame's spread instead of its distance from zero.
    count = weight.sum(dim=(-2, -1), keepdim=True)
    mean = reading.sum(dim=(-2, -1), keepdim=True) / count.clamp(min=1)
    deviation = (reading - mean) * weight

    spectrum, kernel_norm = _kernel(height, width, float(power), depth.device)
    planes = torch.cat([deviation, weight], dim=1)  # (B, 2, H, W)
    sums = torch.fft.irfft2(torch.fft.rfft2(planes, s=size) * spectrum, s=size)
    numerator, denominator = sums[..., :height, :width].split(1, dim=1)

    # Rounding of an FFT convolution is bounded by eps * ||input|| * ||kernel|| (up to a log).
    rounding = torch.finfo(torch.float64).eps * count.sqrt() * kernel_norm
    trusted = denominator > _FFT_SAFETY * rounding
    filled = mean + numerator / denominator.clamp(min=torch.finfo(torch.float64).tiny)

    doubtful = ~trusted & ~known & (count > 0)
    if doubtful.any():
        filled[doubtful] = (
            _direct_fill(deviation, known, doubtful, power) + mean.expand_as(filled)[doubtful]
        )
    filled = torch.where(count > 0, filled, torch.zeros_like(filled))
    return torch.where(known, depth, filled.to(depth.dtype))


def _direct_fill(deviation: Tensor, known: Tensor, wanted: Tensor, power: float) -> Tensor:
    """Sum over all pairs for the ``wanted`` pixels, in blocks that bound the memory.

    Returns:
        The interpolated deviations, in the order of ``wanted.nonzero()``.
    """
    frame, _, row, column = wanted.nonzero(as_tuple=True)
    known_frame, _, known_row, known_column = known.nonzero(as_tuple=True)
    value = deviation[known]
    block = max(1, _DIRECT_PAIRS // max(1, value.numel()))
    out = []
    for start in range(0, frame.numel(), block):
        part = slice(start, start + block)
        dy = (row[part, None] - known_row[None, :]).double()
        dx = (column[part, None] - known_column[None, :]).double()
        # Distances relative to the nearest reading: weights then lie in (0, 1], for any power.
        squared = dy**2 + dx**2
        same = frame[part, None] == known_frame[None, :]
        squared = squared.masked_fill(~same, torch.inf)
        nearest = squared.min(dim=1, keepdim=True).values
        weights = (squared / nearest) ** (-power / 2)
        out.append((weights @ value) / weights.sum(dim=1))
    return torch.cat(out)
