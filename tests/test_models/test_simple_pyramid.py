"""Levels of the simple pyramid against a computation by hand, and which patch feeds which cell."""

import pytest
import torch
import torch.nn.functional as F

from mmmask3d.models.simple_pyramid import PyramidLevel, SimplePyramid

LN = dict(type='LN2d', eps=1e-6)


def level(stride, channels=8, patch=16, out=6, norm=LN):
    torch.manual_seed(0)
    made = PyramidLevel(channels, patch, stride, out, norm)
    with torch.no_grad():
        for p in made.parameters():
            p.normal_()
    return made.eval()


def norm_by_hand(x, norm):
    mean, variance = x.mean(1, keepdim=True), x.var(1, keepdim=True, unbiased=False)
    x = (x - mean) / (variance + 1e-6).sqrt()
    return x * norm.weight[:, None, None] + norm.bias[:, None, None]


def upsample_by_hand(x, conv):
    """Each cell becomes 2x2 cells, each with a matrix of its own."""
    parts = torch.einsum('bchw,cdij->bdhiwj', x, conv.weight)
    return parts.flatten(4, 5).flatten(2, 3) + conv.bias[:, None, None]


def project_by_hand(x, made):
    x = torch.einsum('bchw,dc->bdhw', x, made.project.weight[..., 0, 0])
    return norm_by_hand(x, made.norm)


@pytest.mark.parametrize('stride', [4, 8, 16, 32, 64])
def test_values(stride):
    made, x = level(stride), torch.rand(2, 8, 5, 7)
    height, width = 16 * 5 - 3, 16 * 7 - 15  # 77x97
    if stride == 4:
        up, norm, _, again = made.rescale
        expected = upsample_by_hand(F.gelu(norm_by_hand(upsample_by_hand(x, up), norm)), again)
    elif stride == 8:
        expected = upsample_by_hand(x, made.rescale[0])
    else:
        side = stride // 16
        below, right = -5 % side, -7 % side
        filled = F.pad(x, (0, right, 0, below), value=float('-inf'))
        cells = filled.unfold(2, side, side).unfold(3, side, side)
        expected = cells.amax((-1, -2))
    expected = expected[..., : -(-height // stride), : -(-width // stride)]
    found = made(x, (height, width))
    assert found.shape[-2:] == (-(-height // stride), -(-width // stride))
    torch.testing.assert_close(found, project_by_hand(expected, made), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('stride', [2, 4, 8, 16, 32, 64])
def test_a_cell_is_fed_by_the_patches_it_covers_and_no_other(stride):
    made, x = level(stride), torch.rand(1, 8, 4, 5, requires_grad=True)
    out = made(x, (64, 80))
    for i, j in [(0, 0), (out.shape[2] - 1, out.shape[3] - 1), (out.shape[2] // 2, 0)]:
        (grad,) = torch.autograd.grad(out[0, :, i, j].square().sum(), x, retain_graph=True)
        touched = {tuple(rc) for rc in grad[0].abs().sum(0).nonzero().tolist()}
        rows = range(i * stride // 16, max(i * stride // 16 + 1, (i + 1) * stride // 16))
        columns = range(j * stride // 16, max(j * stride // 16 + 1, (j + 1) * stride // 16))
        assert touched
        assert touched <= {(r, c) for r in rows for c in columns}


def test_values_keep_their_spread_at_the_start():
    for stride in (4, 8, 16):
        made = PyramidLevel(256, 16, stride, 512, LN)
        torch.manual_seed(0)
        made.init_weights()
        made.norm = torch.nn.Identity()
        x = torch.randn(2, 256, 8, 8)
        gelu = 0.35 if stride == 4 else 1.0  # mean square of GELU of a normal number is 0.425
        assert made(x, (128, 128)).std() > 0.8 * gelu
        assert made(x, (128, 128)).std() < 1.2


def test_levels_take_one_map_each():
    torch.manual_seed(0)
    pyramid = SimplePyramid(8, 16, (8, 16), (6, 4), LN).eval()
    maps = [torch.rand(1, 8, 3, 3), torch.rand(1, 8, 3, 3)]
    out = pyramid(maps, (40, 48))
    assert [tuple(o.shape) for o in out] == [(1, 6, 5, 6), (1, 4, 3, 3)]
    for made, x, found in zip(pyramid.levels, maps, out, strict=True):
        assert torch.equal(made(x, (40, 48)), found)


@pytest.mark.parametrize(
    ('norm', 'kind'),
    [
        (LN, 'LayerNorm2d'),
        (dict(type='BN', requires_grad=True), 'BatchNorm2d'),
        (dict(type='GN', num_groups=2), 'GroupNorm'),
        (dict(type='SyncBN'), 'SyncBatchNorm'),
    ],
)
def test_norm_layers(norm, kind):
    made = level(4, norm=norm)
    assert type(made.norm).__name__ == type(made.rescale[1]).__name__ == kind


def test_strides_and_channels_that_cannot_be():
    with pytest.raises(ValueError, match=r'stride 12 .* patches of 16 pixels .*\[4, 8, 16, 32\]'):
        level(12)
    with pytest.raises(ValueError, match=r'stride 4 .* patches of 14 pixels'):
        level(4, patch=14)
    with pytest.raises(ValueError, match='6 channels cannot be halved 2 times'):
        level(4, channels=6)
