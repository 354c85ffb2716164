"""Which patches are removed: counts, validity, independence, reproducibility, clustering."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmmask3d.datasets import DepthAwareMasking, sample_rng

STRATEGIES = ['random', 'block']
ratios = st.floats(0, 1)


def frame(valid):
    return dict(valid=valid, frame='scene/7')


def masks(valid, key=(0, 0, 0), **kwargs):
    with sample_rng(*key):
        return DepthAwareMasking(**kwargs)(frame(valid))


@settings(deadline=None, max_examples=150)
@given(
    grid=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    patch=st.integers(1, 9),
    rgb_ratio=ratios,
    depth_ratio=ratios,
    density=st.sampled_from([0.0, 0.002, 0.02, 0.3, 1.0]),
    strategy=st.sampled_from(STRATEGIES),
    seed=st.integers(0, 2**31),
)
def test_counts_and_validity(grid, patch, rgb_ratio, depth_ratio, density, strategy, seed):
    height, width = grid[0] * patch, grid[1] * patch
    valid = np.random.default_rng(seed).random((height, width)) < density
    out = masks(
        valid,
        (seed, 0, 0),
        patch_size=patch,
        rgb_ratio=rgb_ratio,
        depth_ratio=depth_ratio,
        strategy=strategy,
    )
    total = grid[0] * grid[1]
    assert out['grid'] == grid
    for key, ratio in (('rgb_mask', rgb_ratio), ('depth_mask', depth_ratio)):
        assert out[key].dtype == bool
        assert out[key].shape == (total,)
        assert out[key].sum() == round(total * ratio)
    # By brute force: patch n covers rows and columns of the grid cell n, row by row.
    readings = np.zeros(total, bool)
    for n in range(total):
        row, column = n // grid[1] * patch, n % grid[1] * patch
        readings[n] = valid[row : row + patch, column : column + patch].any()
    kept = ~out['depth_mask']
    assert (kept & readings).sum() == min(kept.sum(), readings.sum())


@pytest.mark.parametrize('strategy', STRATEGIES)
def test_reproducible_and_different_per_epoch_index_and_seed(strategy):
    valid = np.random.default_rng(0).random((96, 128)) < 0.5
    settings = dict(patch_size=8, strategy=strategy)
    first = masks(valid, (1, 2, 3), **settings)
    again = masks(valid, (1, 2, 3), **settings)
    for name in ('rgb_mask', 'depth_mask'):
        np.testing.assert_array_equal(first[name], again[name])
        for key in ((1, 3, 3), (1, 2, 4), (2, 2, 3)):
            assert (masks(valid, key, **settings)[name] != first[name]).any()


@pytest.mark.parametrize('strategy', STRATEGIES)
@pytest.mark.parametrize('ratio', [0.25, 0.8])
def test_the_rgb_mask_does_not_depend_on_depth(strategy, ratio):
    """Colour is there everywhere, so holes of depth move nothing of its mask."""
    full = np.ones((64, 96), bool)
    holed = full.copy()
    holed[:40] = False
    settings = dict(patch_size=8, rgb_ratio=ratio, strategy=strategy)
    for index in range(5):
        key = 3, 0, index
        expected = masks(full, key, depth_ratio=0.8, **settings)['rgb_mask']
        for valid in (holed, np.zeros_like(full)):
            for depth_ratio in (0.8, 0.2):
                got = masks(valid, key, depth_ratio=depth_ratio, **settings)['rgb_mask']
                np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize('strategy', STRATEGIES)
def test_the_depth_mask_is_that_of_the_rgb_mask_drawn_again(strategy):
    """Both by one rule: with readings everywhere and equal ratios only the draw differs."""
    valid = np.ones((64, 96), bool)
    settings = dict(patch_size=8, rgb_ratio=0.8, depth_ratio=0.8, strategy=strategy)
    with sample_rng(1, 2, 3):
        transform = DepthAwareMasking(**settings)
        first, second = transform(frame(valid)), transform(frame(valid))
    shares = [
        equal_neighbours(out[name], (8, 12))
        for out in (first, second)
        for name in ('rgb_mask', 'depth_mask')
    ]
    drawn = {out[name].tobytes() for out in (first, second) for name in ('rgb_mask', 'depth_mask')}
    assert len(drawn) == 4
    by_chance = 0.8**2 + 0.2**2
    assert (np.mean(shares) > by_chance + 0.1) == (strategy == 'block')


@pytest.mark.parametrize('strategy', STRATEGIES)
def test_where_there_are_more_holes_than_are_removed_the_choice_is_among_them(strategy):
    valid = np.zeros((64, 96), bool)
    valid[:, :16] = True  # 16 of 96 patches; 48 of the 80 others are removed
    for index in range(20):
        mask = masks(valid, (0, 0, index), patch_size=8, depth_ratio=0.5, strategy=strategy)
        removed = mask['depth_mask'].reshape(8, 12)
        assert removed.sum() == 48
        assert not removed[:, :2].any()


@pytest.mark.parametrize('strategy', STRATEGIES)
def test_the_two_masks_are_independent(strategy):
    """Over many draws, a depth patch is removed as often where RGB is removed as elsewhere."""
    valid = np.ones((64, 64), bool)
    rgb, depth = [], []
    for index in range(600):
        out = masks(
            valid, (0, 0, index), patch_size=8, rgb_ratio=0.5, depth_ratio=0.5, strategy=strategy
        )
        rgb.append(out['rgb_mask'])
        depth.append(out['depth_mask'])
    rgb, depth = np.array(rgb), np.array(depth)
    both = (rgb & depth).mean(axis=0)
    # Expected: the product of the two shares; 600 draws have a standard error of 0.018.
    expected = rgb.mean(axis=0) * depth.mean(axis=0)
    assert np.abs(both - expected).max() < 0.09
    assert abs((both - expected).mean()) < 0.01


def test_among_patches_with_readings_the_choice_is_uniform():
    valid = np.zeros((64, 64), bool)
    valid[:, :32] = True  # 32 of 64 patches
    removed = np.mean(
        [masks(valid, (0, 0, i), patch_size=8, depth_ratio=0.75)['depth_mask'] for i in range(800)],
        axis=0,
    ).reshape(8, 8)
    assert (removed[:, 4:] == 1).all()
    np.testing.assert_allclose(removed[:, :4], 0.5, atol=0.09)


def equal_neighbours(mask, grid):
    """Share of neighbouring patches that are both removed or both kept."""
    mask = mask.reshape(grid)
    return np.mean(
        np.concatenate([(mask[1:] == mask[:-1]).ravel(), (mask[:, 1:] == mask[:, :-1]).ravel()])
    )


@pytest.mark.parametrize('grid', [(15, 20), (6, 8), (14, 14)])
@pytest.mark.parametrize('ratio', [0.4, 0.8])
def test_blocks_are_clustered(grid, ratio):
    valid = np.ones((grid[0] * 4, grid[1] * 4), bool)
    share = {}
    for strategy in STRATEGIES:
        share[strategy] = np.mean(
            [
                equal_neighbours(
                    masks(valid, (0, 0, i), patch_size=4, rgb_ratio=ratio, strategy=strategy)[
                        'rgb_mask'
                    ],
                    grid,
                )
                for i in range(60)
            ]
        )
    by_chance = ratio**2 + (1 - ratio) ** 2
    assert abs(share['random'] - by_chance) < 0.04
    # Of the neighbours that chance would part, at least a third (a small grid has more border).
    assert share['block'] > by_chance + (1 - by_chance) / 3


@pytest.mark.parametrize('ratio', [-0.01, float('nan'), 80])
@pytest.mark.parametrize('name', ['rgb_ratio', 'depth_ratio'])
def test_ratio_out_of_range(name, ratio):
    with pytest.raises(ValueError, match=rf'{name} is the share.*\[0, 1\]'):
        DepthAwareMasking(**{name: ratio})


def test_other_arguments_are_checked():
    with pytest.raises(ValueError, match=r"'random' or 'block', got 'grid'"):
        DepthAwareMasking(strategy='grid')
    for patch_size in (0, -8, 8.0):
        with pytest.raises(ValueError, match='patch_size'):
            DepthAwareMasking(patch_size=patch_size)


@pytest.mark.parametrize('size', [(33, 48), (32, 47)])
def test_a_frame_that_is_no_multiple_of_the_patch(size):
    with pytest.raises(
        ValueError, match=rf"'scene/7' is {size[0]}x{size[1]} .* patch_size 16.*RGBDResize"
    ):
        DepthAwareMasking(patch_size=16)(frame(np.ones(size, bool)))
