import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from mmmask3d.models.depth_target import MODES, DepthTarget, masked_mean_std

PATCH = 4
# Readings of RGB-D sensors: 6 cm to 80 m.
metres = st.floats(0.0625, 80.0, width=32)
frames = arrays(
    np.float32, st.sampled_from([(1, 1, 8, 12), (3, 1, 4, 8), (2, 1, 8, 4)]), elements=metres
)


@pytest.mark.parametrize('mode', MODES)
@given(depth=frames, data=st.data())
@settings(max_examples=40, deadline=None)
def test_every_target_leads_back_to_metres(mode, depth, data):
    depth = torch.from_numpy(depth.copy())
    valid = torch.from_numpy(data.draw(arrays(np.bool_, tuple(depth.shape))))
    depth = torch.where(valid, depth, 0)
    target = DepthTarget(mode, patch_size=PATCH)
    stats = target.statistics(depth, valid)
    encoded = target.encode(depth, stats)
    assert torch.isfinite(encoded).all()
    back = target.decode(encoded, stats)
    torch.testing.assert_close(back[valid], depth[valid], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('mode', MODES)
def test_targets_by_value(mode):
    depth = torch.tensor([[1.0, 2.0, 4.0, 8.0], [1.0, 1.0, 3.0, 9.0]]).reshape(1, 1, 2, 4)
    valid = torch.ones_like(depth, dtype=torch.bool)
    valid[..., 1, 3] = False
    values = depth[valid].double().numpy()
    patches = depth.double().numpy()[0, 0]

    def standardised(d, over):
        return (d - over.mean()) / np.sqrt(over.var() + 1e-6)

    left, right = patches[:, :2], patches[:, 2:]
    expected = {
        'standardise': standardised(patches, values),
        'metric': patches,
        'log': np.log(patches),
        'inverse': 1 / patches,
        'patch': np.concatenate(
            (standardised(left, left), standardised(right, right[[0, 0, 1], [0, 1, 0]])), axis=1
        ),
    }[mode]
    target = DepthTarget(mode, patch_size=2)
    found = target.encode(depth, target.statistics(depth, valid))
    np.testing.assert_allclose(found[0, 0], expected, rtol=1e-5)


@given(
    values=arrays(np.float32, array_shapes(min_dims=2, max_dims=3, max_side=6), elements=metres),
    data=st.data(),
)
@settings(max_examples=60, deadline=None)
def test_statistics_are_those_of_the_masked_values(values, data):
    mask = data.draw(arrays(np.bool_, values.shape))
    dirty = torch.from_numpy(np.where(mask, values, np.float32(np.nan)))
    mean, std = masked_mean_std(dirty, torch.from_numpy(mask))
    assert mean.shape == std.shape == (*values.shape[:-1], 1)
    for index in np.ndindex(values.shape[:-1]):
        chosen = values[index][mask[index]].astype(np.float64)
        expected = (chosen.mean(), np.sqrt(chosen.var() + 1e-6)) if chosen.size else (0, 1)
        np.testing.assert_allclose(
            (mean[index].item(), std[index].item()), expected, rtol=1e-4, atol=1e-4
        )


def test_flat_frame_becomes_zeros_and_stays_invertible():
    depth = torch.full((1, 1, 4, 4), 3.3)
    target = DepthTarget()
    stats = target.statistics(depth, torch.ones_like(depth, dtype=torch.bool))
    encoded = target.encode(depth, stats)
    assert encoded.abs().max() < 1e-2
    torch.testing.assert_close(target.decode(encoded, stats), depth)


def test_kept_readings_of_one_wall_do_not_blow_up_the_rest():
    depth = torch.full((1, 1, 4, 4), 2.0)
    depth[..., 2:] = 5.0
    target = DepthTarget(stats='kept')
    encoded = target.encode(depth, target.statistics(depth, depth == 2))
    torch.testing.assert_close(encoded[..., 2:], torch.full((1, 1, 4, 2), 3 / 0.2))


@pytest.mark.parametrize('mode', MODES)
def test_frames_do_not_share_statistics(mode):
    depth = torch.rand(2, 1, 8, 8) + 0.5
    valid = torch.rand(2, 1, 8, 8) > 0.3
    target = DepthTarget(mode, patch_size=PATCH)
    both = target.encode(depth, target.statistics(depth, valid))
    one = target.encode(depth[1:], target.statistics(depth[1:], valid[1:]))
    torch.testing.assert_close(both[1:], one)


def test_what_cannot_be_asked_for():
    with pytest.raises(ValueError, match=r"'disparity'.*standardise"):
        DepthTarget('disparity')
    with pytest.raises(ValueError, match="'all' or 'kept'"):
        DepthTarget(stats='masked')
    with pytest.raises(ValueError, match="goes with mode='standardise'"):
        DepthTarget('log', stats='kept')
    assert not DepthTarget('patch').invertible_without_truth
    assert 'mode=log' in repr(DepthTarget('log'))
