"""Depth moved into the colour camera: analytic scenes, and a slow reference."""

import cv2
import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from mmmask3d.conversion.formats.registration import Camera, register_depth

STRAIGHT = np.eye(3)
NOWHERE = np.zeros(3)


def camera(focal, size):
    """A camera whose axis meets the middle of an image of (width, height)."""
    return Camera(focal, focal, (size[0] - 1) / 2, (size[1] - 1) / 2)


def turned(*angles):
    return cv2.Rodrigues(np.array(angles, float))[0]


# ---------------------------------------------------------------- exact


def test_one_camera_changes_nothing():
    rng = np.random.default_rng(0)
    depth = rng.uniform(0.3, 9, (30, 40)).astype(np.float32)
    valid = rng.random(depth.shape) < 0.8
    one = Camera(33.3, 35.1, 19.2, 14.9)
    got, found = register_depth(depth, valid, one, one, STRAIGHT, NOWHERE, (40, 30))
    np.testing.assert_array_equal(found, valid)
    np.testing.assert_array_equal(got, np.where(valid, depth, 0))
    assert (got.dtype, found.dtype) == (np.dtype('float32'), np.dtype('bool'))


def test_a_box_in_front_of_a_wall_shifts_more_and_uncovers_a_strip():
    """6 pixels at 1 m, 3 at 2 m: the wall beside the box was hidden from the depth camera."""
    depth = np.full((48, 64), 2.0)
    depth[10:31, 30:46] = 1.0
    one = camera(100.0, (64, 48))
    got, found = register_depth(
        depth, depth > 0, one, one, STRAIGHT, np.array([-0.06, 0, 0]), (64, 48)
    )
    expected = np.full((48, 64), 2.0, np.float32)
    expected[:, 61:] = 0  # outside the depth camera's view
    expected[10:31, 24:40] = 1.0
    expected[10:31, 40:43] = 0  # uncovered
    np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(found, expected > 0)


def test_the_depth_is_that_of_the_colour_camera():
    depth = np.full((20, 20), 2.0)
    one = camera(10.0, (20, 20))
    got, found = register_depth(
        depth, depth > 0, one, one, STRAIGHT, np.array([0, 0, 0.5]), (20, 20)
    )
    assert set(np.unique(got[found])) == {2.5}
    # Farther away, 20 pixels appear as 16.
    np.testing.assert_array_equal(found, np.pad(np.ones((16, 16), bool), 2))


@pytest.mark.parametrize('factor', [2, 3])
def test_a_finer_colour_camera_gets_blocks_without_cracks(factor):
    rng = np.random.default_rng(1)
    depth = rng.choice([1.0, 2.0, 4.0], (12, 16))
    valid = rng.random(depth.shape) < 0.7
    size = (16 * factor, 12 * factor)
    got, found = register_depth(
        depth, valid, camera(20.0, (16, 12)), camera(20.0 * factor, size), STRAIGHT, NOWHERE, size
    )
    block = np.ones((factor, factor))
    np.testing.assert_array_equal(found, np.kron(valid, block) > 0)
    np.testing.assert_array_equal(got, np.kron(np.where(valid, depth, 0), block))


def test_a_footprint_has_a_largest_size():
    depth, valid = np.ones((1, 1)), np.ones((1, 1), bool)
    fine = Camera(80.0, 80.0, 9.5, 9.5)
    found = register_depth(depth, valid, Camera(8.0, 8.0, 0, 0), fine, STRAIGHT, NOWHERE, (20, 20))
    np.testing.assert_array_equal(np.argwhere(found[1]), np.argwhere(np.ones((4, 4))) + 8)


@pytest.mark.parametrize('focal', [525.0, 585.0, 640.0])
def test_holes_keep_their_place_and_size(focal):
    """A target pixel has a reading where, and only where, the source pixel it lies in has one."""
    rng = np.random.default_rng(2)
    valid = rng.random((90, 120)) < 0.6
    valid[20:50, 30:70] = False
    source, target = camera(585.0, (120, 90)), camera(focal, (120, 90))
    _, found = register_depth(
        np.full(valid.shape, 1.7), valid, source, target, STRAIGHT, NOWHERE, (120, 90)
    )
    x = np.rint((np.arange(120) - target.cx) / focal * 585 + source.cx).astype(int)
    y = np.rint((np.arange(90) - target.cy) / focal * 585 + source.cy).astype(int)
    inside = ((y >= 0) & (y < 90))[:, None] & ((x >= 0) & (x < 120))[None]
    expected = inside & valid[np.clip(y, 0, 89)[:, None], np.clip(x, 0, 119)[None]]
    np.testing.assert_array_equal(found, expected)


def test_what_is_behind_the_colour_camera_is_not_seen():
    depth = np.full((20, 20), 1.0)
    depth[:, 10:] = 3.0
    one = camera(10.0, (20, 20))
    got, found = register_depth(
        depth, depth > 0, one, one, STRAIGHT, np.array([0, 0, -2.0]), (20, 20)
    )
    assert set(np.unique(got[found])) == {1.0}
    assert not found[:, :10].any()
    everything = register_depth(
        depth, depth > 0, one, one, STRAIGHT, np.array([0, 0, -3.0]), (20, 20)
    )
    assert not everything[1].any()


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf, 0.0, -1.0])
def test_such_values_are_no_reading_even_if_marked_so(value):
    depth = np.full((9, 9), 1.5)
    depth[4, 4] = value
    one = camera(10.0, (9, 9))
    got, found = register_depth(depth, np.ones((9, 9), bool), one, one, STRAIGHT, NOWHERE, (9, 9))
    assert np.argwhere(~found).tolist() == [[4, 4]]
    assert set(np.unique(got)) == {0, np.float32(1.5)}


@pytest.mark.parametrize('focal', [450.0, 525.0, 640.0])
def test_slight_turns_leave_no_crack(focal):
    """Pixels at which the corners of four footprints meet are covered too."""
    rng = np.random.default_rng(4)
    source, target = camera(585.0, (320, 240)), camera(focal, (320, 240))
    y, x = np.mgrid[:240, :320]
    depth = 1.5 + x / 400 + y / 300
    for _ in range(4):
        rotation = turned(*rng.uniform(-0.02, 0.02, 2), rng.uniform(-0.04, 0.04))
        _, found = register_depth(
            depth, depth > 0, source, target, rotation, np.array([-0.03, 0, 0]), (320, 240)
        )
        assert found[60:180, 80:240].all()


# ---------------------------------------------------------------- an analytic scene

SIZE = (80, 60)
DEPTH_CAMERA = camera(73.0, SIZE)
COLOUR_CAMERA = camera(66.0, SIZE)
ROTATION = turned(0.02, -0.03, 0.015)
TRANSLATION = np.array([-0.25, 0.03, 0.01])
LOW, HIGH = np.array([-0.3, -0.2, 1.2]), np.array([0.3, 0.25, 1.5])


def first_hit(origin, rays):
    """Distance along rays (N, 3), axes of the depth camera, to a box before a slanted wall."""
    # The wall: z = 2 + 0.3 x.
    wall = (2 + 0.3 * origin[0] - origin[2]) / (rays[:, 2] - 0.3 * rays[:, 0])
    with np.errstate(divide='ignore'):
        near, far = (LOW - origin) / rays, (HIGH - origin) / rays
    enter = np.minimum(near, far).max(axis=1)
    leave = np.maximum(near, far).min(axis=1)
    return np.where(enter <= leave, np.minimum(enter, wall), wall)


def rays_of(which):
    """Rays (H * W, 3) of a camera, in its own axes."""
    x, y = np.meshgrid(np.arange(SIZE[0]), np.arange(SIZE[1]))
    rays = [(x - which.cx) / which.fx, (y - which.cy) / which.fy, np.ones(x.shape)]
    return np.stack(rays, -1).reshape(-1, 3)


def test_a_box_before_a_slanted_wall_from_a_turned_camera():
    depth = first_hit(np.zeros(3), rays_of(DEPTH_CAMERA)).reshape(SIZE[::-1])
    got, found = register_depth(
        depth, depth > 0, DEPTH_CAMERA, COLOUR_CAMERA, ROTATION, TRANSLATION, SIZE
    )
    origin = -ROTATION.T @ TRANSLATION  # of the colour camera
    rays = rays_of(COLOUR_CAMERA) @ ROTATION
    distance = first_hit(origin, rays)
    points = origin + rays * distance[:, None]
    expected = (points @ ROTATION.T + TRANSLATION)[:, 2].reshape(SIZE[::-1])
    # What the depth camera sees: inside its image, and nothing before it.
    pixel = points[:, :2] / points[:, 2:] * DEPTH_CAMERA.fx + (DEPTH_CAMERA.cx, DEPTH_CAMERA.cy)
    in_view = ((pixel > -0.5) & (pixel < np.array(SIZE) - 0.5)).all(axis=1)
    hidden = first_hit(np.zeros(3), points) < 1 - 1e-6
    seen = (in_view & ~hidden).reshape(SIZE[::-1])
    # Silhouettes are known to a pixel: leave out what lies beside a change.
    change = np.abs(np.diff(expected, axis=1, append=expected[:, -1:])) > 0.1
    change |= np.abs(np.diff(expected, axis=0, append=expected[-1:])) > 0.1
    change |= np.diff(seen.astype(int), axis=1, append=seen[:, -1:]) != 0
    change |= np.diff(seen.astype(int), axis=0, append=seen[-1:]) != 0
    sure = ~binary_dilation(change, np.ones((3, 3)))
    assert (seen & sure).sum() > 2500
    assert (~seen & sure).sum() > 100
    np.testing.assert_array_equal(found[sure], seen[sure])
    # The wall falls off by 0.3 m per metre, and a reading is up to 0.7 pixels from its centre.
    np.testing.assert_allclose(got[seen & sure], expected[seen & sure], atol=0.012)
    # Part of what is not seen is the wall that the box hid from the depth camera.
    assert (hidden.reshape(SIZE[::-1]) & sure).sum() > 30


# ---------------------------------------------------------------- against a slow reference
