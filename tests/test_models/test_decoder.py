import pytest
import torch

from mmmask3d.models import CrossAttentionDecoder, DepthDecoder, RGBDecoder
from mmmask3d.models.pos_embed import sincos_pos_embed

NONE = torch.zeros(2, 0, dtype=torch.int64)  # places that a transformer over all does not ask for


def make(kind=DepthDecoder, **kwargs):
    torch.manual_seed(0)
    decoder = kind(**{**dict(in_dims=16, num_layers=2, num_heads=2), **kwargs})
    decoder.init_weights()
    return decoder.eval()


@pytest.mark.parametrize('kind', [DepthDecoder, RGBDecoder])
@pytest.mark.parametrize('extra', [0, 1])
@pytest.mark.parametrize('width', [None, 8])
def test_tokens_equal_a_computation_by_hand(kind, extra, width):
    decoder = make(kind, num_extra_tokens=extra, embed_dims=width)
    assert decoder.embed_dims == (width or 16)
    x = torch.rand(2, extra + 6, 16)
    y = decoder.proj(x)
    y = torch.cat((y[:, :extra], y[:, extra:] + sincos_pos_embed((2, 3), decoder.embed_dims)), 1)
    for layer in decoder.layers:
        y = layer(y)
    out = decoder(x, (2, 3), NONE)
    assert out.shape == (2, 6, decoder.embed_dims)
    torch.testing.assert_close(out, decoder.norm(y)[:, extra:])


def test_places_are_told_apart_by_position_alone():
    x = torch.ones(1, 7, 16)
    out = make()(x, (2, 3), NONE)[0]
    assert (out[0] - out[1:]).abs().amax(1).min() > 1e-3


def test_every_place_sees_every_other_and_the_class_token():
    decoder = make()
    x = torch.rand(1, 7, 16)
    base = decoder(x, (2, 3), NONE)
    for changed in range(7):
        y = x.clone()
        y[0, changed] += 1
        assert (decoder(y, (2, 3), NONE) != base).any(-1).all()


def test_any_grid_with_the_same_weights():
    decoder = make()
    assert decoder(torch.rand(1, 1 + 12, 16), (3, 4), NONE).shape == (1, 12, 16)
    x = torch.rand(1, 13, 16)
    assert not torch.allclose(decoder(x, (3, 4), NONE), decoder(x, (4, 3), NONE), atol=1e-3)


def test_layers_are_initialised_as_the_vit_s():
    for layer in make().layers:
        assert layer.ffn.layers[0][0].bias.abs().max() < 1e-4
    for layer in cross().layers:
        bound = (6 / (16 + 64)) ** 0.5  # xavier
        assert 0.9 * bound < layer.ffn[0].weight.abs().max() <= bound
        assert not layer.ffn[0].bias.any()


# ---------------------------------------------------------------- cross-attention

IDS = torch.tensor([[5, 0], [3, 4]])
VISIBLE = torch.tensor([[1, 2, 1], [0, 5, 2]])  # RGB and depth of place 1 were kept in one frame


def cross(**kwargs):
    return make(CrossAttentionDecoder, **kwargs)


def test_attention_to_what_was_kept_equals_a_computation_by_hand():
    decoder = cross(embed_dims=8)
    x = torch.rand(2, 1 + 6, 16)
    tokens = decoder.proj(x)
    patches = tokens[:, 1:] + sincos_pos_embed((2, 3), 8)
    out = decoder(x, (2, 3), VISIBLE, IDS)
    assert out.shape == (2, 2, 8)
    for frame in range(2):
        context = torch.cat((tokens[frame, :1], patches[frame, VISIBLE[frame]]))
        context = decoder.context_norm(context)
        y = patches[frame, IDS[frame]]
        for layer in decoder.layers:
            weights = layer.attn.in_proj_weight.chunk(3)
            q, k, v = (
                t @ w.T + b
                for t, w, b in zip(
                    (layer.query_norm(y), context, context),
                    weights,
                    layer.attn.in_proj_bias.chunk(3),
                    strict=True,
                )
            )
            heads = [
                (q[:, h] @ k[:, h].T / 2).softmax(1) @ v[:, h]  # two heads of 4 channels
                for h in (slice(0, 4), slice(4, 8))
            ]
            y = y + layer.attn.out_proj(torch.cat(heads, 1))
            y = y + layer.ffn(layer.ffn_norm(y))
        torch.testing.assert_close(out[frame], decoder.norm(y))


@pytest.mark.parametrize('kind', [DepthDecoder, CrossAttentionDecoder])
def test_a_share_is_decoded_as_if_all_were(kind):
    decoder = make(kind)
    x = torch.rand(2, 7, 16)
    whole = decoder(x, (2, 3), VISIBLE)
    assert whole.shape == (2, 6, 16)
    for frame, tokens in enumerate(decoder(x, (2, 3), VISIBLE, IDS)):
        torch.testing.assert_close(tokens, whole[frame, IDS[frame]])


def test_only_visible_places_and_the_place_itself_are_seen():
    decoder = cross()
    x = torch.rand(1, 7, 16)
    visible = torch.tensor([[1, 2]])
    base = decoder(x, (2, 3), visible)
    for changed in range(7):  # 0 is the class token
        y = x.clone()
        y[0, changed] += torch.rand(16)
        seen = (decoder(y, (2, 3), visible) != base).any(-1)[0].tolist()
        assert seen == [changed in (0, 2, 3) or place + 1 == changed for place in range(6)]


@pytest.mark.parametrize('share', [0, -0.5, 1.5])
def test_what_is_no_share_is_refused(share):
    with pytest.raises(ValueError, match='more than 0 and at most 1'):
        cross(share=share)
