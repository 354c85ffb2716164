import pytest
import torch
from torch import nn

from mmmask3d.models.pos_embed import sincos_pos_embed
from mmmask3d.registry import MODELS

GRID = (2, 3)
RGB_KEEP = torch.tensor([[0, 4], [2, 3]])
DEPTH_KEEP = torch.tensor([[0, 1, 5], [3, 4, 5]])


def make(kind, depth_dims=8, extra=1, **kwargs):
    torch.manual_seed(0)
    fusion = MODELS.build(
        dict(type=kind, rgb_dims=12, depth_dims=depth_dims, embed_dims=16,
             num_extra_tokens=extra, **kwargs)
    )  # fmt: skip
    fusion.init_weights()
    return fusion


def streams(extra=1):
    g = torch.Generator().manual_seed(1)
    return torch.rand(2, extra + 2, 12, generator=g), torch.rand(2, 3, 8, generator=g)


def dense_by_hand(tokens, keep, filler):
    """One frame after the other, one location after the other."""
    rows = []
    for b in range(2):
        places = keep[b].tolist()
        rows.append(torch.stack([tokens[b, places.index(n)] if n in places else filler[0, 0]
                                 for n in range(6)]))  # fmt: skip
    return torch.stack(rows)


@pytest.mark.parametrize('extra', [0, 1])
@pytest.mark.parametrize('kind', ['AddFusion', 'ConcatFusion', 'CrossAttentionFusion'])
def test_bottleneck_equals_a_computation_by_hand(kind, extra):
    fusion = make(kind, extra=extra, **(dict(num_heads=2) if 'Cross' in kind else {}))
    rgb, depth = streams(extra)
    out = fusion(rgb, RGB_KEEP, depth, DEPTH_KEEP, GRID)
    assert out.shape == (2, extra + 6, 16)

    projected = fusion.rgb_proj(rgb)
    torch.testing.assert_close(out[:, :extra], projected[:, :extra])
    a = dense_by_hand(projected[:, extra:], RGB_KEEP, fusion.rgb_mask_token)
    b = dense_by_hand(fusion.depth_proj(depth), DEPTH_KEEP, fusion.depth_mask_token)
    if kind == 'AddFusion':
        expected = a + b
    elif kind == 'ConcatFusion':
        weight, bias = fusion.merge.weight, fusion.merge.bias
        expected = a @ weight[:, :16].T + b @ weight[:, 16:].T + bias
    else:
        pos = sincos_pos_embed(GRID, 16)
        q, k = fusion.query_norm(a + pos), fusion.key_norm(b + pos)
        wq, wk, wv = fusion.attn.in_proj_weight.chunk(3)
        bq, bk, bv = fusion.attn.in_proj_bias.chunk(3)
        heads = []
        for h in range(2):
            part = slice(8 * h, 8 * h + 8)
            score = (q @ wq.T + bq)[..., part] @ (k @ wk.T + bk)[..., part].mT / 8**0.5
            heads.append(score.softmax(-1) @ (k @ wv.T + bv)[..., part])
        expected = a + fusion.attn.out_proj(torch.cat(heads, dim=-1))
    torch.testing.assert_close(out[:, extra:], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('kind', ['AddFusion', 'ConcatFusion', 'CrossAttentionFusion'])
def test_without_depth_branch_the_rgb_stream_passes_alone(kind):
    fusion = make(kind, depth_dims=None)
    assert {k.split('.')[0] for k in fusion.state_dict()} == {'rgb_proj', 'rgb_mask_token'}
    rgb, _ = streams()
    out = fusion(rgb, RGB_KEEP, None, DEPTH_KEEP, GRID)
    projected = fusion.rgb_proj(rgb)
    expected = dense_by_hand(projected[:, 1:], RGB_KEEP, fusion.rgb_mask_token)
    torch.testing.assert_close(out, torch.cat((projected[:, :1], expected), dim=1))


@pytest.mark.parametrize('kind', ['AddFusion', 'ConcatFusion', 'CrossAttentionFusion'])
def test_every_parameter_gets_a_gradient_whatever_is_kept(kind):
    for rgb_kept, depth_kept in ((2, 3), (0, 3), (2, 0), (0, 0)):
        fusion = make(kind)
        rgb, depth = streams()
        out = fusion(
            rgb[:, : 1 + rgb_kept], RGB_KEEP[:, :rgb_kept],
            depth[:, :depth_kept], DEPTH_KEEP[:, :depth_kept], GRID,
        )  # fmt: skip
        out.square().sum().backward()
        for name, p in fusion.named_parameters():
            assert p.grad is not None, name
            assert torch.isfinite(p.grad).all(), name
        # mask tokens stand where nothing was kept
        assert fusion.rgb_mask_token.grad.any()
        assert fusion.depth_mask_token.grad.any()


def test_mask_tokens_start_small_and_different():
    fusion = make('AddFusion')
    for token in (fusion.rgb_mask_token, fusion.depth_mask_token):
        assert isinstance(token, nn.Parameter)
        assert 0 < token.std() < 0.05
    assert not torch.equal(fusion.rgb_mask_token, fusion.depth_mask_token)
