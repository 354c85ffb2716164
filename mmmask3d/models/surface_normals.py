"""Surface normals of depth maps that are noisy, coarse or full of holes: planes over a window."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from mmmask3d.datasets.transforms.geometry import whole_view

_MIN_SHARE = 0.5  # of the window's pixels that have readings


def plane_normals(
    depth: Tensor,
    valid: Tensor,
    fov: float = 57.0,
    window: int = 9,
    max_residual: float = 0.02,
    view: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Unit normals towards the camera, from the plane that fits each pixel's window best.

    For the plane ``n . P = 1`` and a pixel at ``P = z (u, v, 1)``, ``1 / z = n . (u, v, 1)``:
    inverse depth is linear in the image, and least squares over the window's readings give the
    plane in closed form. Differences of neighbours, by contrast, see single steps of 8-bit depth.
    A common factor of the depth, as relative depth has, changes no normal.

    Args:
        depth: z-depth ``(B, 1, H, W)``, metric or proportional to it.
        valid: ``(B, 1, H, W)`` bool; other pixels are never read.
        fov: horizontal field of view in degrees of the pinhole camera; 57 is a Kinect's.
        window: side of the window in pixels, odd.
        max_residual: largest root mean square of the fit's error in the window, relative to the
            inverse depth at its centre; beyond it an edge runs through.
        view: what each map shows of the camera's image, ``(B, 4)``: left, top, right and bottom
            border from the image's centre, in widths of the image. By default all of it, with
            square pixels.

    Returns:
        Normals ``(B, 3, H, W)`` float32 in camera axes (x right, y down, z forward), 0 where there
        is none, and where there is one ``(B, 1, H, W)`` bool: the pixel has a reading, half of its
        window has, and they fit a plane that faces the camera.

    Raises:
        ValueError: the window is even, or smaller than 3.
    """
    if window < 3 or window % 2 == 0:
        raise ValueError(f'window={window}: expected an odd number of pixels, 3 or more.')
    height, width = depth.shape[-2:]
    if view is None:
        view = depth.new_tensor([whole_view((height, width))])
    # Borders and size of a pixel in units of the focal length, (B, 1, 1) each.
    borders = 2 * math.tan(math.radians(fov) / 2) * view.float()[:, :, None, None]
    left, top, right, bottom = borders.unbind(1)
    across, down = (right - left) / width, (bottom - top) / height
    inside = valid & (depth > 0)
    inverse = torch.where(inside, 1 / torch.where(inside, depth.float(), 1), 0)
    # Window sums of 1, x, y, xx, xy, yy and of w, xw, yw, ww over the readings, where w is the
    # inverse depth, and x and y are pixels from the window's centre: across, then down. In float32,
    # twice as fast as float64 and, on generated rooms, within 0.04 degrees of it.
    half = window // 2
    n, sx, sy, sxx, sxy, syy = _moments(inside[:, 0].float(), half)
    sw, sxw, syw, _, _, _ = _moments(inverse[:, 0], half)
    sww = _sums(_sums(inverse[:, 0].square(), half, -1, 1)[0], half, -2, 1)[0]
    enough = (n >= _MIN_SHARE * window**2) & inside[:, 0]
    # Centred at the readings' mean, the normal equations are two by two.
    n = n.clamp(min=1)
    xx, xy, yy = sxx - sx * sx / n, sxy - sx * sy / n, syy - sy * sy / n
    xw, yw, ww = sxw - sx * sw / n, syw - sy * sw / n, sww - sw * sw / n
    determinant = xx * yy - xy.square()
    enough &= determinant > 1e-6 * xx * yy  # readings on one line leave the plane open
    determinant = torch.where(enough, determinant, 1)
    a, b = (yy * xw - xy * yw) / determinant, (xx * yw - xy * xw) / determinant
    c = (sw - a * sx - b * sy) / n
    error = ((ww - a * xw - b * yw).clamp(min=0) / n).sqrt()
    enough &= (c > 0) & (error <= max_residual * c)
    # From pixels to units of the focal length, and from the window's centre to the optical axis.
    a, b = a / across, b / down
    u = left + across * (torch.arange(width, device=depth.device) + 0.5)
    v = top + down * (torch.arange(height, device=depth.device)[:, None] + 0.5)
    plane = torch.stack((a, b, c - a * u - b * v), dim=1)
    known = enough[:, None]
    # torch's own norm over a dimension that is not the last takes ten times as long on a CPU.
    length = plane.square().sum(1, keepdim=True).sqrt()
    return torch.where(known, -plane / torch.where(known, length, 1), 0).float(), known


def _moments(values: Tensor, half: int) -> list[Tensor]:
    """Window sums of ``(B, H, W)`` times 1, x, y, xx, xy, yy."""
    one, x, xx = _sums(values, half, -1, 3)
    (one, y, yy), (x, xy), (xx,) = (
        _sums(across, half, -2, orders) for across, orders in ((one, 3), (x, 2), (xx, 1))
    )
    return [one, x, y, xx, xy, yy]


def _sums(values: Tensor, half: int, dim: int, orders: int) -> list[Tensor]:
    """Sums of values times 1, s, ss, as many as ``orders``, over ``2 * half + 1`` neighbours.

    ``s`` is the distance along ``dim``. Pairs at one distance are added; a third of the time that
    a convolution with one channel takes on a CPU.
    """
    length = values.shape[dim]
    padded = F.pad(values, (half, half) if dim == -1 else (0, 0, half, half))
    sums = [values.clone()] + [torch.zeros_like(values) for _ in range(orders - 1)]
    for s in range(1, half + 1):
        before = padded.narrow(dim, half - s, length)
        after = padded.narrow(dim, half + s, length)
        pair = after + before
        for total, factor in zip(sums[::2], (1, s**2), strict=False):
            total.add_(pair, alpha=factor)
        if orders > 1:
            sums[1].add_(after - before, alpha=s)
    return sums


def normal_figures(predicted: Tensor, normals: Tensor, known: Tensor) -> dict[str, float]:
    """Angles between normals, as Probe3D (arXiv 2404.08636) reports them.

    Args:
        predicted: ``(3, H, W)`` of any length.
        normals: unit ``(3, H, W)``.
        known: ``(1, H, W)`` or ``(H, W)`` bool: where to look.

    Returns:
        ``mean`` and ``median`` angle in degrees, and the shares in percent within 11.25, 22.5 and
        30 degrees: ``a1``, ``a2``, ``a3``.
    """
    known = known.reshape(normals.shape[-2:])
    ours, truth = predicted[:, known].double(), normals[:, known].double()
    # By hand: norms over a dimension of three are slow.
    lengths = (ours.square().sum(0) * truth.square().sum(0)).sqrt()
    cosine = (ours * truth).sum(0) / lengths.clamp(min=1e-12)
    angle = torch.rad2deg(cosine.clamp(-1, 1).acos())
    shares = {
        f'a{i}': float(100 * (angle < t).double().mean())
        for i, t in enumerate((11.25, 22.5, 30), 1)
    }
    return {'mean': float(angle.mean()), 'median': float(angle.median()), **shares}
