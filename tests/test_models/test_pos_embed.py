import math
from collections import OrderedDict

import numpy as np
import pytest
import torch

from mmmask3d.models import pos_embed as E


def sincos_by_formula(rows, columns, dims):
    """MAE's embedding, cell by cell: sin and cos of the row, then of the column; row-major."""
    quarter = dims // 4
    out = np.zeros((rows * columns, dims))
    for row in range(rows):
        for column in range(columns):
            for k in range(quarter):
                omega = 1 / 10000 ** (k / quarter)
                out[row * columns + column, k::quarter] = [
                    math.sin(row * omega),
                    math.cos(row * omega),
                    math.sin(column * omega),
                    math.cos(column * omega),
                ]
    return out


@pytest.mark.parametrize('grid', [(3, 5), (5, 3), (4, 4), (1, 7)])
def test_sincos_is_row_major_on_any_grid(grid):
    found = E.sincos_pos_embed(grid, 16)
    assert found.shape == (1, grid[0] * grid[1], 16)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found[0], sincos_by_formula(*grid, 16), atol=1e-6)


def test_positions_are_added_at_the_given_places():
    tokens = torch.rand(2, 3, 16)
    ids = torch.tensor([[0, 7, 14], [1, 2, 13]])
    expected = tokens + torch.from_numpy(sincos_by_formula(3, 5, 16)).float()[ids]
    torch.testing.assert_close(E.add_sincos(tokens, (3, 5), ids), expected)
    dense = torch.rand(2, 15, 16)
    torch.testing.assert_close(
        E.add_sincos(dense, (3, 5)), dense + torch.from_numpy(sincos_by_formula(3, 5, 16)).float()
    )


def test_cached_positions_survive_inference_mode_and_are_never_changed():
    with torch.inference_mode():
        E.add_sincos(torch.zeros(1, 6, 8), (2, 3))
    x = torch.zeros(1, 6, 8, requires_grad=True)
    y = E.add_sincos(x, (2, 3))
    y.mul(y).sum().backward()
    expected = E.sincos_pos_embed((2, 3), 8)
    y.detach().zero_()
    assert torch.equal(E.add_sincos(torch.zeros(1, 6, 8), (2, 3)), expected)


def test_resize_keeps_class_token_and_axes():
    rows, columns = torch.meshgrid(torch.arange(4.0), torch.arange(8.0), indexing='ij')
    pos = torch.cat((torch.full((1, 1, 2), 7.0),
                     torch.stack((rows, columns), -1).reshape(1, 32, 2)), dim=1)  # fmt: skip
    out = E.resize_to_grid(pos, (4, 8), (8, 4), mode='bilinear')
    assert torch.equal(out[:, 0], pos[:, 0])
    grid = out[0, 1:].reshape(8, 4, 2)
    # twice the rows, half the columns: linear maps stay linear inside
    torch.testing.assert_close(grid[1:-1, 0, 0], torch.arange(6) * 0.5 + 0.25)
    torch.testing.assert_close(grid[3, :, 1], torch.arange(4) * 2 + 0.5)
    assert E.resize_to_grid(pos, (4, 8), [4, 8]) is pos


@pytest.mark.parametrize(
    ('count', 'own', 'recorded', 'expected'),
    [
        (36, (4, 9), (4, 9), (4, 9)),
        (36, (6, 6), (4, 9), (4, 9)),
        (36, (6, 6), None, (6, 6)),
        (196, (15, 20), None, (14, 14)),  # ImageNet weights into 240x320
        (300, (15, 20), None, (15, 20)),
    ],
)
def test_grid_of_a_stored_embedding(count, own, recorded, expected):
    assert E.infer_grid(count, own, recorded) == expected


@pytest.mark.parametrize(
    ('count', 'own', 'recorded', 'message'),
    [
        (36, (4, 9), None, '6x6 or 4x9'),  # both readings fit, so none is taken
        (35, (4, 9), None, 'no square number'),
        (36, (4, 9), (3, 5), 'damaged'),
    ],
)
def test_grid_that_nobody_can_know_is_an_error(count, own, recorded, message):
    with pytest.raises(ValueError, match=message):
        E.infer_grid(count, own, recorded)


def test_grid_is_found_in_every_kind_of_file():
    assert E.grid_from_checkpoint(dict(meta=dict(patch_grid=[4, 9]), state_dict={})) == (4, 9)
    # safetensors: metadata is text
    assert E.grid_from_checkpoint(dict(meta=dict(patch_grid='[4, 9]'), state_dict={})) == (4, 9)
    state = OrderedDict(a=torch.zeros(1))
    state._metadata = OrderedDict({'backbone': dict(version=1, patch_grid=(4, 9))})
    assert E.grid_from_checkpoint(dict(state_dict=state, meta={}), 'backbone.') == (4, 9)
    assert E.grid_from_checkpoint(state, 'backbone.') == (4, 9)
    assert E.grid_from_checkpoint(state, 'other.') is None
    assert E.grid_from_checkpoint(dict(a=torch.zeros(1))) is None


def metas_positions(pos_embed, height, width, patch, offset, antialias):
    """``interpolate_pos_encoding`` of facebookresearch/dinov2, line by line but for dtypes."""
    side = int((pos_embed.shape[1] - 1) ** 0.5)
    class_pos, patch_pos = pos_embed[:, 0], pos_embed[:, 1:]
    h0, w0 = height // patch, width // patch
    if offset:
        arguments = dict(scale_factor=((h0 + offset) / side, (w0 + offset) / side))
    else:
        arguments = dict(size=(h0, w0))
    patch_pos = torch.nn.functional.interpolate(
        patch_pos.reshape(1, side, side, -1).permute(0, 3, 1, 2),
        mode='bicubic',
        antialias=antialias,
        **arguments,
    )
    assert patch_pos.shape[-2:] == (h0, w0)
    patch_pos = patch_pos.permute(0, 2, 3, 1).reshape(1, h0 * w0, -1)
    return torch.cat((class_pos.unsqueeze(0), patch_pos), dim=1)


@pytest.mark.parametrize(('offset', 'antialias'), [(0.1, False), (0.0, True), (0.1, True)])
@pytest.mark.parametrize('size', [(224, 224), (168, 224), (518, 238), (700, 532)])
def test_dinov2s_own_resize(size, offset, antialias):
    pos = torch.randn(1, 1 + 37 * 37, 6, generator=torch.Generator().manual_seed(0))
    grid = (size[0] // 14, size[1] // 14)
    found = E.resize_to_grid(pos, (37, 37), grid, offset=offset, antialias=antialias)
    expected = metas_positions(pos, *size, 14, offset, antialias)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    plain = E.resize_to_grid(pos, (37, 37), grid)
    assert (found - plain).abs().max() > 1e-3
