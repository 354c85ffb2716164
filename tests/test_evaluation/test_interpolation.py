"""Inverse-distance interpolation against a loop over all pairs of pixels."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmmask3d.evaluation import inverse_distance_fill


def brute_force(depth: np.ndarray, known: np.ndarray, power: float) -> np.ndarray:
    out = np.zeros(depth.shape)
    readings = [(y, x) for y in range(depth.shape[0]) for x in range(depth.shape[1]) if known[y, x]]
    for y in range(depth.shape[0]):
        for x in range(depth.shape[1]):
            if known[y, x]:
                out[y, x] = depth[y, x]
            elif readings:
                weights = [math.hypot(y - v, x - u) ** -power for v, u in readings]
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
    power=st.sampled_from([0.5, 1.0, 2.0, 3.0, 4.0, 6.0]),
    share=st.floats(0.0, 1.0),
    seed=st.integers(0, 10_000),
)
def test_matches_brute_force(height, width, power, share, seed):
    rng = np.random.default_rng(seed)
    depth = rng.uniform(0.3, 9.0, (height, width))
    known = rng.uniform(size=(height, width)) < share
    got = inverse_distance_fill(as_map(depth), as_map(known), power)[0, 0].numpy()
    np.testing.assert_allclose(got, brute_force(depth, known, power), rtol=1e-9)


@pytest.mark.parametrize('power', [2.0, 3.0, 6.0, 20.0])
def test_far_pixels_of_a_large_map(power):
    """One corner known: the farthest pixel is 400 px away, its weights drown in FFT rounding."""
    rng = np.random.default_rng(1)
    depth = rng.uniform(1.0, 5.0, (240, 320))
    known = np.zeros((240, 320), dtype=bool)
    known[:4, :4] = True
    got = inverse_distance_fill(as_map(depth), as_map(known), power)[0, 0].numpy()
    readings = depth[:4, :4]
    for y, x in [(4, 4), (60, 60), (120, 300), (239, 0), (239, 319)]:
        distance = np.hypot(y - np.arange(4)[:, None], x - np.arange(4)[None, :])
        weights = (distance / distance.min()) ** -power
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
    got = inverse_distance_fill(as_map(depth), as_map(known), 3.0)[0, 0].numpy()
    ys, xs = np.nonzero(known)
    uy, ux = np.nonzero(~known)
    for i in rng.permutation(uy.size)[:200]:
        weights = ((ys - uy[i]) ** 2 + (xs - ux[i]) ** 2) ** -1.5
        expected = (weights * depth[ys, xs]).sum() / weights.sum()
        assert abs(got[uy[i], ux[i]] - expected) < 1e-10
    np.testing.assert_array_equal(got[known], depth[known])


@pytest.mark.parametrize('garbage', [1e6, math.nan, math.inf, -math.inf])
def test_unknown_values_never_enter(garbage):
    rng = np.random.default_rng(3)
    depth = torch.from_numpy(rng.uniform(1, 5, (2, 1, 12, 17)).astype(np.float32))
    known = torch.from_numpy(rng.uniform(size=(2, 1, 12, 17)) < 0.3)
    clean = inverse_distance_fill(torch.where(known, depth, 0), known)
    dirty = inverse_distance_fill(depth.masked_fill(~known, garbage), known)
    assert torch.equal(clean, dirty)
    assert clean.dtype == torch.float32


def test_frames_of_a_batch_do_not_mix_and_empty_frames_are_zero():
    rng = np.random.default_rng(4)
    depth = torch.from_numpy(rng.uniform(1, 5, (3, 1, 10, 14)))
    known = torch.from_numpy(rng.uniform(size=(3, 1, 10, 14)) < 0.2)
    known[1] = False
    together = inverse_distance_fill(depth, known)
    for i in (0, 2):
        alone = inverse_distance_fill(depth[i : i + 1], known[i : i + 1])[0]
        torch.testing.assert_close(together[i], alone, rtol=1e-12, atol=0)
    assert torch.equal(together[1], torch.zeros(1, 10, 14, dtype=torch.float64))


def test_far_pixels_of_a_batch_do_not_mix():
    """The direct sum, too, keeps every frame to its own readings."""
    depth = torch.ones(2, 1, 64, 96, dtype=torch.float64)
    depth[1] = 7.0
    known = torch.zeros_like(depth, dtype=torch.bool)
    known[..., 0, :2] = True
    filled = inverse_distance_fill(depth, known, power=12.0)
    torch.testing.assert_close(filled, depth, rtol=1e-12, atol=0)


def test_two_readings_by_hand():
    depth = torch.tensor([[[[2.0, 0.0, 0.0, 8.0]]]])
    known = torch.tensor([[[[True, False, False, True]]]])
    filled = inverse_distance_fill(depth, known, power=1.0)
    # Distances 1 and 2: (2 / 1 + 8 / 2) / (1 + 1 / 2) = 4 and its mirror image 6.
    torch.testing.assert_close(filled, torch.tensor([[[[2.0, 4.0, 6.0, 8.0]]]]))


def test_wrong_arguments_are_named():
    depth, known = torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    with pytest.raises(ValueError, match=r'\(B, 1, H, W\)'):
        inverse_distance_fill(depth[0], known[0])
    with pytest.raises(ValueError, match='bool'):
        inverse_distance_fill(depth, known.float())
    with pytest.raises(ValueError, match='positive'):
        inverse_distance_fill(depth, known, power=0.0)
