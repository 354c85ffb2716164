"""Contours of depth and edges of colour at known places."""

import numpy as np
import pytest

from mmmask3d.visualization.edges import colour_edges, depth_contours, edge_pair

H, W = 40, 60


def step(near=1.0, far=2.0, at=30):
    depth = np.full((H, W), far, np.float32)
    depth[:, :at] = near
    return depth, np.ones((H, W), bool)


def test_a_contour_is_on_the_nearer_side():
    contours = depth_contours(*step())
    expected = np.zeros((H, W))
    expected[:, 29] = 1
    np.testing.assert_array_equal(contours[0], expected)
    np.testing.assert_allclose(contours[1, :, 29], 1, atol=1e-5)  # across it is sideways
    np.testing.assert_allclose(contours[2, :, 29], 0, atol=1e-5)
    turned = depth_contours(*(np.ascontiguousarray(a.T) for a in step()))
    np.testing.assert_allclose(turned[1, 29], -1, atol=1e-5)


def test_a_diagonal_contour_knows_its_direction():
    y, x = np.mgrid[0:60, 0:60]
    depth = np.where(x + y < 60, 1.0, 2.0).astype(np.float32)
    contours = depth_contours(depth, np.ones(depth.shape, bool))
    inner = contours[:, 10:50, 10:50]
    on = inner[0] > 0
    assert on.any()
    np.testing.assert_allclose(inner[2][on], 1, atol=0.05)  # 2a = 90 degrees
    np.testing.assert_allclose(inner[1][on], 0, atol=0.2)


@pytest.mark.parametrize(
    ('near', 'far', 'found'), [(1.0, 1.05, False), (1.0, 1.1, True), (4.0, 4.2, False)]
)
def test_a_jump_is_relative_to_the_depth(near, far, found):
    assert depth_contours(*step(near, far))[0].any() == found


def test_relative_depth_of_zero_is_no_special_case():
    assert depth_contours(*step(0.0, 0.5))[0, :, 29].all()


def test_a_slanted_surface_has_no_contour():
    depth = np.tile(np.geomspace(1, 20, W).astype(np.float32), (H, 1))
    assert (depth[0, 1:] / depth[0, :-1] > 1.05).all()
    steep = depth[:, ::2]
    assert not depth_contours(steep, np.ones(steep.shape, bool))[0][:, 1:].any()


@pytest.mark.parametrize(('width', 'found'), [(3, True), (4, True), (5, False)])
def test_a_shadow_may_lie_between(width, found):
    depth, valid = step()
    valid[:, 30 : 30 + width] = False
    depth[~valid] = np.nan
    contours = depth_contours(depth, valid)
    assert contours[0, :, 29].all() == found
    assert contours[0].sum() == (H if found else 0)


def test_the_border_of_a_hole_is_no_contour():
    depth = np.full((H, W), 2.0, np.float32)
    valid = np.ones((H, W), bool)
    valid[10:20, 10:40] = False
    depth[~valid] = 0
    assert not depth_contours(depth, valid)[0].any()
    assert not depth_contours(depth, np.zeros_like(valid)).any()


def test_colour_edges_by_direction():
    image = np.full((80, 120, 3), 50, np.uint8)
    image[:, 60:, 1] = 150
    edges = colour_edges(image)
    at = edges[:, 40, 59:61].mean(1)
    assert at[0] > 1
    assert at[1] > 1
    assert abs(at[2]) < 1e-3
    assert np.abs(edges[:, 40, 20]).max() < 1e-3


def test_a_pair_is_brought_to_the_working_size_without_its_border():
    image = np.zeros((240, 320, 3), np.uint8)
    image[:4], image[:, :4] = 255, 255  # a frame around the picture
    depth = np.full((240, 320), 2.0, np.float32)
    depth[:, 160:] = 1.0
    depth[:4] = 0.5
    pair = edge_pair(image, depth, np.ones(depth.shape, bool))
    assert pair.colour.shape == (3, 120, 160)
    assert pair.pixel == 2
    assert set(pair.columns) == {80}
    assert pair.rows.min() == 4
    assert not pair.colour[:, :4].any()
    small = edge_pair(image[:30, :50], depth[:30, :50], np.ones((30, 50), bool))
    assert small.colour.shape == (3, 30, 50)
    assert small.pixel == 1
