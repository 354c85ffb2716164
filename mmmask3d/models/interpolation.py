"""Interpolation of sparse depth: what a network has to beat, or may start from.

:func:`linear_fill` (a plane over every Delaunay triangle of the known pixels) is the strongest of
the simple ones, hence the baseline of the evaluation; it runs on the CPU.

:func:`inverse_distance_fill` is D. Shepard's method (*A two-dimensional interpolation function for
irregularly-spaced data*, ACM 1968): an unknown pixel is the mean of **all** known pixels, weighted
by ``distance ** -power``. Both sums are convolutions over the pixel grid, so two FFTs replace the
sum over every pair of pixels, on any device and fast enough for training batches.
"""

from functools import lru_cache

import numpy as np
import torch
from scipy.interpolate import LinearNDInterpolator
from scipy.ndimage import distance_transform_edt
from scipy.spatial import Delaunay
from torch import Tensor

# On real frames with 80% of the depth removed 4 errs 7% less than 3 and 2% more than 5, the best
# being 6. Higher powers of distances across a frame drown in the rounding of an FFT; 4 does not.
_POWER = 4


def linear_fill(depth: Tensor, known: Tensor) -> Tensor:
    """Fill unknown pixels linearly from the known pixels of their frame.

    The known pixels are triangulated (Delaunay); within their convex hull a pixel lies on the plane
    through the corners of its triangle, outside it takes the nearest reading. Where four known
    pixels lie on one circle and none within it, either diagonal is a valid triangulation; which
    one is used is Qhull's choice, the same for the same ``known``. Known pixels that all lie on
    one line (or are fewer than three) span no triangle: every pixel takes the nearest.

    Computed in float64 on the CPU, whatever the input type and device.

    Args:
        depth: Depth maps (B, 1, H, W), any unit. Where ``known`` is False the value is never
            read; it may be NaN or inf.
        known: Which pixels carry a reading, bool (B, 1, H, W).

    Returns:
        (B, 1, H, W) in type and on device of ``depth``: known pixels unchanged, all others
        interpolated. A frame without any known pixel is all 0.

    Raises:
        ValueError: If the shapes differ, are not (B, 1, H, W), ``known`` is not bool, or a known
            pixel is NaN or inf.
    """
    _check_maps(depth, known)
    if not bool(torch.isfinite(depth[known]).all()):
        raise ValueError('depth is NaN or inf where known is True; such pixels are no readings')
    filled = np.zeros(depth.shape)
    maps = zip(filled, depth.detach().double().cpu().numpy(), known.cpu().numpy(), strict=True)
    for out, readings, mask in maps:
        if mask.any():
            out[0] = _linear_frame(readings[0], mask[0])
    interpolated = torch.from_numpy(filled).to(depth)
    return torch.where(known, depth, interpolated)


def _linear_frame(depth: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Fill one map (H, W) of float64 with at least one known pixel."""
    row, column = distance_transform_edt(~known, return_distances=False, return_indices=True)
    filled = depth[row, column]
    # The Voronoi cell of a pixel with four known neighbours is the pixel's own square, or less, so
    # the circles around its triangles have radii below 0.71 and no unknown pixel lies in them.
    # Leaving such pixels out gives the same planes over unknown pixels from far fewer points.
    around = np.pad(known, 1)
    inner = around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
    corners = np.argwhere(known & ~inner)
    if np.linalg.matrix_rank(corners - corners[0]) < 2:  # all on one line
        return filled
    plane = LinearNDInterpolator(Delaunay(corners), depth[tuple(corners.T)])
    unknown = np.argwhere(~known)
    value = plane(unknown)  # NaN outside the hull
    inside = ~np.isnan(value)
    filled[tuple(unknown[inside].T)] = value[inside]
    return filled


@lru_cache(maxsize=8)
def _kernel(height: int, width: int, device: torch.device) -> Tensor:
    """Spectrum of ``distance ** -power`` over every offset within a map.

    The kernel covers offsets -(height-1)..height-1, wrapped around in a (2 height, 2 width) grid,
    so the circular convolution of a zero-padded map equals the linear one.
    """
    dy = torch.arange(2 * height, dtype=torch.float64, device=device)
    dx = torch.arange(2 * width, dtype=torch.float64, device=device)
    dy = torch.minimum(dy, 2 * height - dy)
    dx = torch.minimum(dx, 2 * width - dx)
    squared = dy[:, None] ** 2 + dx[None, :] ** 2
    squared[0, 0] = 1.0
    kernel = squared ** (-_POWER / 2)
    kernel[0, 0] = 0.0  # a known pixel keeps its reading and never reaches this sum
    return torch.fft.rfft2(kernel)


def inverse_distance_fill(depth: Tensor, known: Tensor) -> Tensor:
    """Fill unknown pixels with the inverse-distance mean of all known pixels of their frame.

    Computed in float64 whatever the input type.

    Args:
        depth: Depth maps (B, 1, H, W), any unit. Where ``known`` is False the value is never
            read; it may be NaN or inf.
        known: Which pixels carry a reading, bool (B, 1, H, W).

    Returns:
        (B, 1, H, W) in the type of ``depth``: known pixels unchanged, all others interpolated.
        A frame without any known pixel is all 0 (there is nothing to interpolate from).

    Raises:
        ValueError: If the shapes differ, are not (B, 1, H, W), or ``known`` is not bool.
    """
    _check_maps(depth, known)
    height, width = depth.shape[-2:]
    size = (2 * height, 2 * width)
    weight = known.double()
    reading = torch.where(known, depth, 0).double()
    # Interpolate deviations from the mean: the weights sum to one, so the result is the same, and
    # rounding then scales with the frame's spread instead of its distance from zero.
    count = weight.sum(dim=(-2, -1), keepdim=True)
    mean = reading.sum(dim=(-2, -1), keepdim=True) / count.clamp(min=1)
    planes = torch.cat([(reading - mean) * weight, weight], dim=1)  # (B, 2, H, W)
    spectrum = torch.fft.rfft2(planes, s=size) * _kernel(height, width, depth.device)
    sums = torch.fft.irfft2(spectrum, s=size)[..., :height, :width]
    filled = torch.where(count > 0, mean + sums[:, :1] / sums[:, 1:], 0)
    return torch.where(known, depth, filled.to(depth.dtype))


def _check_maps(depth: Tensor, known: Tensor) -> None:
    if depth.ndim != 4 or depth.shape[1] != 1 or depth.shape != known.shape:
        raise ValueError(
            f'depth and known must both be (B, 1, H, W), got {tuple(depth.shape)} and '
            f'{tuple(known.shape)}'
        )
    if known.dtype != torch.bool:
        raise ValueError(f'known must be a bool tensor, got {known.dtype}')
