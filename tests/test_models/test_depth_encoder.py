import numpy as np
import pytest
import torch

from mmmask3d.models import DepthEncoder
from mmmask3d.models.pos_embed import sincos_pos_embed

NORMS = ('standardise', 'metric', 'log')


def make(seed=0, **kwargs):
    torch.manual_seed(seed)
    encoder = DepthEncoder(
        **{**dict(patch_size=4, embed_dims=16, num_layers=2, num_heads=2), **kwargs}
    )
    encoder.init_weights()
    return encoder.eval()


def frames(seed=0, batch=2, size=(8, 12)):
    g = torch.Generator().manual_seed(seed)
    depth = torch.rand(batch, 1, *size, generator=g) * 4 + 0.5
    valid = torch.rand(batch, 1, *size, generator=g) > 0.3
    return torch.where(valid, depth, 0), valid


IDS = torch.tensor([[0, 4], [1, 5]])


@pytest.mark.parametrize('norm', NORMS)
def test_tokens_equal_a_computation_by_hand(norm):
    encoder = make(input_norm=norm, max_depth=8.0)
    depth, valid = frames()
    for b, ids in enumerate(IDS.tolist()):
        d, v = depth[b, 0].double().numpy(), valid[b, 0].numpy()
        cells = [np.s_[4 * (i // 3) : 4 * (i // 3) + 4, 4 * (i % 3) : 4 * (i % 3) + 4] for i in ids]
        given = np.concatenate([d[c][v[c]] for c in cells])
        value = {
            'standardise': lambda x, g=given: (x - g.mean()) / np.sqrt(g.var() + 1e-6),
            'metric': lambda x: x / 8,
            'log': lambda x: np.log(np.maximum(x / 8, 1e-4)),
        }[norm]
        rows = [
            np.concatenate((np.where(v[c], value(d[c]), 0).ravel(), v[c].ravel())) for c in cells
        ]
        x = encoder.patch_embed(torch.tensor(np.stack(rows), dtype=torch.float32)[None])
        x = x + sincos_pos_embed((2, 3), 16)[:, ids]
        for layer in encoder.layers:
            x = layer(x)
        found = encoder(depth[b : b + 1], valid[b : b + 1], IDS[b : b + 1])
        torch.testing.assert_close(found, encoder.norm(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('norm', NORMS)
@pytest.mark.parametrize('filler', [1e6, float('nan'), float('inf'), -5.0])
def test_only_kept_and_valid_readings_are_read(norm, filler):
    encoder = make(input_norm=norm)
    depth, valid = frames()
    clean = encoder(depth, valid, IDS)
    holes = torch.where(valid, depth, filler)
    assert torch.equal(encoder(holes, valid, IDS), clean)
    removed = torch.ones(2, 6, dtype=torch.bool).scatter(1, IDS, False)
    pixels = removed.view(2, 1, 2, 3).repeat_interleave(4, 2).repeat_interleave(4, 3)
    assert torch.equal(encoder(torch.where(pixels, filler, depth), valid | pixels, IDS), clean)


def test_standardised_input_ignores_scale_and_shift_of_a_frame():
    depth, valid = frames()
    encoder = make()
    changed = torch.where(valid, depth * 3 + 1, 0)
    torch.testing.assert_close(
        encoder(changed, valid, IDS), encoder(depth, valid, IDS), rtol=1e-3, atol=1e-4
    )
    metric = make(input_norm='metric')
    assert not torch.allclose(metric(changed, valid, IDS), metric(depth, valid, IDS), atol=1e-2)


def test_validity_is_seen_and_not_only_the_value():
    """A hole and a reading at the mean both enter as value 0; they must not look alike."""
    encoder = make()
    depth, valid = frames(batch=1)
    # a patch without a reading does not move the statistics
    depth[..., :4, :4], valid[..., :4, :4] = 0, False
    ids = torch.tensor([[0, 4]])
    given = depth[..., 4:, 4:8][valid[..., 4:, 4:8]]
    filled, there = depth.clone(), valid.clone()
    filled[..., 0, 0], there[..., 0, 0] = given.mean(), True
    assert not torch.allclose(encoder(depth, valid, ids), encoder(filled, there, ids), atol=1e-3)


def test_tokens_that_enter_the_layers_are_the_kept_ones():
    encoder, seen = make(), []
    for layer in encoder.layers:
        layer.register_forward_pre_hook(lambda m, args: seen.append(tuple(args[0].shape)))
    assert encoder(*frames(), IDS).shape == (2, 2, 16)
    assert seen == [(2, 2, 16)] * 2


@pytest.mark.parametrize('norm', NORMS)
def test_no_patch_and_no_reading_are_fine(norm):
    encoder = make(input_norm=norm)
    depth, valid = frames()
    assert encoder(depth, valid, IDS[:, :0]).shape == (2, 0, 16)
    assert torch.isfinite(encoder(depth * 0, valid & False, IDS)).all()


def test_layers_are_initialised_as_the_vit_s():
    """The feed-forward layers of mmpretrain's blocks are Xavier with a tiny bias."""
    encoder = make()
    for layer in encoder.layers:
        assert layer.ffn.layers[0][0].bias.abs().max() < 1e-4


def test_unknown_normalisation_is_refused():
    with pytest.raises(ValueError, match=r"'minmax'.*standardise"):
        make(input_norm='minmax')
