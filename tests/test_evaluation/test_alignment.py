"""Scale-and-shift alignment against numpy's least squares."""

import math

import numpy as np
import pytest
import torch

from mmmask3d.evaluation.alignment import (
    align_patches,
    align_scale_shift,
    align_target_to_depth,
    fit_scale_shift,
)


def test_matches_lstsq_with_weights():
    rng = np.random.default_rng(0)
    prediction, target = rng.normal(size=(2, 3, 5, 6)) * [[[[2.0]]], [[[0.01]]]] + 50.0
    weight = rng.uniform(size=(3, 5, 6)) * (rng.uniform(size=(3, 5, 6)) < 0.6)
    scale, shift = fit_scale_shift(*map(torch.from_numpy, (prediction, target, weight)))
    for i in range(3):
        root = np.sqrt(weight[i].ravel())
        design = np.stack([prediction[i].ravel(), np.ones(30)], axis=1) * root[:, None]
        expected = np.linalg.lstsq(design, target[i].ravel() * root, rcond=None)[0]
        np.testing.assert_allclose([scale[i], shift[i]], expected, rtol=1e-8)


@pytest.mark.parametrize('garbage', [1e6, math.nan, math.inf])
def test_recovers_an_affine_map_whatever_the_invalid_pixels_hold(garbage):
    rng = np.random.default_rng(1)
    prediction = torch.from_numpy(rng.normal(size=(2, 8, 8)))
    valid = torch.from_numpy(rng.uniform(size=(2, 8, 8)) < 0.5)
    scales, shifts = torch.tensor([2.5, -0.3]).double(), torch.tensor([-1.0, 7.0]).double()
    target = prediction * scales[:, None, None] + shifts[:, None, None]
    target = target.masked_fill(~valid, garbage)
    scale, shift = fit_scale_shift(prediction.masked_fill(~valid, garbage), target, valid)
    torch.testing.assert_close(scale, scales)
    torch.testing.assert_close(shift, shifts)


def test_degenerate_frames():
    target = torch.tensor([[1.0, 2.0, 6.0], [4.0, 5.0, 6.0], [4.0, 5.0, 6.0], [1.0, 2.0, 3.0]])
    prediction = torch.tensor([[5.0] * 3, [0.1] * 3, [1.0, 2.0, 3.0], [0.0] * 3])
    weight = torch.tensor([[1, 1, 1], [0, 0, 0], [0, 1, 0], [1, 1, 0]]).bool()
    scale, shift = fit_scale_shift(prediction, target, weight)
    assert scale.tolist() == [1.0, 1.0, 1.0, 1.0]
    np.testing.assert_allclose(shift, [3.0 - 5.0, 0.0, 5.0 - 2.0, 1.5])


def test_nan_prediction_stays_nan():
    prediction = torch.tensor([[math.nan, 1.0, 2.0]])
    aligned = align_scale_shift(prediction, torch.ones(1, 3), torch.ones(1, 3))
    assert aligned.isnan().all()


def test_shapes_must_agree():
    with pytest.raises(ValueError, match='one shape'):
        fit_scale_shift(torch.zeros(1, 3), torch.zeros(1, 4), torch.ones(1, 3))


@pytest.mark.parametrize(
    ('mode', 'encode'),
    [('standardise', lambda z: z), ('log', np.log), ('inverse', lambda z: 1 / z)],
)
def test_target_space_alignment_is_exact_for_an_affine_target(mode, encode):
    rng = np.random.default_rng(2)
    depth = rng.uniform(0.5, 6.0, (2, 4, 6))
    valid = rng.uniform(size=depth.shape) < 0.7
    pred_target = 3.0 * encode(depth) - 5.0
    depth_with_holes = np.where(valid, depth, 0.0)
    aligned = align_target_to_depth(
        *map(torch.from_numpy, (pred_target, depth_with_holes, valid)), mode, (2, 3)
    )
    np.testing.assert_allclose(aligned.numpy()[valid], depth[valid], rtol=1e-9)


def test_inverse_target_is_bounded_by_the_farthest_depth():
    depth = torch.tensor([[[1.0, 2.0, 4.0, 4.0]]])
    valid = torch.tensor([[[True, True, True, False]]])
    # Exact on the fitted pixels; the last one maps to a negative inverse depth.
    pred_target = torch.tensor([[[1.0, 0.5, 0.25, -3.0]]])
    aligned = align_target_to_depth(pred_target, depth, valid, 'inverse', (1, 1))
    torch.testing.assert_close(aligned, torch.tensor([[[1.0, 2.0, 4.0, 4.0]]]).double())


def test_inverse_of_nothing_valid_is_finite_and_of_zero_depth_an_error():
    depth, pred = torch.zeros(1, 2, 2), torch.ones(1, 2, 2)
    valid = torch.zeros(1, 2, 2, dtype=torch.bool)
    assert align_target_to_depth(pred, depth, valid, 'inverse', (1, 1)).isfinite().all()
    with pytest.raises(ValueError, match='positive depth'):
        align_target_to_depth(pred, depth, ~valid, 'inverse', (1, 1))


def test_every_patch_gets_its_own_fit():
    rng = np.random.default_rng(3)
    gh, gw, ph, pw = 2, 3, 4, 2
    prediction = rng.normal(size=(2, gh * ph, gw * pw))
    scale, shift = rng.normal(size=(2, 2, gh, gw))
    spread = np.ones((1, ph, pw))
    target = prediction * np.kron(scale, spread) + np.kron(shift, spread)
    weight = np.ones_like(target, dtype=bool)
    aligned = align_patches(*map(torch.from_numpy, (prediction, target, weight)), (gh, gw))
    np.testing.assert_allclose(aligned.numpy(), target, rtol=1e-9, atol=1e-9)
