import pytest
import torch

from mmmask3d.models import DepthDecoder, RGBDecoder
from mmmask3d.models.pos_embed import sincos_pos_embed


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
    out = decoder(x, (2, 3))
    assert out.shape == (2, 6, decoder.embed_dims)
    torch.testing.assert_close(out, decoder.norm(y)[:, extra:])


def test_places_are_told_apart_by_position_alone():
    x = torch.ones(1, 7, 16)
    out = make()(x, (2, 3))[0]
    assert (out[0] - out[1:]).abs().amax(1).min() > 1e-3


def test_every_place_sees_every_other_and_the_class_token():
    decoder = make()
    x = torch.rand(1, 7, 16)
    base = decoder(x, (2, 3))
    for changed in range(7):
        y = x.clone()
        y[0, changed] += 1
        assert (decoder(y, (2, 3)) != base).any(-1).all()


def test_any_grid_with_the_same_weights():
    decoder = make()
    assert decoder(torch.rand(1, 1 + 12, 16), (3, 4)).shape == (1, 12, 16)
    x = torch.rand(1, 13, 16)
    assert not torch.allclose(decoder(x, (3, 4)), decoder(x, (4, 3)), atol=1e-3)


def test_layers_are_initialised_as_the_vit_s():
    for layer in make().layers:
        assert layer.ffn.layers[0][0].bias.abs().max() < 1e-4
