"""InfoNCE of RGB and depth tokens against a sum by hand."""

import math

import pytest
import torch

from mmmask3d.models import RGBDContrast


def make(**options):
    torch.manual_seed(0)
    return RGBDContrast(rgb_dims=6, depth_dims=4, embed_dims=5, temperature=0.5, **options)


def draw(seed=0):
    g = torch.Generator().manual_seed(seed)
    rgb, depth = torch.randn(3, 4, 6, generator=g), torch.randn(3, 3, 4, generator=g)
    rgb_keep = torch.tensor([[0, 2, 5, 7], [1, 2, 3, 4], [0, 1, 6, 7]])
    depth_keep = torch.tensor([[0, 5, 7], [2, 3, 6], [2, 3, 4]])
    has_reading = torch.ones(3, 8, dtype=torch.bool)
    has_reading[0, 5] = False
    return rgb, rgb_keep, depth, depth_keep, has_reading


def by_hand(module, groups):
    """Mean of both directions over the pairs of each group of (rgb, depth) tokens."""
    total, count = 0.0, 0
    for pairs in groups:
        one = [module.rgb_proj(r) for r, _ in pairs]
        other = [module.depth_proj(d) for _, d in pairs]
        cosine = [[float(a @ b / a.norm() / b.norm()) / 0.5 for b in other] for a in one]
        for i in range(len(pairs)):
            row = cosine[i][i] - math.log(sum(math.exp(c) for c in cosine[i]))
            column = cosine[i][i] - math.log(sum(math.exp(r[i]) for r in cosine))
            total -= (row + column) / 2
            count += 1
    return total / count


@torch.no_grad()
def test_patches_that_both_streams_kept():
    module, (rgb, rgb_keep, depth, depth_keep, has) = make(weight=2.0), draw()
    # Frame 0 shares patches 0, 5 and 7, of which 5 has no reading; frame 1 patches 2 and 3;
    # frame 2 none.
    groups = [
        [(rgb[0, 0], depth[0, 0]), (rgb[0, 3], depth[0, 2])],
        [(rgb[1, 1], depth[1, 0]), (rgb[1, 2], depth[1, 1])],
    ]
    found = module(rgb, rgb_keep, depth, depth_keep, has)
    assert float(found) == pytest.approx(2 * by_hand(module, groups), rel=1e-5)


@torch.no_grad()
def test_means_of_frames():
    module, (rgb, rgb_keep, depth, depth_keep, has) = make(level='frame', weight=1.0), draw()
    has[2] = False  # no depth at all: takes no part
    groups = [
        [(rgb[0].mean(0), depth[0, [0, 2]].mean(0)), (rgb[1].mean(0), depth[1].mean(0))],
    ]
    found = module(rgb, rgb_keep, depth, depth_keep, has)
    assert float(found) == pytest.approx(by_hand(module, groups), rel=1e-5)


@pytest.mark.parametrize('level', ['patch', 'frame'])
@pytest.mark.parametrize('lacking', ['readings', 'RGB'])
def test_nothing_to_compare_costs_nothing_and_has_a_finite_gradient(level, lacking):
    module, (rgb, rgb_keep, depth, depth_keep, has) = make(level=level), draw()
    if lacking == 'readings':
        has = torch.zeros_like(has)
    else:
        rgb, rgb_keep = rgb[:, :0], rgb_keep[:, :0]
    loss = module(rgb.requires_grad_(), rgb_keep, depth, depth_keep, has)
    loss.backward()
    assert float(loss.detach()) == 0
    assert rgb.grad.isfinite().all()


@torch.no_grad()
def test_autocast_rounds_the_projections_alone():
    module, inputs = make(), draw()
    with torch.autocast('cpu', torch.bfloat16):
        found = module(*inputs)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, module(*inputs), rtol=0.02, atol=0)


def test_in_the_pretrainer(build_model, make_data, loss_and_gradients):
    model = build_model(contrast=dict(type='RGBDContrast'))
    losses, grads = loss_and_gradients(model, make_data(rgb_keep=12, depth_keep=10))
    assert 0 < losses['loss_contrast'] < 1
    assert grads['contrast.depth_proj.weight'].abs().sum() > 0
    with pytest.raises(ValueError, match='give a depth_encoder'):
        build_model(contrast=dict(type='RGBDContrast'), depth_encoder=None)
    with pytest.raises(ValueError, match="level is 'pixel'"):
        make(level='pixel')
