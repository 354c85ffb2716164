import pytest
import torch
import torch.nn.functional as F

from mmmask3d.models import patches as P


def brute_force_patches(maps, p):
    b, _, h, w = maps.shape
    out = []
    for row in range(h // p):
        for column in range(w // p):
            cut = maps[:, :, row * p : (row + 1) * p, column * p : (column + 1) * p]
            out.append(cut.reshape(b, -1))
    return torch.stack(out, dim=1)


@pytest.mark.parametrize('size', [(8, 8), (8, 20), (24, 4)])
@pytest.mark.parametrize('channels', [1, 3])
def test_patches_are_row_major_and_inverted_exactly(size, channels):
    maps = torch.rand(2, channels, *size)
    cut = P.patchify(maps, 4)
    assert torch.equal(cut, brute_force_patches(maps, 4))
    assert torch.equal(P.unpatchify(cut, 4, (size[0] // 4, size[1] // 4)), maps)


def test_patch_embedding_by_convolution_and_by_linear_layer_agree():
    conv = torch.nn.Conv2d(3, 5, 4, 4)
    x = torch.rand(2, 3, 8, 12)
    linear = F.linear(P.patchify(x, 4), conv.weight.flatten(1), conv.bias)
    torch.testing.assert_close(linear, conv(x).flatten(2).transpose(1, 2))


def test_mask_of_patches_covers_exactly_their_pixels():
    mask = torch.zeros(1, 6, dtype=torch.bool)
    mask[0, 4] = True  # second row, second column of a 2x3 grid
    pixels = P.patch_mask_to_pixels(mask, 4, (2, 3))
    expected = torch.zeros(1, 1, 8, 12, dtype=torch.bool)
    expected[..., 4:8, 4:8] = True
    assert torch.equal(pixels, expected)


def test_kept_indices_are_the_false_entries_ascending():
    mask = torch.tensor([[1, 0, 1, 0], [0, 1, 1, 0]], dtype=torch.bool)
    ids = P.keep_ids_from_mask(mask)
    assert ids.dtype == torch.int64
    assert ids.tolist() == [[1, 3], [0, 3]]
    assert P.keep_ids_from_mask(torch.ones(3, 4, dtype=torch.bool)).shape == (3, 0)


def test_unequal_numbers_of_kept_patches_are_named():
    mask = torch.tensor([[1, 0, 1, 0], [1, 1, 1, 0]], dtype=torch.bool)
    with pytest.raises(ValueError, match=r'depth_mask keeps \[1, 2\]'):
        P.keep_ids_from_mask(mask, 'depth_mask')


def test_scatter_puts_tokens_back_and_the_filler_elsewhere():
    tokens = torch.rand(2, 6, 3)
    ids = torch.tensor([[0, 2, 5], [1, 3, 4]])
    gathered = P.gather_tokens(tokens, ids)
    filler = torch.full((1, 1, 3), 9.0)
    dense = P.scatter_tokens(gathered, ids, filler, 6)
    for b in range(2):
        for n in range(6):
            expected = tokens[b, n] if n in ids[b] else filler[0, 0]
            assert torch.equal(dense[b, n], expected)
    none = P.scatter_tokens(tokens[:, :0], ids[:, :0], filler, 6)
    assert torch.equal(none, filler.expand(2, 6, 3))


def test_size_that_is_no_multiple_says_what_would_be():
    with pytest.raises(ValueError, match=r'240x321.*patch_size=16.*240x320'):
        P.grid_of(240, 321, 16)
    with pytest.raises(ValueError, match='16x16'):  # smaller than one patch
        P.grid_of(8, 8, 16)
    assert P.grid_of(240, 320, 16) == (15, 20)
