"""What a backbone is found to give, for ResNets of all kinds and for others."""

import pytest
from mmengine.config import Config

from mmmask3d.swap.backbone import (
    Levels,
    SwapError,
    find_backbone,
    measure_levels,
    probe_backbone,
)

R50 = (256, 512, 1024, 2048)


@pytest.mark.parametrize(
    ('settings', 'expected'),
    [
        (dict(type='mmseg.ResNet', depth=50), Levels((4, 8, 16, 32), R50, (0, 1, 2, 3))),
        (
            dict(
                type='mmseg.ResNetV1c', depth=50, strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4),
                contract_dilation=True, init_cfg=dict(type='Pretrained', checkpoint='torchvision://x'),
            ),
            Levels((4, 8, 8, 8), R50, (0, 1, 2, 3)),
        ),
        (
            dict(type='mmseg.ResNetV1d', depth=18, strides=(1, 2, 2, 1), out_indices=(3,)),
            Levels((4, 8, 16, 16), (64, 128, 256, 512), (3,)),
        ),
        (
            dict(
                type='mmseg.ResNet', depth=50, num_stages=3, strides=(1, 2, 2),
                dilations=(1, 1, 1), out_indices=(2,),
            ),
            Levels((4, 8, 16), R50[:3], (2,)),
        ),
        (
            dict(type='mmseg.ResNet', depth=101, deep_stem=True, out_indices=(1, 2, 3)),
            Levels((4, 8, 16, 32), R50, (1, 2, 3)),
        ),
        # Built on the CPU: mmpretrain's initialisation does not know the meta device.
        (dict(type='mmpretrain.ResNet', depth=18, out_indices=(3,)),
         Levels((4, 8, 16, 32), (64, 128, 256, 512), (3,))),
        # No stages: what is returned is counted.
        (
            dict(type='mmpretrain.VisionTransformer', arch='deit-tiny', img_size=(256, 320),
                 out_type='featmap', out_indices=[3, 11]),
            Levels((16, 16), (192, 192), (0, 1)),
        ),
        (
            dict(type='mmseg.MixVisionTransformer', embed_dims=32, num_layers=[1, 1, 1, 1]),
            Levels((4, 8, 16, 32), (32, 64, 128, 256), (0, 1, 2, 3)),
        ),
    ],
    ids=['plain', 'd8', 'd16', 'c4', 'detr', 'classifier', 'vit', 'mit'],
)  # fmt: skip
def test_levels(settings, expected):
    before = dict(settings)
    assert measure_levels(settings) == expected
    assert settings == before


@pytest.mark.parametrize('size', [(97, 65), (33, 200)])
def test_shapes_for_sizes_that_do_not_divide(size):
    _, shapes = probe_backbone(dict(type='mmseg.ResNet', depth=18), size)
    expected = [
        (1, 64 * 2**i, -(-size[0] // (4 * 2**i)), -(-size[1] // (4 * 2**i))) for i in range(4)
    ]
    assert shapes == expected


def test_outputs_that_are_no_maps():
    vit = dict(type='mmpretrain.VisionTransformer', arch='deit-tiny', img_size=(256, 320))
    with pytest.raises(SwapError, match=r'VisionTransformer gives \[\(1, 192\)\]; expected maps'):
        measure_levels(vit)


def test_a_stride_that_is_no_whole_number():
    vit = dict(
        type='mmpretrain.VisionTransformer', arch='deit-tiny', img_size=252, patch_size=14,
        out_type='featmap',
    )  # fmt: skip
    with pytest.raises(SwapError, match=r'makes 19x23 cells of 256x320 pixels'):
        measure_levels(vit)


def test_a_mistake_of_the_settings_is_theirs():
    with pytest.raises(SwapError, match=r'cannot be built.*invalid depth 51'):
        measure_levels(dict(type='mmseg.ResNet', depth=51))


def model(**entries):
    return Config(dict(model=dict(type='X', **entries)))


def test_finding():
    backbone = dict(type='ResNet', depth=50, norm_cfg=dict(type='BN'))
    assert find_backbone(model(backbone=backbone)) == backbone
    nested = model(detector=dict(type='Y', backbone=backbone), neck=dict(type='Z'))
    assert find_backbone(nested, 'model.detector.backbone') == backbone
    with pytest.raises(
        SwapError, match=r'no backbone at model\.backbone\. Found: model\.detector\.backbone \(Res'
    ):
        find_backbone(nested)
    with pytest.raises(SwapError, match='Found: none at all'):
        find_backbone(model(head=dict(type='Z')))
    with pytest.raises(SwapError, match='expected a config with a model; found the entries a'):
        find_backbone(Config(dict(a=1)))


def test_a_backbone_around_another():
    inner = dict(type='ResNet', depth=18)
    cfg = model(backbone=dict(type='BiSeNetV1', backbone_cfg=inner))
    with pytest.raises(SwapError, match=r'Swap that one: --path model\.backbone\.backbone_cfg'):
        find_backbone(cfg)
    assert find_backbone(cfg, 'model.backbone.backbone_cfg') == inner
