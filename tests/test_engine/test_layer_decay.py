"""Learning rate and weight decay of every parameter against hand-written tables."""

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from mmpretrain.models import VisionTransformer
from torch import nn

from mmmask3d.engine import LayerDecayOptimWrapperConstructor
from mmmask3d.models import Mask3DPyramid, Mask3DViT
from mmmask3d.registry import MODELS

ARCH = dict(embed_dims=48, num_layers=3, num_heads=3, feedforward_channels=96)
LR, WD = 1e-3, 0.05
# three layers: stem 0.5^4, layers 0.5^3, 0.5^2, 0.5^1, the norm after them and heads 1
SCALES = {
    'cls_token': 1 / 16,
    'pos_embed': 1 / 16,
    'patch_embed.': 1 / 16,
    'layers.0.': 1 / 8,
    'layers.1.': 1 / 4,
    'layers.2.': 1 / 2,
    'ln1.': 1.0,
}


def wrapper_cfg(**paramwise):
    return dict(
        type='OptimWrapper',
        constructor='mmmask3d.LayerDecayOptimWrapperConstructor',
        optimizer=dict(type='AdamW', lr=LR, weight_decay=WD),
        paramwise_cfg={'layer_decay_rate': 0.5, **paramwise},
    )


def settings(model, cfg=None):
    """(lr, weight decay) by name of what the optimizer holds."""
    wrapper = build_optim_wrapper(model, cfg or wrapper_cfg())
    names = {id(p): name for name, p in model.named_parameters()}
    found = {}
    for group in wrapper.optimizer.param_groups:
        for p in group['params']:
            assert names[id(p)] not in found
            found[names[id(p)]] = (group['lr'], group['weight_decay'])
    return found


def expected(model, prefix='backbone.'):
    """Every parameter below ``prefix`` by the table, everything else at the full rate."""
    table = {}
    for name, p in model.named_parameters():
        inside = name.removeprefix(prefix) if name.startswith(prefix) else ''
        scale = next((v for k, v in SCALES.items() if inside.startswith(k)), 1.0)
        last = name.rsplit('.', 1)[-1]
        decayed = p.ndim > 1 and last not in ('pos_embed', 'cls_token', 'mask_token')
        if p.requires_grad:
            table[name] = (pytest.approx(LR * scale, rel=1e-12), WD if decayed else 0.0)
    return table


class WithHead(nn.Module):
    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone
        self.mask_token = nn.Parameter(torch.zeros(1, 1, 48))
        self.head = nn.Sequential(nn.Conv2d(48, 5, 1), nn.BatchNorm2d(5))


@pytest.fixture(params=[Mask3DViT, VisionTransformer])
def model(request):
    return WithHead(request.param(arch=ARCH, img_size=32, patch_size=8))


def test_every_parameter_has_the_rate_and_decay_of_the_table(model):
    found = settings(model)
    assert found == expected(model)
    # a few by hand, so that the table itself is not believed blindly
    assert found['backbone.layers.0.attn.qkv.weight'] == (1.25e-4, WD)
    assert found['backbone.layers.0.attn.qkv.bias'] == (1.25e-4, 0.0)
    assert found['backbone.layers.2.ln1.weight'] == (5e-4, 0.0)
    assert found['backbone.pos_embed'] == (6.25e-5, 0.0)
    assert found['backbone.patch_embed.projection.weight'] == (6.25e-5, WD)
    assert found['head.0.weight'] == (1e-3, WD)
    assert found['head.1.weight'] == (1e-3, 0.0)
    assert found['mask_token'] == (1e-3, 0.0)


def test_depth_of_layers():
    vit = Mask3DViT(arch=ARCH, img_size=32, patch_size=8)
    names = ['cls_token', 'patch_embed.projection.bias', 'layers.0.ln1.weight', 'layers.2.ln1.bias']
    assert [vit.get_layer_depth(n) for n in names] == [(0, 5), (0, 5), (1, 5), (3, 5)]
    assert vit.get_layer_depth('ln1.weight') == (4, 5)
    assert vit.get_layer_depth('decode_head.conv_seg.weight', 'backbone.') == (4, 5)
    vit = Mask3DViT(arch=ARCH, img_size=32, patch_size=8, pre_norm=True)
    assert vit.get_layer_depth('backbone.pre_norm.weight', 'backbone.') == (0, 5)  # of the stem


@pytest.mark.parametrize('kind', ['mmmask3d.Mask3DViT', 'mmpretrain.VisionTransformer'])
def test_mmseg_encoder_decoder(kind):
    """Trap: the constructors of mmseg, mmpretrain and mmdet raise for this model."""
    with DefaultScope.overwrite_default_scope('mmseg'):
        segmentor = MODELS.build(
            dict(
                type='mmseg.EncoderDecoder',
                pretrained=None,
                backbone=dict(
                    type=kind, arch=ARCH, img_size=(32, 48), patch_size=8, out_type='featmap'
                ),
                decode_head=dict(
                    type='FCNHead',
                    in_channels=48,
                    in_index=-1,
                    channels=16,
                    num_convs=1,
                    num_classes=3,
                    norm_cfg=dict(type='BN'),
                ),
                test_cfg=dict(mode='whole'),
            )
        )
        found = settings(segmentor)
    assert found == expected(segmentor)
    heads = [v for k, v in found.items() if k.startswith('decode_head.')]
    assert heads
    assert {lr for lr, _ in heads} == {LR}


def test_pre_training_model_keeps_the_full_rate_outside_the_encoder():
    model = MODELS.build(
        dict(
            type='mmmask3d.MaskedRGBD',
            backbone=dict(type='Mask3DViT', arch=ARCH, img_size=(32, 48), patch_size=8),
            depth_encoder=dict(type='DepthEncoder', embed_dims=24, num_layers=1, num_heads=2),
            fusion=dict(type='AddFusion', embed_dims=24),
            decoders=dict(depth=dict(type='DepthDecoder', num_layers=1, num_heads=2)),
            heads=dict(depth=dict(type='DepthHead', loss=dict(type='DepthL2Loss'))),
        )
    )
    found = settings(model)
    outside = {k: v for k, v in found.items() if not k.startswith('backbone.')}
    assert {k.split('.')[0] for k in outside} == {'depth_encoder', 'fusion', 'decoders', 'heads'}
    assert {lr for lr, _ in outside.values()} == {LR}
    assert {k: v[0] for k, v in found.items()} == {k: v[0] for k, v in expected(model).items()}


def pyramid(**kwargs):
    return Mask3DPyramid(arch=ARCH, img_size=32, patch_size=8, out_strides=(4, 8, 16, 32), **kwargs)


def test_pyramid_has_the_full_rate_and_its_transformer_the_table():
    model = WithHead(pyramid())
    found = settings(model)
    assert found == expected(model, 'backbone.vit.')
    assert found['backbone.vit.layers.0.attn.qkv.weight'] == (1.25e-4, WD)
    assert found['backbone.vit.pos_embed'] == (6.25e-5, 0.0)
    assert found['backbone.pyramid.levels.0.rescale.0.weight'] == (1e-3, WD)
    assert found['backbone.pyramid.levels.3.norm.weight'] == (1e-3, 0.0)


@pytest.mark.parametrize('path', ['detector', 'student.model'])
def test_nested_backbone(path):
    model = WithHead(pyramid())
    for name in reversed(path.split('.')):
        outer = nn.Module()
        setattr(outer, name, model)
        outer.other = nn.Linear(2, 2)
        model = outer
    found = settings(model)
    assert found == expected(model, f'{path}.backbone.vit.')
    assert found[f'{path}.backbone.vit.layers.1.attn.qkv.weight'] == (2.5e-4, WD)
    assert found['other.weight'] == (1e-3, WD)


def test_two_backbones_of_which_one_is_frozen_and_one_is_no_transformer():
    """Semi-supervised detectors hold a frozen teacher; other models a second, foreign backbone."""
    model = nn.Module()
    model.student, model.teacher = WithHead(pyramid()), WithHead(pyramid())
    model.teacher.requires_grad_(False)
    model.reid = WithHead(nn.Conv2d(3, 48, 1))
    found = settings(model)
    assert not any(name.startswith('teacher.') for name in found)
    assert found['student.backbone.vit.layers.0.attn.qkv.weight'] == (1.25e-4, WD)
    assert found['reid.backbone.weight'] == (1e-3, WD)


def test_mmpretrain_classifier_whose_own_method_is_not_taken():
    cfg = dict(
        type='mmpretrain.ImageClassifier',
        backbone=dict(
            type='mmmask3d.Mask3DPyramid', arch=ARCH, img_size=32, patch_size=8, out_indices=(3,)
        ),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=3, in_channels=2048),
    )
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        classifier = MODELS.build(cfg)
    assert hasattr(classifier, 'get_layer_depth')
    found = settings(classifier)
    assert found == expected(classifier, 'backbone.vit.')
    assert found['head.fc.weight'] == (1e-3, WD)


def test_frozen_parameters_are_left_out():
    model = WithHead(Mask3DViT(arch=ARCH, img_size=32, patch_size=8))
    model.backbone.layers[0].requires_grad_(False)
    assert settings(model) == expected(model)
    model.requires_grad_(False)
    with pytest.raises(ValueError, match='every parameter of WithHead is frozen'):
        settings(model)


def test_groups_are_few_and_a_wrapped_model_is_unwrapped():
    model = WithHead(Mask3DViT(arch=ARCH, img_size=32, patch_size=8))

    class Wrapper(nn.Module):
        def __init__(self):
            super().__init__()
            self.module = model

    wrapper = build_optim_wrapper(Wrapper(), wrapper_cfg())
    # five rates, with and without decay; the stem, three layers, and the rest
    assert len(wrapper.optimizer.param_groups) == 10
    # what is logged as lr is the config's
    assert wrapper.get_lr()['base_lr'] == [LR]


def test_custom_keys():
    model = WithHead(Mask3DViT(arch=ARCH, img_size=32, patch_size=8))
    keys = {
        'head': dict(lr_mult=10.0),
        'layers.0': dict(lr_mult=2.0),
        'pos_embed': dict(decay_mult=1.0),
    }
    found = settings(model, wrapper_cfg(custom_keys=keys))
    table = expected(model)
    for name in found:
        factor = 10 if name.startswith('head') else 2 if 'layers.0' in name else 1
        assert found[name][0] == pytest.approx(table[name][0].expected * factor)
    assert found['backbone.pos_embed'][1] == WD
    assert found['backbone.cls_token'][1] == 0.0


def test_optimizer_without_weight_decay_keeps_its_own_default():
    model = WithHead(Mask3DViT(arch=ARCH, img_size=32, patch_size=8))
    cfg = wrapper_cfg()
    del cfg['optimizer']['weight_decay']
    found = settings(model, cfg)
    assert found['head.0.weight'][1] == 0.01  # AdamW's
    assert found['head.0.bias'][1] == 0.0


@pytest.mark.parametrize(
    ('paramwise', 'message'),
    [
        ({'layer_decay_rate': None}, r"'layer_decay_rate': None}; expected .* in \(0, 1\]"),
        ({'layer_decay_rate': 1.2}, r"'layer_decay_rate': 1.2}; expected .* in \(0, 1\]"),
        ({'norm_decay_mult': 0.0}, r"'norm_decay_mult': 0.0}; expected"),
        ({'custom_keys': {'head': {'lr': 1.0}}}, r"{'lr': 1.0}}}; expected .* lr_mult and"),
        ({'custom_keys': {'haed': {'lr_mult': 1.0}}}, r"custom_keys \['haed'\] fit no trainable"),
    ],
)
def test_wrong_settings(paramwise, message):
    model = WithHead(Mask3DViT(arch=ARCH, img_size=32, patch_size=8))
    with pytest.raises(ValueError, match=message):
        settings(model, wrapper_cfg(**paramwise))


def test_no_paramwise_cfg_and_no_lr():
    model = WithHead(Mask3DViT(arch=ARCH, img_size=32, patch_size=8))
    cfg = wrapper_cfg()
    del cfg['paramwise_cfg']
    with pytest.raises(ValueError, match='expected layer_decay_rate in'):
        settings(model, cfg)
    with pytest.raises(ValueError, match=r'optimizer\.lr is not set'):
        LayerDecayOptimWrapperConstructor(
            dict(optimizer=dict(type='AdamW')), dict(layer_decay_rate=0.5)
        )


def test_backbone_without_depths():
    for model in (WithHead(nn.Conv2d(3, 48, 1)), nn.Linear(3, 4)):
        with pytest.raises(TypeError, match=f'expected a backbone in {type(model).__name__} with'):
            settings(model)
