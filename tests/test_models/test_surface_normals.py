"""Normals of scenes that are known in closed form, and the error of the estimator itself."""

import math

import numpy as np
import pytest
import torch

from mmmask3d.datasets.transforms import PackRGBDInputs, RGBDRandomFlip, RGBDRandomResizedCrop
from mmmask3d.models.surface_normals import normal_figures, plane_normals

H, W, FOV = 120, 160, 57.0
FOCAL = 0.5 * W / math.tan(math.radians(FOV) / 2)


def rays():
    v, u = torch.meshgrid(torch.arange(H).double(), torch.arange(W).double(), indexing='ij')
    x, y = (u - (W - 1) / 2) / FOCAL, (v - (H - 1) / 2) / FOCAL
    return torch.stack((x, y, torch.ones_like(x)))


def plane(normal, distance=2.0):
    """Depth of the plane ``normal . P = -distance`` (the normal looks at the camera)."""
    n = torch.tensor(normal, dtype=torch.float64)
    n = n / n.norm()
    depth = -distance / (n[:, None, None] * rays()).sum(0)
    return depth, n[:, None, None].expand(3, H, W)


def sphere(centre=3.0, radius=1.0):
    """Depth of a sphere before the camera, 0 beside it, and its normals."""
    direction = rays()
    a, b, c = direction.square().sum(0), direction[2] * centre, centre**2 - radius**2
    inside = b**2 - a * c
    depth = torch.where(inside > 0, (b - inside.clamp(min=0).sqrt()) / a, 0)
    point = depth * direction - torch.tensor([0, 0, centre])[:, None, None].double()
    return depth, point / radius


def estimate(depth, **options):
    depth = depth.float()[None, None]
    normals, known = plane_normals(depth, depth > 0, FOV, **options)
    return normals[0], known[0, 0]


@pytest.mark.parametrize('normal', [(0, 0, -1), (0.5, 0, -1), (0.2, -0.9, -0.6)])
def test_planes_are_exact(normal):
    depth, truth = plane(normal)
    depth[depth < 0] = 0  # behind the camera
    found, known = estimate(depth)
    assert known.double().mean() > 0.5
    assert normal_figures(found, truth, known)['mean'] < 0.02  # float32 depth
    torch.testing.assert_close(found[:, known].norm(dim=0), torch.ones(int(known.sum())))
    scaled, _ = estimate(7.3 * depth)  # as relative depth is
    assert normal_figures(scaled, truth, known)['mean'] < 0.02


@pytest.mark.parametrize('seed', range(6))
def test_crops_and_flips_of_a_plane_keep_its_normal(seed):
    depth, truth = plane((0.5, -0.3, -1))
    frame = dict(
        img=np.zeros((H, W, 3), np.uint8), depth=depth.float().numpy(), valid=np.ones((H, W), bool),
        ori_shape=(H, W), img_shape=(H, W),
    )  # fmt: skip
    np.random.seed(seed)
    crop = RGBDRandomResizedCrop(scale=(128, 96), crop_ratio_range=(0.2, 0.6))
    for transform in (crop, RGBDRandomFlip(0.5, ['horizontal', 'vertical', 'diagonal']), crop):
        frame = transform(frame)
    inputs = PackRGBDInputs()(frame)['inputs']
    expected = truth[:, :1, :1].clone()
    direction = frame['flip_direction'] or ''
    expected[0] *= -1 if direction in ('horizontal', 'diagonal') else 1
    expected[1] *= -1 if direction in ('vertical', 'diagonal') else 1
    found, known = plane_normals(
        inputs['depth'][None], inputs['valid'][None], FOV, 15, view=inputs['view'][None]
    )
    assert known.double().mean() > 0.5
    # Depth is picked from the nearest pixel, which makes steps of an oblique plane.
    assert normal_figures(found[0], expected.expand(3, 96, 128), known[0])['mean'] < 2


def test_training_in_16_bits_leaves_them_alone():
    depth, _ = plane((0.5, 0, -1))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        found, known = estimate(depth)
    expected, expected_known = estimate(depth)
    assert torch.equal(found, expected)
    assert torch.equal(known, expected_known)


def test_a_sphere():
    depth, truth = sphere()
    found, known = estimate(depth)
    figures = normal_figures(found, truth, known)
    assert figures['mean'] < 2.5  # planes over nine pixels of what is bent
    assert known.double().sum() > 0.7 * (depth > 0).double().sum()
    assert estimate(depth, window=5)[1].sum() > known.sum()
    fine = normal_figures(*[estimate(depth, window=5)[0], truth], known)
    assert fine['mean'] < figures['mean']


def test_holes_are_never_read_and_have_no_normal():
    depth, truth = plane((0.5, 0.3, -1))
    holes = torch.rand(H, W, generator=torch.Generator().manual_seed(0)) < 0.3
    results = []
    for value in (0.0, 1e6, math.nan, -4.0):
        filled = torch.where(holes, value, depth).float()[None, None]
        results.append(plane_normals(filled, ~holes[None, None], FOV))
    for normals, known in results:
        assert torch.equal(normals, results[0][0])
        assert not known[0, 0][holes].any()
        assert not normals[0][:, holes].any()
        assert known[0, 0].sum() > 0.9 * (~holes).sum()  # not at the border of the frame
        assert normal_figures(normals[0], truth, known)['mean'] < 0.02


@pytest.mark.parametrize(
    ('what', 'window', 'least', 'most'),
    [
        # The error of the estimator itself, in degrees; docs/report_card.md quotes it.
        ('noise', 9, 1.1, 1.2),
        ('8-bit', 9, 0.6, 0.7),
        ('8-bit', 3, 12.0, 14.0),  # nearly the difference of neighbours
    ],
)
def test_the_error_on_noisy_and_on_coarse_depth(what, window, least, most):
    depth, truth = plane((0.5, -0.2, -1))
    if what == 'noise':  # a Kinect's at two metres: 6 mm
        depth = depth + 0.006 * torch.randn(H, W, generator=torch.Generator().manual_seed(1))
    else:  # floor(255 z / max z) of a frame whose farthest point is at 6 m
        depth = (255 * depth / 6).floor() / 255
    found, known = estimate(depth, window=window, max_residual=1.0)
    error = normal_figures(found, truth, known)['mean']
    assert least < error < most


def test_readings_on_one_line_give_no_normal():
    valid = torch.zeros(1, 1, 12, 12, dtype=torch.bool)
    valid[:, :, :, 5] = True
    assert not plane_normals(torch.ones(1, 1, 12, 12), valid, FOV, window=3)[1].any()
    valid[:, :, :, 6] = True
    assert plane_normals(torch.ones(1, 1, 12, 12), valid, FOV, window=3)[1].any()


def test_no_plane_runs_over_an_edge():
    depth = torch.full((H, W), 2.0)
    depth[:, W // 2 :] = 4.0
    _, known = estimate(depth)
    assert not known[20:-20, W // 2 - 2 : W // 2 + 2].any()
    assert known[20:-20, 20 : W // 2 - 5].all()


def test_figures_by_hand():
    truth = torch.tensor([0.0, 0, -1])[:, None, None].expand(3, 1, 4)
    angles = torch.deg2rad(torch.tensor([0.0, 20, 25, 90]))
    predicted = 5 * torch.stack((angles.sin(), 0 * angles, -angles.cos()))[:, None]
    known = torch.tensor([[True, True, True, False]])
    found = normal_figures(predicted, truth, known)
    expected = dict(mean=15, median=20, a1=100 / 3, a2=200 / 3, a3=100)
    assert found == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize('window', [1, 4])
def test_a_window_has_a_centre(window):
    with pytest.raises(ValueError, match=f'window={window}'):
        plane_normals(
            torch.ones(1, 1, 8, 8), torch.ones(1, 1, 8, 8, dtype=torch.bool), window=window
        )
