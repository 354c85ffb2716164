"""Mask3DPyramid beside the ResNets it replaces, and inside the models of the three libraries."""

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope

from mmmask3d.models import Mask3DPyramid, Mask3DViT
from mmmask3d.registry import MODELS

ARCH = dict(embed_dims=48, num_layers=4, num_heads=3, feedforward_channels=96)


def make(seed=0, **kwargs):
    torch.manual_seed(seed)
    model = Mask3DPyramid(**{**dict(arch=ARCH, img_size=(64, 96)), **kwargs})
    model.init_weights()
    return model.eval()


# ---------------------------------------------------------------- the shapes of a ResNet

SIZES = [
    (800, 1333),
    (375, 500),
    (97, 65),
    (33, 31),
    (17, 200),
    (1, 15),
]
D32, D16, D8 = (4, 8, 16, 32), (4, 8, 16, 16), (4, 8, 8, 8)
ALL = (0, 1, 2, 3)
FAMILIES = {
    # a ResNet's config, and ours in its place
    'plain': ('mmdet.ResNet', dict(), D32, ALL),
    'caffe': ('mmdet.ResNet', dict(style='caffe'), D32, ALL),
    'dc5': ('mmdet.ResNet', dict(strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2)), D16, (3,)),
    'c4': (
        'mmdet.ResNet',
        dict(num_stages=3, strides=(1, 2, 2), dilations=(1, 1, 1)),
        D32,
        (2,),
    ),
    'detr': ('mmdet.ResNet', dict(), D32, (1, 2, 3)),
    'seg-d32': ('mmseg.ResNetV1c', dict(), D32, ALL),
    'seg-d16': ('mmseg.ResNetV1c', dict(strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2)), D16, ALL),
    'seg-d8': ('mmseg.ResNetV1c', dict(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4)), D8, ALL),
    'seg-v1d': ('mmseg.ResNetV1d', dict(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4)), D8, ALL),
    'classifier': ('mmpretrain.ResNet', dict(), D32, (3,)),
}


@pytest.mark.parametrize('family', FAMILIES)
def test_every_stage_has_the_shape_of_the_resnets(family):
    kind, options, strides, indices = FAMILIES[family]
    resnet = MODELS.build(dict(type=kind, depth=50, out_indices=indices, **options)).to('meta')
    resnet.eval()  # returns None in some
    ours = make(
        arch={**ARCH, 'num_layers': 1},
        out_strides=strides,
        out_indices=indices,
    ).to('meta')
    for size in SIZES:
        x = torch.empty(1, 3, *size, device='meta')  # shapes only
        found, expected = ours(x), resnet(x)
        assert isinstance(found, tuple)
        assert [o.shape for o in found] == [o.shape for o in expected], size


@pytest.mark.parametrize('size', [(65, 97), (48, 31)])
def test_shapes_of_real_tensors_too(size):
    """The meta device might round otherwise."""
    x = torch.rand(2, 3, *size)
    with torch.no_grad():
        for stage, out in enumerate(make()(x)):
            cells = [-(-side // D32[stage]) for side in size]
            assert out.shape == (2, 256 * 2**stage, *cells)
            assert out.is_contiguous()
            assert out.isfinite().all()


# ---------------------------------------------------------------- which map feeds what


def test_stages_are_fed_by_the_last_layer_or_by_one_each():
    x = torch.rand(1, 3, 40, 70)
    for choice, layers in [(-1, (3, 3, 3, 3)), (1, (1, 1, 1, 1)), ((2, 0, -1, 2), (2, 0, 3, 2))]:
        model = make(feature_indices=choice)
        plain = Mask3DViT(arch=ARCH, img_size=(64, 96), out_indices=(0, 1, 2, 3)).eval()
        plain.load_state_dict(model.vit.state_dict())
        maps = plain(x)
        expected = model.pyramid([maps[i] for i in layers], (40, 70))
        for a, b in zip(model(x), expected, strict=True):
            torch.testing.assert_close(a, b)


def test_stages_that_are_returned_keep_their_layer():
    x = torch.rand(1, 3, 32, 32)
    torch.manual_seed(0)
    model = make(feature_indices=(0, 1, 2, 3), out_indices=(3, 1))
    assert model.out_indices == (1, 3)
    assert model.vit.out_indices == (1, 3)
    assert [o.shape[1] for o in model(x)] == [512, 2048]
    assert len(model.pyramid.levels) == 2


def test_every_parameter_is_trained():
    """What is built and not used stops distributed training."""
    for options in (dict(), dict(out_indices=(2,)), dict(feature_indices=(0, 1, 2, 3))):
        model = make(**options).train()
        sum(o.square().mean() for o in model(torch.rand(2, 3, 32, 48))).backward()
        assert [n for n, p in model.named_parameters() if p.grad is None] == []


def test_batch_of_one_gives_what_a_larger_one_gives():
    model, x = make().train(), torch.rand(3, 3, 32, 48)
    together = model(x)
    for i in range(3):
        for a, b in zip(model(x[i : i + 1]), together, strict=True):
            torch.testing.assert_close(a[0], b[i], rtol=1e-4, atol=1e-5)


# ---------------------------------------------------------------- weights


@pytest.fixture
def encoder_file(tmp_path):
    source = Mask3DViT(arch=ARCH, img_size=(64, 96))
    with torch.no_grad():
        for p in source.parameters():
            p.normal_()
    path = str(tmp_path / 'epoch_1.pth')
    state = {f'backbone.{k}': v for k, v in source.state_dict().items()}
    torch.save(dict(state_dict={**state, 'neck.weight': torch.zeros(1)}, meta={}), path)
    return path, source.state_dict()


@pytest.mark.parametrize('way', ['init_cfg', 'prefix', 'pretrained'])
def test_encoder_is_filled_and_the_pyramid_keeps_its_start(way, encoder_file):
    path, weights = encoder_file
    init = dict(type='Pretrained', checkpoint=path)
    options = dict(
        init_cfg=dict(init_cfg=init),
        prefix=dict(init_cfg=dict(**init, prefix='backbone.')),
        pretrained=dict(pretrained=path),
    )[way]
    model = make(**options)
    model.init_weights()
    for key, value in model.vit.state_dict().items():
        assert torch.equal(value, weights[key]), key
    for level, shrink in zip(model.pyramid.levels, (0.5, 0.5**0.5, 1, 1), strict=True):
        assert torch.equal(level.norm.weight, torch.ones_like(level.norm.weight))
        assert float(level.project.weight.std()) == pytest.approx(48**-0.5 / shrink, rel=0.1)


def test_wrong_file_is_an_error_that_lists_keys(tmp_path):
    path = str(tmp_path / 'resnet.pth')
    torch.save({'layer1.0.conv1.weight': torch.zeros(1)}, path)
    with pytest.raises(RuntimeError, match=r'missing in the file(.|\n)*layer1\.0\.conv1\.weight'):
        make(init_cfg=dict(type='Pretrained', checkpoint=path))


def test_frozen_stages_leave_the_pyramid_alone():
    model = make(frozen_stages=4).train()
    assert not any(p.requires_grad for p in model.vit.parameters())
    assert all(p.requires_grad for p in model.pyramid.parameters())
    sum(o.mean() for o in model(torch.rand(1, 3, 32, 48))).backward()


# ---------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ('options', 'error', 'message'),
    [
        (dict(depth=50, norm_eval=True), TypeError, r'no depth, norm_eval\..*_delete_=True'),
        (dict(style='pytorch'), TypeError, 'no style'),
        (dict(out_type='raw'), TypeError, 'multiple values for keyword argument .out_type'),
        (dict(windows=14), TypeError, 'has no windows'),
        (dict(out_indices=(0, 4)), ValueError, r'out_indices=\(0, 4\).*feature_indices'),
        (dict(out_indices=()), ValueError, r'out_indices=\(\)'),
        (dict(out_strides=(4, 8, 16)), ValueError, r'3 stages and out_channels=.* has 4'),
        (dict(feature_indices=(1, 2)), ValueError, r'feature_indices=\(1, 2\).*4 stages'),
        (dict(patch_size=14), ValueError, 'stride 4 cannot be made from patches of 14'),
    ],
)
def test_wrong_settings(options, error, message):
    with pytest.raises(error, match=message):
        make(**options)


# ---------------------------------------------------------------- inside whole models

BACKBONE = dict(type='mmmask3d.Mask3DPyramid', arch=ARCH, img_size=(64, 96), window_size=3,
                global_attn_indexes=(1, 3))  # fmt: skip
BN = dict(type='BN', requires_grad=True)


def first_layer_learns(losses, model):
    total = sum(v for name, value in losses.items() if 'loss' in name for v in _as_list(value))
    total.backward()
    grad = model.backbone.vit.layers[0].attn.qkv.weight.grad
    assert grad.isfinite().all()
    assert grad.abs().sum() > 0


def _as_list(value):
    return value if isinstance(value, list) else [value]


def build(scope, **cfg):
    with DefaultScope.overwrite_default_scope(scope):
        model = MODELS.build(ConfigDict(cfg))
        model.init_weights()
    return model


def test_in_a_classifier():
    from mmpretrain.structures import DataSample

    model = build(
        'mmpretrain',
        type='mmpretrain.ImageClassifier',
        backbone=dict(**BACKBONE, out_indices=(3,)),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=3, in_channels=2048),
    )
    samples = [DataSample().set_gt_label(i) for i in range(2)]
    x = torch.rand(2, 3, 64, 96)
    first_layer_learns(model.train()(x, samples, mode='loss'), model)
    assert model.eval()(x, samples, mode='predict')[0].pred_score.shape == (3,)


def test_one_graph_under_compile():
    model = make(arch={**ARCH, 'num_layers': 1})
    torch._dynamo.reset()
    compiled = torch.compile(model, backend='eager', fullgraph=True)
    x = torch.rand(1, 3, 41, 56)
    with torch.no_grad():
        for a, b in zip(compiled(x), model(x), strict=True):
            torch.testing.assert_close(a, b)
    torch._dynamo.reset()


def test_autocast_to_bfloat16_stays_near():
    model, x = make(), torch.rand(2, 3, 40, 70)
    with torch.no_grad(), torch.autocast('cpu', torch.bfloat16):
        low = model(x)
    with torch.no_grad():
        for a, b in zip(low, model(x), strict=True):
            assert (a.float() - b).norm() / b.norm() < 0.05
