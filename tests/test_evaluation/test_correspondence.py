"""Matches of two views whose geometry is known, with features that know all or nothing."""

import math

import numpy as np
import pytest
import torch

from mmmask3d.evaluation.bootstrap import means
from mmmask3d.evaluation.correspondence import (
    PIXELS,
    find_pairs,
    grid_points,
    rotation_bin,
    sample_features,
    score_pairs,
    true_matches,
    why_no_pairs,
)
from mmmask3d.evaluation.frames import Camera, Frame

SIZE, GRID = (120, 160), (12, 16)
INTRINSIC = np.array([[130.0, 0, 79.5], [0, 130, 59.5], [0, 0, 1]])


def frame(depth, pose, scene='room', kind='metric', intrinsic=INTRINSIC):
    image = torch.zeros(3, *SIZE, dtype=torch.uint8)
    return Frame('x.jpg', image, None, depth, kind, Camera(intrinsic, pose, scene))


def wall(shift=0.0, turn=0.0):
    """A wall 2 m before a camera that is shifted to the right and turned about its own y axis."""
    angle = math.radians(turn)
    rotation = np.array(
        [[math.cos(angle), 0, math.sin(angle)], [0, 1, 0], [-math.sin(angle), 0, math.cos(angle)]]
    )
    pose = np.eye(4)
    pose[:3, :3], pose[0, 3] = rotation, shift
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    rays = np.stack([x, y, np.ones_like(x)], -1) @ np.linalg.inv(INTRINSIC).T
    depth = 2.0 / (rays @ rotation.T)[..., 2]
    return frame(torch.tensor(depth, dtype=torch.float32), pose)


def coordinates(view):
    """Features that say where on the wall each patch looks."""
    points = torch.stack(
        torch.meshgrid(*(torch.arange(n) * 10 + 4.5 for n in GRID), indexing='ij')[::-1], -1
    ).double()
    rays = torch.cat((points, torch.ones(*GRID, 1)), -1) @ torch.tensor(INTRINSIC).inverse().T
    pose = torch.tensor(view.camera.to_world)
    rays = rays @ pose[:3, :3].T
    at = rays * (2.0 / rays[..., 2:]) + pose[:3, 3]
    # Directions that turn with the place: neighbours on the sphere are neighbours on the wall.
    return torch.stack((0.3 * at[..., 0], 0.3 * at[..., 1], torch.ones(GRID)), -1).float()


def random_maps(count, channels=64):
    return torch.randn(count, *GRID, channels, generator=torch.Generator().manual_seed(0))


def test_identical_views_are_matched_everywhere():
    frames = [wall(), wall()]
    pairs = find_pairs(frames)
    assert [(p.first, p.second) for p in pairs] == [(0, 1)]
    torch.testing.assert_close(pairs[0].truth, pairs[0].points, atol=1e-3, rtol=0)
    features = random_maps(1).expand(2, -1, -1, -1)
    found = means(score_pairs(features, pairs, [SIZE] * 2))
    assert (found['r5'], found['r10'], found['r20']) == (100, 100, 100)
    assert found['r10_0-15'] == 100
    assert 'r10_15-30' not in found


def test_true_places_by_hand():
    shifted = true_matches([wall(), wall(shift=0.2)], 0, 1)
    # 0.2 m to the right at 2 m: everything moves by 130 * 0.2 / 2 pixels to the left.
    moved = shifted.points - torch.tensor([13.0, 0])
    torch.testing.assert_close(shifted.truth, moved.double(), atol=1e-3, rtol=0)
    assert shifted.rotation == pytest.approx(0, abs=1e-4)
    turned = true_matches([wall(), wall(turn=20)], 0, 1)
    assert turned.rotation == pytest.approx(20, abs=1e-4)
    angle = torch.atan((turned.points[:, 0] - 79.5) / 130)
    expected = 79.5 + 130 * torch.tan(angle - math.radians(20))
    torch.testing.assert_close(turned.truth[:, 0], expected, atol=1e-2, rtol=0)


def test_features_of_the_place_find_it_and_random_ones_find_chance():
    frames = [wall(), wall(shift=0.2), wall(shift=0.1, turn=20)]
    pairs = find_pairs(frames)
    assert len(pairs) == 3
    places = torch.stack([coordinates(f) for f in frames])
    knowing = means(score_pairs(places, pairs, [SIZE] * 3))
    assert knowing['r10'] > 95
    assert knowing['r20'] == 100
    # Over many draws: one draw's matches crowd where a patch happens to be like many.
    guesses = [means(score_pairs(torch.randn(3, *GRID, 64), pairs, [SIZE] * 3)) for _ in range(30)]
    for p in PIXELS:
        found = np.mean([g[f'r{p}'] for g in guesses])
        assert found == pytest.approx(guesses[0][f'chance{p}'], rel=0.35, abs=0.3)
    assert knowing['r10_15-30'] == pytest.approx(
        np.mean([means(score_pairs(places, [p], [SIZE] * 3))['r10'] for p in pairs[1:]])
    )


def test_chance_by_hand():
    frames = [wall(), wall()]
    pair = find_pairs(frames)[0]
    candidates = grid_points(SIZE, 4).double()
    expected = np.mean(
        [float(((candidates - place).norm(dim=1) <= 10).double().mean()) for place in pair.truth]
    )
    found = means(score_pairs(random_maps(2), [pair], [SIZE] * 2))
    assert found['chance10'] == pytest.approx(100 * expected)


def test_what_stands_in_front_hides():
    blocked = wall(shift=0.2)
    blocked.depth[:, :80] = 1.0
    open_, hidden = (true_matches([wall(), f], 0, 1) for f in (wall(shift=0.2), blocked))
    assert (open_.truth[:, 0] < 78).any()
    assert not (hidden.truth[:, 0] < 79.4).any()
    holes = wall(shift=0.2)
    holes.depth[:, :80] = 0
    assert torch.equal(true_matches([wall(), holes], 0, 1).truth, hidden.truth)


def test_which_frames_have_pairs():
    pose = np.eye(4)
    depth = torch.full(SIZE, 2.0)
    elsewhere = [wall(), frame(depth, pose, scene='other')]
    assert find_pairs(elsewhere) == []
    assert 'no two views' in why_no_pairs(elsewhere)
    behind = np.diag([-1.0, 1, -1, 1])
    assert find_pairs([wall(), frame(depth, behind)]) == []
    for frames, reason in (
        ([frame(depth, pose, kind='relative')] * 2, 'metric depth'),
        ([frame(depth, None)] * 2, 'pose'),
        ([frame(depth, pose, intrinsic=None)] * 2, 'intrinsics'),  # as 7-Scenes
    ):
        assert find_pairs(frames) == []
        assert reason in why_no_pairs(frames)
    assert len(find_pairs([wall()] * 6, most=4)) == 4


def test_queries_are_candidates_and_features_are_sampled_between_patches():
    for size in (SIZE, (240, 320), (96, 128), (75, 101)):
        queries, candidates = (set(map(tuple, grid_points(size, s).tolist())) for s in (8, 4))
        assert queries <= candidates
        assert len(queries) >= 20
    features = torch.zeros(2, 2, 2)
    features[:, 0, 0], features[:, 1, 1] = 1, 1
    # Patches of 10 x 10 pixels: their centres are 4.5 and 14.5.
    found = sample_features(features, torch.tensor([[4.5, 4.5], [14.5, 9], [9.5, 9.5]]), (20, 20))
    half = math.sqrt(0.5)
    torch.testing.assert_close(found, torch.tensor([[1, 0], [0, 1], [half, half]]).float())


def test_bins():
    found = [rotation_bin(angle) for angle in (0, 14.9, 15, 45, 60, 180)]
    assert found == ['0-15', '0-15', '15-30', '30-60', '60-180', '60-180']
