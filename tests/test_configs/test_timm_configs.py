"""Configs with an encoder of timm: one training step of each, at width 48 and a few layers."""

from pathlib import Path

import pytest
import torch
from mmdet.testing import demo_mm_inputs
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import PixelData
from mmpretrain.structures import DataSample
from mmseg.structures import SegDataSample

from mmmask3d.engine.run_config import load_config

CONFIGS = Path(__file__).parents[2] / 'configs'
ENCODERS = ('dinov2-small', 'dinov2-base', 'dinov3-small', 'dinov3-base', 'mae-base')
# At width 48 a base encoder is the small one.
every_kind = pytest.mark.parametrize('name', ['dinov2-small', 'dinov3-small', 'mae-base'])
SIZE = (96, 128)


def build(path):
    cfg = load_config(CONFIGS / path)
    init_default_scope(cfg.default_scope)
    encoder = cfg.model.backbone.get('encoder', cfg.model.backbone)
    assert encoder.pretrained is True
    encoder.pretrained = None
    encoder.model_args = dict(embed_dim=48, num_heads=3)
    if 'neck' in cfg.model and cfg.model.neck.type == 'Feature2Pyramid':
        narrow = dict(neck=dict(embed_dim=48, norm_cfg=dict(type='BN')))
        narrow['decode_head'] = dict(in_channels=[48] * 4, channels=48, norm_cfg=dict(type='BN'))
        narrow['auxiliary_head'] = dict(in_channels=48, norm_cfg=dict(type='BN'))
        for key, value in narrow.items():
            cfg.model[key].update(value)
    if 'roi_head' in cfg.model:  # a few regions instead of a thousand
        cfg.model.train_cfg.rpn_proposal.max_per_img = 24
        cfg.model.train_cfg.rcnn.sampler.num = 12
        cfg.model.roi_head.bbox_head.fc_out_channels = 64
    torch.manual_seed(0)
    return MODELS.build(cfg.model).train(), cfg


def step(model, data):
    """Gradients of one step; every layer of the encoder has some."""
    batch = model.data_preprocessor(data, True)
    total, _ = model.parse_losses(model(**batch, mode='loss'))
    assert total.isfinite()
    total.backward()
    encoder = getattr(model.backbone, 'vit', model.backbone)
    assert encoder.patch_size == 16
    norms = [block.attn.qkv.weight.grad.norm() for block in encoder.trunk.blocks]
    assert len(norms) == 12
    assert min(norms) > 0


@every_kind
def test_pretraining(name):
    model, _ = build(f'mask3d/mask3d_{name}_2xb64-amp-400e_nyuv2-240x320.py')
    generator = torch.Generator().manual_seed(0)
    masks = [torch.randperm(48, generator=generator) >= 10 for _ in range(2)]
    inputs = dict(
        img=[torch.randint(0, 256, (3, *SIZE), dtype=torch.uint8) for _ in masks],
        depth=[1 + torch.rand(1, *SIZE) for _ in masks],
        valid=[torch.ones(1, *SIZE, dtype=torch.bool) for _ in masks],
        rgb_mask=masks,
        depth_mask=masks[::-1],
    )
    samples = [DataSample(metainfo=dict(depth_kind='metric')) for _ in masks]
    step(model, dict(inputs=inputs, data_samples=samples))


@pytest.mark.parametrize('name', ENCODERS)
@pytest.mark.parametrize('data', ['8xb64-amp-100e_scannet', '2xb64-amp-400e_nyuv2'])
def test_rate_of_pretraining(name, data):
    cfg = load_config(CONFIGS / f'mask3d/mask3d_{name}_{data}-240x320.py')
    scratch = 1.5e-4 * cfg.auto_scale_lr.base_batch_size / 256
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(scratch / 5)


@every_kind
def test_segmentation(name):
    model, _ = build(f'segmentation/{name}_upernet_nyuv2-40-240x320.py')
    labels = [torch.randint(0, 40, (1, *SIZE)) for _ in range(2)]
    samples = [
        SegDataSample(
            gt_sem_seg=PixelData(data=label), metainfo=dict(ori_shape=SIZE, img_shape=SIZE)
        )
        for label in labels
    ]
    images = [torch.randint(0, 256, (3, *SIZE), dtype=torch.uint8) for _ in labels]
    step(model, dict(inputs=images, data_samples=samples))


@every_kind
def test_detection(name):
    model, _ = build(f'detection/{name}_mask-rcnn-pyramid_nyuv2-240x320.py')
    step(model, demo_mm_inputs(2, [(3, *SIZE)] * 2, num_classes=37, with_mask=True))
