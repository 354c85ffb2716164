"""Layouts of MAE, timm, DINOv2 and MultiMAE against forward passes written from the papers.

The references below share no code with the models they are compared with: plain functions on the
state dicts as the originals write them.
"""

import copy
import re
from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import DefaultScope
from mmpretrain.models import MAE
from mmpretrain.models import VisionTransformer as MMViT

from mmmask3d.models.encoder_names import (
    WeightFormatError,
    conversion_hint,
    detect,
    find_tensors,
)
from mmmask3d.weights import export
from mmmask3d.weights.formats import IMAGENET_MEAN, IMAGENET_STD, convert, to_timm

DIMS, LAYERS, HEADS, PATCH, HIDDEN = 24, 2, 3, 8, 40
GRID = (3, 3)


# ---------------------------------------------------------------- references


def norm(x, w, name, eps):
    return F.layer_norm(x, x.shape[-1:], w[f'{name}.weight'], w[f'{name}.bias'], eps)


def linear(x, w, name):
    return x @ w[f'{name}.weight'].T + w.get(f'{name}.bias', 0)


def block(x, w, p, heads, eps):
    """Pre-norm layer (Dosovitskiy et al. 2021, eq. 2 and 3), with LayerScale and SwiGLU."""
    batch, tokens, dims = x.shape
    qkv = linear(norm(x, w, f'{p}.norm1', eps), w, f'{p}.attn.qkv')
    q, k, v = qkv.view(batch, tokens, 3, heads, dims // heads).permute(2, 0, 3, 1, 4)
    scores = torch.einsum('bhid,bhjd->bhij', q, k) / (dims // heads) ** 0.5
    mixed = torch.einsum('bhij,bhjd->bihd', scores.softmax(-1), v).reshape(batch, tokens, dims)
    x = x + w.get(f'{p}.ls1.gamma', 1) * linear(mixed, w, f'{p}.attn.proj')
    y = norm(x, w, f'{p}.norm2', eps)
    if f'{p}.mlp.w12.weight' in w:
        gate, value = linear(y, w, f'{p}.mlp.w12').chunk(2, -1)
        y = linear(gate * torch.sigmoid(gate) * value, w, f'{p}.mlp.w3')
    else:
        y = linear(y, w, f'{p}.mlp.fc1')
        y = linear(0.5 * y * (1 + torch.erf(y / 2**0.5)), w, f'{p}.mlp.fc2')
    return x + w.get(f'{p}.ls2.gamma', 1) * y


def patches(image, weight, bias):
    """Project non-overlapping patches, row by row."""
    size = weight.shape[-1]
    batch, channels, height, width = image.shape
    cut = image.view(batch, channels, height // size, size, width // size, size)
    cut = cut.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
    return cut @ weight.flatten(1).T + (0 if bias is None else bias)


def timm_vit(w, image, heads=HEADS, eps=1e-6):
    """Tokens after the last layer, class token first."""
    x = patches(image, w['patch_embed.proj.weight'], w.get('patch_embed.proj.bias'))
    pos, extra = w['pos_embed'], 'cls_token' in w
    if pos.shape[1] == x.shape[1] + 1:
        x, first = x + pos[:, 1:], w['cls_token'] + pos[:, :1]
    else:
        x, first = x + pos, w.get('cls_token')
    if extra:
        x = torch.cat([first.expand(len(x), -1, -1), x], 1)
    if 'norm_pre.weight' in w:
        x = norm(x, w, 'norm_pre', eps)
    depth = len({re.match(r'blocks\.(\d+)\.', k)[1] for k in w if k.startswith('blocks.')})
    for i in range(depth):
        x = block(x, w, f'blocks.{i}', heads, eps)
    return norm(x, w, 'norm', eps) if 'norm.weight' in w else x


def multimae_vit(w, image):
    """RGB tokens and the global token, which stands last and is moved to the front here."""
    adapter = 'input_adapters.rgb'
    x = patches(image, w[f'{adapter}.proj.weight'], w[f'{adapter}.proj.bias'])
    rows, columns = (n // PATCH for n in image.shape[-2:])
    pos = F.interpolate(
        w[f'{adapter}.pos_emb'], size=(rows, columns), mode='bicubic', align_corners=False
    )
    x = torch.cat(
        [x + pos.flatten(2).transpose(1, 2), w['global_tokens'].expand(len(x), -1, -1)], 1
    )
    for i in range(LAYERS):
        x = block(x, w, f'encoder.{i}', HEADS, 1e-6)
    return torch.cat([x[:, -1:], x[:, :-1]], 1)


# ---------------------------------------------------------------- random weights


def filled(shapes, seed=0):
    g = torch.Generator().manual_seed(seed)
    return OrderedDict(
        (k, torch.randn(s, generator=g) * (s[-1] ** -0.5 if len(s) == 2 else 0.5))
        for k, s in shapes.items()
    )


def layer_shapes(p, hidden=HIDDEN):
    return {
        f'{p}.norm1.weight': (DIMS,),
        f'{p}.norm1.bias': (DIMS,),
        f'{p}.attn.qkv.weight': (3 * DIMS, DIMS),
        f'{p}.attn.qkv.bias': (3 * DIMS,),
        f'{p}.attn.proj.weight': (DIMS, DIMS),
        f'{p}.attn.proj.bias': (DIMS,),
        f'{p}.norm2.weight': (DIMS,),
        f'{p}.norm2.bias': (DIMS,),
        f'{p}.mlp.fc1.weight': (hidden, DIMS),
        f'{p}.mlp.fc1.bias': (hidden,),
        f'{p}.mlp.fc2.weight': (DIMS, hidden),
        f'{p}.mlp.fc2.bias': (DIMS,),
    }


def timm_weights(grid=GRID, **extra):
    shapes = {
        'cls_token': (1, 1, DIMS),
        'pos_embed': (1, grid[0] * grid[1] + 1, DIMS),
        'patch_embed.proj.weight': (DIMS, 3, PATCH, PATCH),
        'patch_embed.proj.bias': (DIMS,),
    }
    for i in range(LAYERS):
        shapes |= layer_shapes(f'blocks.{i}')
    return filled({**shapes, 'norm.weight': (DIMS,), 'norm.bias': (DIMS,), **extra})


def multimae_weights(tokens=1):
    shapes = {
        'global_tokens': (1, tokens, DIMS),
        'input_adapters.rgb.pos_emb': (1, DIMS, *GRID),
        'input_adapters.rgb.proj.weight': (DIMS, 3, PATCH, PATCH),
        'input_adapters.rgb.proj.bias': (DIMS,),
        'input_adapters.depth.pos_emb': (1, DIMS, *GRID),
        'input_adapters.depth.proj.weight': (DIMS, 1, PATCH, PATCH),
        'output_adapters.depth.mask_token': (1, 1, 8),
    }
    for i in range(LAYERS):
        shapes |= layer_shapes(f'encoder.{i}')
    return filled(shapes)


def image(size=(24, 24), seed=1):
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(seed))


def features(encoder, x):
    """What Mask3DViT and mmpretrain's ViT give for a conversion; they must agree."""
    ours = export.build_encoder({**encoder.backbone, 'out_type': 'raw'}, encoder.grid)
    plain = export.build_plain_vit(encoder.backbone, encoder.grid)
    for model in (ours, plain):
        export.load_strictly(model, encoder.state, 'model')
        model.eval()
    plain.out_type = 'raw'
    with torch.no_grad():
        found, other = ours(x)[0], plain(x)[0]
    torch.testing.assert_close(found, other, rtol=0, atol=1e-5)
    return found


def assert_equal(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def without(weights, *names):
    return OrderedDict((k, v) for k, v in weights.items() if not k.startswith(names))


# ---------------------------------------------------------------- equal by value


def swiglu(weights, names):
    """Replace the FFN by a gated one of width 16: under DINOv2's names, or timm's."""
    weights = without(weights, *(f'blocks.{i}.mlp' for i in range(LAYERS)))
    first, second = names
    for i in range(LAYERS):
        weights |= filled(
            {
                f'blocks.{i}.mlp.{first}.weight': (32, DIMS),
                f'blocks.{i}.mlp.{first}.bias': (32,),
                f'blocks.{i}.mlp.{second}.weight': (DIMS, 16),
                f'blocks.{i}.mlp.{second}.bias': (DIMS,),
            },
            seed=5 + i,
        )
    return weights


SCALES = {f'blocks.{i}.ls{n}.gamma': (DIMS,) for i in range(LAYERS) for n in (1, 2)}
HEAD = {'head.weight': (10, DIMS), 'head.bias': (10,)}
NORM_PRE = {'norm_pre.weight': (DIMS,), 'norm_pre.bias': (DIMS,)}
VARIANTS = {
    'plain': (lambda: timm_weights(**HEAD), {'arch'}),
    'layer scale': (lambda: timm_weights(**SCALES), {'arch', 'layer_scale_init_value'}),
    'no qkv bias': (
        lambda: OrderedDict(
            (k, v) for k, v in timm_weights().items() if not k.endswith('qkv.bias')
        ),
        {'arch', 'qkv_bias'},
    ),
    'norm after pooling': (
        lambda: without(timm_weights(**{'fc_norm.weight': (DIMS,)}, **HEAD), 'norm.'),
        {'arch', 'final_norm'},
    ),
    'no class token': (
        lambda: {**without(timm_weights(), 'cls_token'), 'pos_embed': torch.randn(1, 9, DIMS)},
        {'arch', 'with_cls_token'},
    ),
    'class token without position': (
        lambda: {**timm_weights(), 'pos_embed': torch.randn(1, 9, DIMS)},
        {'arch'},
    ),
    'gated': (lambda: swiglu(timm_weights(), ('w12', 'w3')), {'arch', 'layer_cfgs'}),
}


@pytest.mark.parametrize('name', VARIANTS)
def test_timm_layouts(name):
    make, settings = VARIANTS[name]
    torch.manual_seed(3)
    weights = make()
    encoder = convert(weights, 'file', num_heads=HEADS)
    assert set(encoder.backbone) == settings | {'type', 'patch_size'}
    assert encoder.grid == GRID
    assert_equal(features(encoder, image()), timm_vit(weights, image()))


def test_gated_ffn_under_timms_names():
    """SwiGLUPacked is called fc1 and fc2 there; the widths give it away."""
    as_dinov2, as_timm = (swiglu(timm_weights(), n) for n in (('w12', 'w3'), ('fc1', 'fc2')))
    one, other = (convert(w, 'file', num_heads=HEADS) for w in (as_dinov2, as_timm))
    assert one.backbone == other.backbone
    assert all(torch.equal(other.state[k], v) for k, v in one.state.items())


def test_clip_has_a_norm_before_the_layers_and_another_eps():
    weights = without(timm_weights(**NORM_PRE), 'patch_embed.proj.bias')
    # Small numbers, so that eps matters.
    weights = OrderedDict(
        (k, v * 0.02 if 'pos' in k or 'proj' in k else v) for k, v in weights.items()
    )
    encoder = convert(weights, 'file', num_heads=HEADS)
    assert encoder.backbone['norm_cfg'] == dict(type='LN', eps=1e-5)
    assert any('QuickGELU' in note for note in encoder.notes)
    expected = timm_vit(weights, image(), eps=1e-5)
    assert_equal(features(encoder, image()), expected)
    other = convert(weights, 'file', num_heads=HEADS, norm_eps=1e-6)
    assert (features(other, image()) - expected).abs().max() > 1e-4


def test_not_square_needs_the_grid():
    weights = timm_weights(grid=(2, 4))
    with pytest.raises(WeightFormatError, match=r'9 positions are no square grid|--grid'):
        convert({**weights, 'pos_embed': torch.randn(1, 12, DIMS)}, 'file', num_heads=HEADS)
    encoder = convert(weights, 'file', num_heads=HEADS, grid=(2, 4))
    x = image((16, 32))
    assert_equal(features(encoder, x), timm_vit(weights, x))
    with pytest.raises(WeightFormatError, match='do not fit a grid of 2x3'):
        convert(weights, 'file', num_heads=HEADS, grid=(2, 3))


def test_mae_leaves_decoder_and_mask_token_out():
    extra = {
        'mask_token': (1, 1, 8),
        'decoder_pos_embed': (1, 10, 8),
        'decoder_embed.weight': (8, DIMS),
        'decoder_blocks.0.norm1.weight': (8,),
        'decoder_pred.bias': (192,),
    }
    weights = timm_weights(**extra)
    encoder = convert({'model': weights, 'epoch': 799}, 'file', num_heads=HEADS)
    assert encoder.left_out == {"MAE's decoder": 4, 'mask token': 1}
    assert_equal(features(encoder, image()), timm_vit(weights, image()))
    assert detect(weights, 'file') == ('mae', '')


def test_dinov2_from_a_teacher_with_chunked_layers():
    weights = timm_weights(**SCALES, mask_token=(1, DIMS))
    chunked = OrderedDict(
        (f'backbone.{re.sub("^blocks", "blocks.0", k)}', v) for k, v in weights.items()
    )
    checkpoint = {'teacher': {**chunked, 'dino_head.mlp.0.bias': torch.ones(3)}}
    assert detect(find_tensors(checkpoint, ''), '') == ('dinov2', 'backbone.')
    encoder = convert(checkpoint, 'file', num_heads=HEADS)
    assert encoder.left_out == {'dino_head.*, beside the encoder': 1, 'mask token': 1}
    assert_equal(features(encoder, image()), timm_vit(weights, image()))


@pytest.mark.parametrize('size', [(24, 24), (32, 48), (16, 24)])
def test_dinov2_at_other_sizes_is_metas_code(size):
    weights = timm_weights(**SCALES, mask_token=(1, DIMS))
    encoder = convert(weights, 'file', num_heads=HEADS)
    ours = export.build_encoder({**encoder.backbone, 'out_type': 'raw'}, encoder.grid).eval()
    export.load_strictly(ours, encoder.state, 'model')
    rows, columns = (n // PATCH for n in size)
    first, patches = weights['pos_embed'].split((1, 9), 1)
    if (rows, columns) != GRID:
        patches = F.interpolate(
            patches.view(1, 3, 3, DIMS).permute(0, 3, 1, 2), mode='bicubic',
            scale_factor=((rows + 0.1) / 3, (columns + 0.1) / 3),
        ).flatten(2).transpose(1, 2)  # fmt: skip
    resized = {**weights, 'pos_embed': torch.cat((first, patches), 1)}
    with torch.no_grad():
        assert_equal(ours(image(size))[0], timm_vit(resized, image(size)))


@pytest.mark.parametrize('size', [(24, 24), (48, 24)])
def test_multimae(size):
    """Positions are resampled as MultiMAE does it, so other sizes are equal too."""
    weights = multimae_weights()
    encoder = convert({'model': weights}, 'file', num_heads=HEADS)
    assert encoder.backbone['final_norm'] is False
    assert encoder.left_out == {
        'input adapters of other modalities': 3 - 1,
        "MultiMAE's decoders": 1,
    }
    assert_equal(features(encoder, image(size)), multimae_vit(weights, image(size)))


def test_mmpretrains_own_vit_and_mae():
    torch.manual_seed(0)
    arch = dict(embed_dims=DIMS, num_layers=1, num_heads=HEADS, feedforward_channels=48)
    plain = MMViT(arch=arch, img_size=24, patch_size=PATCH, out_type='avg_featmap')
    for p in plain.parameters():
        torch.nn.init.normal_(p)
    encoder = convert(plain.state_dict(), 'file', num_heads=HEADS)
    assert encoder.left_out == {'norm of averaged features': 2}
    plain.out_type = 'raw'
    plain.eval()  # returns None
    assert_equal(features(encoder, image()), plain(image())[0])

    with DefaultScope.overwrite_default_scope('mmpretrain'):
        mae = MAE(
            backbone=dict(type='MAEViT', arch=arch, img_size=24, patch_size=PATCH),
            neck=dict(
                type='MAEPretrainDecoder', num_patches=9, patch_size=PATCH, embed_dim=DIMS,
                decoder_embed_dim=24, decoder_depth=1, decoder_num_heads=3,
            ),
            head=dict(
                type='MAEPretrainHead', patch_size=PATCH,
                loss=dict(type='PixelReconstructionLoss', criterion='L2'),
            ),
        )  # fmt: skip
    encoder = convert({'state_dict': mae.state_dict()}, 'file', num_heads=HEADS)
    assert set(encoder.left_out) == {'neck.*, beside the encoder'}
    mae.eval()
    assert_equal(features(encoder, image()), mae.backbone(image(), mask=None)[0])


def test_other_normalisation_is_absorbed_exactly():
    weights, mean, std = timm_weights(), (0.5, 0.4, 0.6), (0.5, 0.3, 0.2)
    colours = torch.rand(2, 3, 24, 24, generator=torch.Generator().manual_seed(2))

    def apply(m, s):
        return (colours - torch.tensor(m)[:, None, None]) / torch.tensor(s)[:, None, None]

    encoder = convert(weights, 'file', num_heads=HEADS, input_norm=(mean, std))
    expected = timm_vit(weights, apply(mean, std))
    assert_equal(features(encoder, apply(IMAGENET_MEAN, IMAGENET_STD)), expected)
    bare = without(weights, 'patch_embed.proj.bias')
    encoder = convert(
        {**bare, **filled(NORM_PRE)}, 'file', num_heads=HEADS, input_norm=(mean, std), norm_eps=1e-6
    )
    expected = timm_vit({**bare, **filled(NORM_PRE)}, apply(mean, std))
    assert_equal(features(encoder, apply(IMAGENET_MEAN, IMAGENET_STD)), expected)


@pytest.mark.parametrize('name', [n for n in VARIANTS if 'position' not in n])
def test_to_timm_and_back(name):
    weights = VARIANTS[name][0]()
    encoder = convert(weights, 'file', num_heads=HEADS)
    renamed = to_timm(encoder.state)
    kept = without(weights, 'head.', 'fc_norm.')
    if name == 'gated':
        kept = {
            k.replace('mlp.w12', 'mlp.fc1').replace('mlp.w3', 'mlp.fc2'): v for k, v in kept.items()
        }
    assert renamed.keys() == kept.keys()
    assert all(torch.equal(renamed[k], v) for k, v in kept.items())


# ---------------------------------------------------------------- what is refused, and told


@pytest.mark.parametrize(
    ('extra', 'why'),
    [
        ({'dist_token': (1, 1, DIMS)}, 'distillation token'),
        ({'reg_token': (1, 4, DIMS)}, 'register tokens'),
        ({'register_tokens': (1, 4, DIMS)}, 'register tokens'),
        ({'storage_tokens': (1, 4, DIMS), 'rope_embed.periods': (4,)}, 'rotary position'),
        ({'blocks.0.attn.relative_position_bias_table': (9, 3)}, 'relative position'),
        ({'blocks.0.attn.q_norm.weight': (8,)}, 'norms inside the attention'),
        ({'blocks.0.attn.q_bias': (DIMS,)}, 'another form'),
        ({'patch_embed.norm.weight': (DIMS,)}, 'another patch embedding'),
        ({'blocks.0.gamma_1': (DIMS,)}, r'1 tensors have no place in a plain ViT: blocks\.0'),
        ({'cls_norm.weight': (DIMS,)}, 'have no place'),
    ],
)
def test_what_a_plain_vit_cannot_compute_is_refused(extra, why):
    with pytest.raises(WeightFormatError, match=rf'weights\.pth: .*{why}'):
        convert(timm_weights(**extra), 'weights.pth', num_heads=HEADS)


def test_no_position_embedding_several_global_tokens_and_odd_patches_are_refused():
    with pytest.raises(WeightFormatError, match=r'no position embedding.*DINOv3'):
        convert(without(timm_weights(), 'pos_embed'), 'file', num_heads=HEADS)
    with pytest.raises(WeightFormatError, match='has 2 global tokens'):
        convert(multimae_weights(tokens=2), 'file', num_heads=HEADS)
    for shape in ((DIMS, 4, 8, 8), (DIMS, 3, 8, 4)):
        odd = {**timm_weights(), 'patch_embed.proj.weight': torch.zeros(shape)}
        with pytest.raises(WeightFormatError, match='RGB input and square patches'):
            convert(odd, 'file', num_heads=HEADS)


def test_damaged_values_are_refused():
    weights = timm_weights()
    weights['blocks.1.mlp.fc2.bias'][3] = float('nan')
    with pytest.raises(WeightFormatError, match=r'NaN or infinity in layers\.1\.ffn'):
        convert(weights, 'file', num_heads=HEADS)
    weights['blocks.1.mlp.fc2.bias'] = torch.zeros(DIMS, dtype=torch.int64)
    with pytest.raises(WeightFormatError, match='not floating-point'):
        convert(weights, 'file', num_heads=HEADS)


def test_heads_are_looked_up_by_size_or_asked_for():
    with pytest.raises(WeightFormatError, match='--num-heads'):
        convert(timm_weights(), 'file')
    with pytest.raises(WeightFormatError, match='not divisible by 5'):
        convert(timm_weights(), 'file', num_heads=5)
    sizes = dict(embed_dims=192, num_layers=12, feedforward_channels=768)
    model = MMViT(arch={**sizes, 'num_heads': 3}, img_size=32)
    encoder = convert(model.state_dict(), 'file')
    assert encoder.backbone['arch'] == 'deit-tiny'
    assert any("3 attention heads, as 'deit-tiny'" in note for note in encoder.notes)
    assert convert(model.state_dict(), 'file', num_heads=6).backbone['arch']['num_heads'] == 6


def test_half_precision_becomes_float32_with_the_same_values():
    half = OrderedDict((k, v.half()) for k, v in timm_weights().items())
    encoder = convert(half, 'file', num_heads=HEADS)
    whole = convert({k: v.float() for k, v in half.items()}, 'file', num_heads=HEADS)
    assert all(
        v.dtype == torch.float32 and torch.equal(v, whole.state[k])
        for k, v in encoder.state.items()
    )


def test_several_encoders_need_a_prefix():
    both = {f'{n}.{k}': v for n in ('student', 'teacher') for k, v in timm_weights().items()}
    both = {'state_dict': {k: v + k.startswith('student') for k, v in both.items()}}
    with pytest.raises(WeightFormatError, match=r"2 encoders, under 'student\.', 'teacher\.'"):
        convert(both, 'file', num_heads=HEADS)
    encoder = convert(both, 'file', prefix='teacher', num_heads=HEADS)
    assert torch.equal(encoder.state['ln1.bias'], timm_weights()['norm.bias'])
    with pytest.raises(WeightFormatError, match=r"found under 'head\.'"):
        convert(both, 'file', prefix='head', num_heads=HEADS)


@pytest.mark.parametrize(
    ('key', 'what'),
    [
        ('conv_proj.weight', 'torchvision'),
        ('layer1.0.conv1.weight', 'convolutional'),
        ('rope_embed.periods', 'rotary'),
        ('something', 'no ViT encoder'),
    ],
)
def test_others_are_named(key, what):
    with pytest.raises(WeightFormatError, match=what):
        convert({key: torch.zeros(2)}, 'file')
    with pytest.raises(WeightFormatError, match='no tensors by name'):
        convert({'model': {}, 'epoch': 1}, 'file')


def test_another_source_than_was_said():
    with pytest.raises(WeightFormatError, match='has the names of multimae, not of timm'):
        convert(multimae_weights(), 'file', kind='timm', num_heads=HEADS)
    one, other = (
        convert(timm_weights(), 'file', kind=kind, num_heads=HEADS) for kind in ('mae', 'auto')
    )
    assert one.backbone == other.backbone


def test_foreign_names_are_recognised_for_messages():
    assert 'has the names of timm.' in conversion_hint({'model': timm_weights()}, 'a.pth')
    assert 'has the names of multimae.' in conversion_hint(multimae_weights(), 'a.pth')
    encoder = convert(timm_weights(), 'file', num_heads=HEADS)
    assert conversion_hint({'state_dict': copy.copy(encoder.state)}, 'a.pth') == ''
    assert conversion_hint({'epoch': 1}, 'a.pth') == ''
