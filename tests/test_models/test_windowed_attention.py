"""Windowed attention against explicit masks, alone and inside the encoder."""

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mmpretrain.models import VisionTransformer

from mmmask3d.models import Mask3DViT
from mmmask3d.models.windowed_attention import WindowedAttention, quarter_ends

ARCH = dict(embed_dims=48, num_layers=4, num_heads=3, feedforward_channels=96)
TIGHT = dict(rtol=1e-5, atol=1e-5)


def allowed(grid, window, extra):
    """Who may see whom: (N, N) bool, from the rule and nothing else."""
    rows, columns = grid
    home = [(r // window, c // window) for r in range(rows) for c in range(columns)]
    home = [None] * extra + home
    return torch.tensor([[a is None or b is None or a == b for b in home] for a in home])


def attention_by_hand(q, k, v, mask):
    scores = (q @ k.transpose(-2, -1)) / q.shape[-1] ** 0.5
    return scores.masked_fill(~mask, float('-inf')).softmax(-1) @ v


def with_gradients(function, *tensors):
    tensors = [t.clone().requires_grad_() for t in tensors]
    out = function(*tensors)
    weights = torch.arange(out.numel(), dtype=out.dtype).view_as(out).sin()
    return [out, *torch.autograd.grad((out * weights).sum(), tensors)]


def random_qkv(grid, extra, batch=2, heads=2, channels=8, seed=0):
    g = torch.Generator().manual_seed(seed)
    shape = (3, batch, heads, extra + grid[0] * grid[1], channels)
    return torch.randn(shape, generator=g).unbind()


def windowed(grid, window, extra):
    module = WindowedAttention(F.scaled_dot_product_attention, window, extra)
    module.grid = grid
    return module


# ---------------------------------------------------------------- the attention alone


@settings(max_examples=40, deadline=None)
@given(
    grid=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    window=st.integers(1, 10),
    extra=st.integers(0, 2),
    seed=st.integers(0, 99),
)
@example(grid=(4, 9), window=3, extra=0, seed=0)  # cut at both edges
@example(grid=(7, 5), window=9, extra=1, seed=0)  # one window
def test_it_is_attention_under_the_mask_of_the_rule(grid, window, extra, seed):
    qkv = random_qkv(grid, extra, seed=seed)
    mask = allowed(grid, window, extra)
    ours = with_gradients(windowed(grid, window, extra), *qkv)
    expected = with_gradients(lambda *t: attention_by_hand(*t, mask), *qkv)
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a, b, **TIGHT)


def test_no_filling_is_computed_and_groups_are_few():
    seen = []

    def spy(q, k, v, dropout_p):
        seen.append((tuple(q.shape), k.shape[2]))
        return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout_p)

    module = WindowedAttention(spy, 3, 1)
    module.grid = (7, 8)
    module(*random_qkv((7, 8), 1, batch=2))
    assert seen == [
        ((2 * 4, 2, 9, 8), 10),  # 2x2 whole windows for each image
        ((2 * 2, 2, 6, 8), 7),  # 3x2, at the right edge
        ((2 * 2, 2, 3, 8), 4),  # 1x3, at the bottom
        ((2 * 1, 2, 2, 8), 3),  # 1x2, in the corner
        ((2, 2, 1, 8), 57),  # the class token sees everything
    ]


def test_dropout_reaches_the_attention():
    q, k, v = random_qkv((4, 4), 1)
    module = windowed((4, 4), 2, 1)
    torch.manual_seed(0)
    assert not torch.allclose(module(q, k, v, dropout_p=0.5), module(q, k, v))


def test_layer_called_past_the_encoder_is_an_error():
    model = make(window_size=2)
    with pytest.raises(RuntimeError, match='needs the patch grid'):
        model.layers[0](torch.zeros(1, 1 + 36, 48))


# ---------------------------------------------------------------- inside the encoder


def make(seed=0, **kwargs):
    torch.manual_seed(seed)
    cfg = dict(arch=ARCH, img_size=(32, 72), patch_size=8, out_indices=(0, 1, 2, 3))
    if kwargs.get('window_size'):
        cfg['global_attn_indexes'] = (1, 3)
    model = Mask3DViT(**{**cfg, **kwargs})
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn_like(p) * 0.2)
    return model.eval()


def outputs_and_gradients(model, x):
    x = x.clone().requires_grad_()
    model.zero_grad()
    outs = model(x)
    sum(o.square().mean() for o in outs).backward()
    grads = {k: p.grad.clone() for k, p in model.named_parameters()}
    return outs, {**grads, 'input': x.grad}


def assert_same(ours, theirs, tolerance):
    for a, b in zip(ours[0], theirs[0], strict=True):
        torch.testing.assert_close(a, b, **tolerance)
    assert ours[1].keys() == theirs[1].keys()
    for name, grad in theirs[1].items():
        torch.testing.assert_close(
            ours[1][name], grad, **tolerance, msg=lambda m, n=name: f'{n}: {m}'
        )


@pytest.mark.parametrize('cls', [True, False])
@pytest.mark.parametrize('size', [(32, 72), (64, 48), (30, 41), (8, 80)])
def test_encoder_equals_one_with_masked_attention(cls, size):
    local = make(window_size=3, with_cls_token=cls)
    masked = make(with_cls_token=cls)
    grid = tuple(-(-side // 8) for side in size)
    mask = allowed(grid, 3, int(cls))
    for i in (0, 2):
        masked.layers[i].attn.scaled_dot_product_attention = lambda q, k, v, dropout_p: (
            attention_by_hand(q, k, v, mask)
        )
    x = torch.rand(2, 3, *size)
    ours, expected = outputs_and_gradients(local, x), outputs_and_gradients(masked, x)
    assert ours[0][0].shape[2:] == grid
    assert_same(ours, expected, TIGHT)


@pytest.mark.parametrize('options', [dict(), dict(with_cls_token=False), dict(pre_norm=True)])
def test_weights_are_those_of_the_plain_vit(options):
    plain = VisionTransformer(arch=ARCH, img_size=(32, 72), patch_size=8, out_type='featmap',
                              **options)  # fmt: skip
    assert list(make(window_size=3, **options).state_dict()) == list(plain.state_dict())


def tokens_after(model, x, layers):
    raw = copy.deepcopy(model)
    raw.out_type, raw.out_indices = 'raw', [layers - 1]
    return raw(x)[0]


def test_class_token_sees_every_window_and_a_patch_its_own():
    model = make(window_size=3, global_attn_indexes=(3,))
    x = torch.rand(1, 3, 32, 72)
    other = x.clone()
    other[..., :8, :8] += 1.0  # patch (0, 0) of a 4x9 grid
    change = (tokens_after(model, x, 1) - tokens_after(model, other, 1)).abs().amax(-1)[0]
    assert change[0] > 1e-4
    moved = change[1:].view(4, 9) > 1e-6
    expected = torch.zeros(4, 9, dtype=torch.bool)
    expected[:3, :3] = True
    assert torch.equal(moved, expected)
    # through the class token the next windowed layer knows of it everywhere
    change = (tokens_after(model, x, 2) - tokens_after(model, other, 2)).abs().amax(-1)[0]
    assert change.min() > 1e-6


def test_drop_path_drops_whole_images_not_windows():
    """One uniform number for each image, however many windows it has."""
    model = make(window_size=2, drop_path_rate=0.9, global_attn_indexes=(0,))
    updates = []
    model.layers[3].attn.register_forward_hook(lambda m, args, out: updates.append(out))
    model.train()
    torch.manual_seed(1)
    with torch.no_grad():
        model(torch.rand(40, 3, 32, 72))
    dropped = updates[0].abs().amax(-1) == 0  # (images, tokens)
    assert torch.equal(dropped.all(1), dropped.any(1))
    assert 0 < dropped.all(1).sum() < 40


def test_recomputation_knows_the_size_of_its_own_forward_pass():
    """Two sizes are in flight when the first backward pass recomputes its layers."""
    first, second = torch.rand(2, 3, 32, 72), torch.rand(2, 3, 48, 40)
    grads = []
    for with_cp in (False, True):
        model = make(window_size=3, with_cp=with_cp).train()
        losses = [sum(o.square().mean() for o in model(x)) for x in (first, second)]
        sum(losses).backward()
        grads.append({k: p.grad for k, p in model.named_parameters()})
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, msg=name)


def test_one_graph_under_compile():
    arch = {**ARCH, 'num_layers': 1}  # one layer: dynamo takes seconds for each
    model = make(arch=arch, window_size=3, global_attn_indexes=(), out_indices=0)
    torch._dynamo.reset()
    compiled = torch.compile(model, backend='eager', fullgraph=True, dynamic=True)
    # with shapes as symbols one graph serves grids of 7x12 and 13x9, alike in their edge windows
    with torch.no_grad(), torch._dynamo.config.patch(error_on_recompile=True):
        for size in [(56, 96), (104, 72)]:
            x = torch.rand(1, 3, *size)
            torch.testing.assert_close(compiled(x)[0], model(x)[0])
    torch._dynamo.reset()


def test_autocast_to_bfloat16_stays_near():
    model, x = make(window_size=3), torch.rand(2, 3, 32, 72)
    with torch.autocast('cpu', torch.bfloat16):
        low = model(x)
    for a, b in zip(low, model(x), strict=True):
        assert (a.float() - b).norm() / b.norm() < 0.03


def test_copies_are_independent():
    """As EMAHook makes them."""
    model = make(window_size=3)
    twin, x = copy.deepcopy(model), torch.rand(1, 3, 32, 72)
    before = twin(x)[-1]
    with torch.no_grad():
        model.layers[0].attn.qkv.weight.zero_()
    assert torch.equal(twin(x)[-1], before)


# ---------------------------------------------------------------- settings


def test_global_layers_end_the_quarters():
    assert quarter_ends(12) == (2, 5, 8, 11)
    assert quarter_ends(24) == (5, 11, 17, 23)
    assert quarter_ends(32) == (7, 15, 23, 31)
    assert quarter_ends(5) == (1, 2, 3, 4)


@pytest.mark.parametrize(
    ('indexes', 'windowed_layers'), [(None, [0]), ((), [0, 1, 2, 3, 4]), ((-1, 0), [1, 2, 3])]
)
def test_which_layers_are_windowed(indexes, windowed_layers):
    model = make(arch={**ARCH, 'num_layers': 5}, window_size=3, global_attn_indexes=indexes)
    found = [
        i
        for i, layer in enumerate(model.layers)
        if isinstance(layer.attn.scaled_dot_product_attention, WindowedAttention)
    ]
    assert found == windowed_layers
    assert sorted(found + list(model.global_attn_indexes)) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(window_size=-1), 'window_size=-1: expected a number of patches'),
        (dict(global_attn_indexes=(1,)), r'window_size=0 windows none'),
        (dict(window_size=3, global_attn_indexes=(1, 4)), r'\[4\] out of range.*4 layers'),
        (dict(window_size=3, global_attn_indexes=None), 'each of the 4 layers attends globally'),
    ],
)
def test_settings_without_effect_or_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)
