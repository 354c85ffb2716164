"""Interpolations against loops over all pairs and all triangles of known pixels."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import ConvexHull

from mmmask3d.models.interpolation import inverse_distance_fill, linear_fill

FILLS = [inverse_distance_fill, linear_fill]


def brute_force(depth: np.ndarray, known: np.ndarray) -> np.ndarray:
    out = np.zeros(depth.shape)
    readings = [(y, x) for y in range(depth.shape[0]) for x in range(depth.shape[1]) if known[y, x]]
    for y in range(depth.shape[0]):
        for x in range(depth.shape[1]):
            if known[y, x]:
                out[y, x] = depth[y, x]
            elif readings:
                weights = [math.hypot(y - v, x - u) ** -4 for v, u in readings]
                values = [depth[v, u] for v, u in readings]
                out[y, x] = math.fsum(w * z for w, z in zip(weights, values, strict=True))
                out[y, x] /= math.fsum(weights)
    return out


def as_map(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array)[None, None]


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 9),
    width=st.integers(1, 11),
    share=st.floats(0.0, 1.0),
    seed=st.integers(0, 10_000),
)
def test_matches_brute_force(height, width, share, seed):
    rng = np.random.default_rng(seed)
    depth = rng.uniform(0.3, 9.0, (height, width))
    known = rng.uniform(size=(height, width)) < share
    got = inverse_distance_fill(as_map(depth), as_map(known))[0, 0].numpy()
    np.testing.assert_allclose(got, brute_force(depth, known), rtol=1e-9)


def test_far_pixels_of_a_large_map():
    """One corner known: the farthest pixel is 400 px away, its weights near the FFT's rounding."""
    rng = np.random.default_rng(1)
    depth = rng.uniform(1.0, 5.0, (240, 320))
    known = np.zeros((240, 320), dtype=bool)
    known[:4, :4] = True
    got = inverse_distance_fill(as_map(depth), as_map(known))[0, 0].numpy()
    readings = depth[:4, :4]
    for y, x in [(4, 4), (60, 60), (120, 300), (239, 0), (239, 319)]:
        distance = np.hypot(y - np.arange(4)[:, None], x - np.arange(4)[None, :])
        weights = (distance / distance.min()) ** -4
        expected = (weights * readings).sum() / weights.sum()
        np.testing.assert_allclose(got[y, x], expected, rtol=2e-6)


def test_masked_patches_at_full_size():
    """20% of 16x16 patches kept at 240x320, with holes: sampled pixels against the exact sum."""
    rng = np.random.default_rng(2)
    depth = rng.uniform(1.0, 5.0, (240, 320)) + 100.0  # far from zero: rounding must not scale
    keep = np.zeros(300, dtype=bool)
    keep[rng.permutation(300)[:60]] = True
    known = np.kron(keep.reshape(15, 20), np.ones((16, 16), bool)).astype(bool)
    known &= rng.uniform(size=known.shape) > 0.2
    got = inverse_distance_fill(as_map(depth), as_map(known))[0, 0].numpy()
    ys, xs = np.nonzero(known)
    uy, ux = np.nonzero(~known)
    for i in rng.permutation(uy.size)[:200]:
        weights = ((ys - uy[i]) ** 2 + (xs - ux[i]) ** 2) ** -2.0
        expected = (weights * depth[ys, xs]).sum() / weights.sum()
        assert abs(got[uy[i], ux[i]] - expected) < 1e-10
    np.testing.assert_array_equal(got[known], depth[known])


@pytest.mark.parametrize('fill', FILLS)
@pytest.mark.parametrize('garbage', [1e6, math.nan, math.inf, -math.inf])
def test_unknown_values_never_enter(fill, garbage):
    rng = np.random.default_rng(3)
    depth = torch.from_numpy(rng.uniform(1, 5, (2, 1, 12, 17)).astype(np.float32))
    known = torch.from_numpy(rng.uniform(size=(2, 1, 12, 17)) < 0.3)
    clean = fill(torch.where(known, depth, 0), known)
    dirty = fill(depth.masked_fill(~known, garbage), known)
    assert torch.equal(clean, dirty)
    assert clean.dtype == torch.float32


@pytest.mark.parametrize('fill', FILLS)
def test_frames_of_a_batch_do_not_mix_and_empty_frames_are_zero(fill):
    rng = np.random.default_rng(4)
    depth = torch.from_numpy(rng.uniform(1, 5, (3, 1, 10, 14)))
    known = torch.from_numpy(rng.uniform(size=(3, 1, 10, 14)) < 0.2)
    known[1] = False
    together = fill(depth, known)
    for i in (0, 2):
        alone = fill(depth[i : i + 1], known[i : i + 1])[0]
        torch.testing.assert_close(together[i], alone, rtol=1e-12, atol=0)
    assert torch.equal(together[1], torch.zeros(1, 10, 14, dtype=torch.float64))


def test_two_readings_by_hand():
    depth = torch.tensor([[[[2.0, 0.0, 0.0, 8.0]]]])
    known = torch.tensor([[[[True, False, False, True]]]])
    filled = inverse_distance_fill(depth, known)
    # Distances 1 and 2: (2 / 1 + 8 / 16) / (1 + 1 / 16), and (2 / 16 + 8 / 1) / (1 + 1 / 16).
    torch.testing.assert_close(filled, torch.tensor([[[[2.0, 40 / 17, 130 / 17, 8.0]]]]))


@pytest.mark.parametrize('fill', FILLS)
def test_wrong_maps_are_named(fill):
    depth, known = torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    with pytest.raises(ValueError, match=r'\(B, 1, H, W\)'):
        fill(depth[0], known[0])
    with pytest.raises(ValueError, match='bool'):
        fill(depth, known.float())


def cross(a, b, c):
    """Twice the signed area of a triangle."""
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def circle_holds(a, b, c, p):
    """Whether ``p`` lies strictly within the circle through ``a``, ``b``, ``c``; exact."""
    rows = [(q[0] - p[0], q[1] - p[1]) for q in (a, b, c)]
    (ax, ay, aw), (bx, by, bw), (cx, cy, cw) = ((x, y, x * x + y * y) for x, y in rows)
    det = ax * (by * cw - bw * cy) - ay * (bx * cw - bw * cx) + aw * (bx * cy - by * cx)
    return det * cross(a, b, c) > 0


def planes_at(points, depth, pixel):
    """Values at a pixel of the planes over all Delaunay triangles that hold it.

    They are several where four points lie on one circle, and none outside the hull.
    """
    values = []
    for a, b, c in itertools.combinations(points, 3):
        area = cross(a, b, c)
        if area == 0 or any(circle_holds(a, b, c, p) for p in points):
            continue
        parts = [cross(pixel, b, c) / area, cross(a, pixel, c) / area, cross(a, b, pixel) / area]
        if min(parts) >= 0:
            values.append(sum(w * depth[p] for w, p in zip(parts, (a, b, c), strict=True)))
    return values


def nearest_values(points, depth, pixel):
    """Values of the known pixels at the smallest distance."""
    squared = [(p[0] - pixel[0]) ** 2 + (p[1] - pixel[1]) ** 2 for p in points]
    return [depth[p] for p, s in zip(points, squared, strict=True) if s == min(squared)]


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 7),
    width=st.integers(1, 8),
    cell=st.integers(1, 3),
    share=st.floats(0.05, 0.6),
    seed=st.integers(0, 10_000),
)
def test_linear_matches_brute_force(height, width, cell, share, seed):
    """Scattered pixels and blocks, whose inner pixels never reach the triangulation."""
    rng = np.random.default_rng(seed)
    cells = rng.uniform(size=(-(-height // cell), -(-width // cell))) < share
    known = np.kron(cells, np.ones((cell, cell), bool)).astype(bool)[:height, :width]
    depth = rng.uniform(0.3, 9.0, known.shape)
    got = linear_fill(as_map(depth), as_map(known))[0, 0].numpy()
    points = [tuple(p) for p in np.argwhere(known).tolist()]
    np.testing.assert_array_equal(got[known], depth[known])
    for pixel in np.argwhere(~known).tolist():
        allowed = planes_at(points, depth, pixel) or nearest_values(points, depth, pixel) or [0.0]
        assert min(abs(got[tuple(pixel)] - value) for value in allowed) < 1e-9


@pytest.mark.parametrize('holes', [0.0, 0.2])
def test_linear_is_exact_on_planes_and_nearest_outside_the_hull(holes):
    """20% of 16x16 patches kept at 240x320."""
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:240, :320]
    depth = 3.0 + 0.011 * y - 0.004 * x
    keep = np.zeros(300, dtype=bool)
    keep[rng.permutation(300)[:60]] = True
    known = np.kron(keep.reshape(15, 20), np.ones((16, 16), bool)).astype(bool)
    known &= rng.uniform(size=known.shape) >= holes
    got = linear_fill(as_map(depth), as_map(known))[0, 0].numpy()

    hull = ConvexHull(np.argwhere(known))
    distance = np.stack([y, x], -1) @ hull.equations[:, :2].T + hull.equations[:, 2]
    inside = distance.max(-1) < -1e-9
    outside = distance.max(-1) > 1e-9
    assert inside.sum() > 40_000
    assert outside.sum() > 100
    np.testing.assert_allclose(got[inside], depth[inside], rtol=0, atol=1e-10)
    points = np.argwhere(known)
    for pixel in np.argwhere(outside)[:: outside.sum() // 50]:
        squared = ((points - pixel) ** 2).sum(1)
        candidates = depth[tuple(points[squared == squared.min()].T)]
        assert got[tuple(pixel)] in candidates


@pytest.mark.parametrize(
    'points',
    [
        [(2, 3)],
        [(0, 0), (5, 7)],
        [(1, 0), (1, 4), (1, 7)],
        [(0, 3), (2, 3), (5, 3)],
        [(0, 1), (2, 3), (4, 5)],
        [(0, 6), (1, 4), (2, 2), (3, 0)],
    ],
    ids=['one', 'two', 'row', 'column', 'diagonal', 'slope'],
)
def test_linear_without_a_triangle_is_the_nearest(points):
    depth = np.random.default_rng(6).uniform(1, 5, (6, 8))
    known = np.zeros(depth.shape, dtype=bool)
    known[tuple(np.transpose(points))] = True
    got = linear_fill(as_map(depth), as_map(known))[0, 0].numpy()
    for pixel in np.ndindex(depth.shape):
        assert got[pixel] in nearest_values(points, depth, pixel)


def test_linear_by_hand():
    depth = torch.zeros(1, 1, 3, 5, dtype=torch.float64)
    known = torch.zeros_like(depth, dtype=torch.bool)
    for row, column, value in [(0, 0, 1.0), (2, 0, 3.0), (0, 4, 9.0)]:
        depth[..., row, column], known[..., row, column] = value, True
    # Rows rise by 1, columns by 2; below the diagonal the nearest of the three.
    expected = [[1.0, 3.0, 5.0, 7.0, 9.0], [2.0, 4.0, 6.0, 9.0, 9.0], [3.0, 3.0, 3.0, 9.0, 9.0]]
    torch.testing.assert_close(linear_fill(depth, known)[0, 0].tolist(), expected)


def test_linear_refuses_readings_that_are_none():
    depth = torch.ones(1, 1, 4, 4)
    depth[..., 1, 1] = math.nan
    with pytest.raises(ValueError, match='NaN or inf where known is True'):
        linear_fill(depth, torch.ones_like(depth, dtype=torch.bool))
    filled = linear_fill(depth, torch.isfinite(depth))
    assert filled.isfinite().all()
