"""An exported encoder in configs: mmpretrain's transformer gives the features that ours gives."""

import pytest
import torch
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from mmmask3d.engine.run_config import load_config
from mmmask3d.models import Mask3DViT

SETTINGS = dict(arch='deit-tiny', img_size=(64, 96), patch_size=16)
# A segmentor of mmseg; which backbone it has is left open.
SEGMENTOR = """
_base_ = 'mmseg::fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py'
head = dict(in_channels=192, channels=16, num_classes=3, norm_cfg=dict(type='BN'))
model = dict(
    pretrained=None,
    data_preprocessor=dict(size=None, size_divisor=16),
    backbone=dict(
        _delete_=True,
        {backbone},
        arch='deit-tiny',
        img_size=(64, 96),
        patch_size=16,
        init_cfg=dict(type='Pretrained', checkpoint={checkpoint!r}),
    ),
    decode_head=dict(in_index=-1, num_convs=1, **head),
    auxiliary_head=dict(in_index=0, **head),
)
"""
DETECTOR = """
_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
model = dict(
    backbone=dict(
        _delete_=True,
        {backbone},
        arch='deit-tiny',
        img_size=(64, 96),
        patch_size=16,
        init_cfg=dict(type='Pretrained', checkpoint={checkpoint!r}),
    ),
    neck=dict(in_channels=[192] * 2, start_level=0, num_outs=3),
    bbox_head=dict(anchor_generator=dict(strides=[16, 16, 32])),
)
"""
PLAIN = "type='mmpretrain.VisionTransformer', out_type='featmap', out_indices=[5, 11]"
OURS = "type='mmmask3d.Mask3DViT', out_indices=(5, -1)"


@pytest.fixture
def exported(tmp_path, load_tool):
    """The file that the exporting tool makes of a checkpoint of a pre-training."""
    torch.manual_seed(0)
    model = nn.Module()
    model.backbone = Mask3DViT(**SETTINGS)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.1)
    checkpoint = tmp_path / 'epoch_1.pth'
    config = "model = dict(type='MaskedRGBD', backbone=dict(type='Mask3DViT', arch='deit-tiny', "
    config += 'img_size=(64, 96), patch_size=16))'
    torch.save(dict(state_dict=model.state_dict(), meta=dict(cfg=config)), checkpoint)
    tool = load_tool('model_converters/extract_backbone.py')
    assert tool.main([str(checkpoint), str(tmp_path / 'encoder.pth')]) == 0
    return tmp_path / 'encoder.pth'


def backbone_maps(folder, text, backbone, checkpoint, images):
    path = folder / 'config.py'
    path.write_text(text.format(backbone=backbone, checkpoint=str(checkpoint)))
    cfg = load_config(path)
    init_default_scope(cfg.default_scope)
    model = MODELS.build(cfg.model)
    model.backbone.init_weights()
    model.eval()
    batch = model.data_preprocessor(dict(inputs=list(images), data_samples=None))
    with torch.no_grad():
        return model.backbone(batch['inputs'])


@pytest.mark.parametrize('text', [SEGMENTOR, DETECTOR], ids=['segmentor', 'detector'])
def test_same_features(text, exported, tmp_path):
    if text is DETECTOR:
        pytest.importorskip('mmcv._ext', reason='mmdet needs mmcv with compiled ops')
    images = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8)
    found = backbone_maps(tmp_path, text, PLAIN, exported, images)
    expected = backbone_maps(tmp_path, text, OURS, exported, images)
    assert len(found) == len(expected) == 2
    for ours, theirs in zip(expected, found, strict=True):
        assert theirs.shape == (2, 192, 4, 6)
        assert float(theirs.std()) > 0.1
        torch.testing.assert_close(theirs, ours, rtol=1e-5, atol=1e-5)


def test_weights_that_were_not_loaded_would_be_seen(exported, tmp_path):
    """The comparison above is one of the file's weights, not of two equal initialisations."""
    images = torch.randint(0, 256, (1, 3, 64, 96), dtype=torch.uint8)
    found = backbone_maps(tmp_path, SEGMENTOR, PLAIN, exported, images)
    text = SEGMENTOR.replace('init_cfg=dict(type=', 'init_cfg=None and dict(type=')
    other = backbone_maps(tmp_path, text, OURS, exported, images)
    assert (found[1] - other[1]).abs().max() > 0.1
