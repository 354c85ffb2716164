import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.testing import demo_mm_inputs
from mmengine.registry import init_default_scope

from mmmask3d.engine.run_config import load_config
from mmmask3d.registry import MODELS, TRANSFORMS

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / 'tools'
CONFIG = ROOT / 'configs/detection/mask3d-tiny_mask-rcnn_rooms-240x320.py'
TOOL_OPTIONS = [
    'model.backbone.img_size=(96,128)',
    'model.rpn_head.anchor_generator.scales=[2]',
    'model.roi_head.bbox_head.fc_out_channels=64',
    'train_dataloader.batch_size=2',
    'train_dataloader.dataset.pipeline.2.scale=(128,96)',
    'train_dataloader.dataset.pipeline.3.crop_size=(96,128)',
    'test_dataloader.dataset.pipeline.1.scale=(128,96)',
    'train_cfg.max_epochs=1',
    'default_hooks.logger.interval=1',
]


def test_the_pyramid_has_the_strides_of_the_anchors():
    cfg = load_config(CONFIG)
    init_default_scope(cfg.default_scope)
    cfg.model.backbone.arch = dict(
        embed_dims=192, num_layers=12, num_heads=3, feedforward_channels=96
    )
    model = MODELS.build(cfg.model).eval()
    with torch.no_grad():
        maps = model.extract_feat(torch.zeros(1, 3, 240, 320))
    strides = [stride[0] for stride in model.rpn_head.prior_generator.strides]
    assert strides == [4, 8, 16, 32, 64]
    for found, stride in zip(maps, strides, strict=True):
        assert found.shape[1] == 256
        assert [found.shape[2], found.shape[3]] == [
            pytest.approx(size / stride, abs=1) for size in (240, 320)
        ]
    assert maps[2].shape[2:] == (15, 20)  # the grid of the pre-training, without padding


@pytest.mark.parametrize(
    'name',
    [
        'mask3d-base_mask-rcnn_nyuv2-240x320',
        'mask3d-base_mask-rcnn-pyramid_8xb1-amp_cityscapes-1024x2048',
        'mask3d-base_vitdet_8xb8-amp-100e_coco-1024x1024',
        'mask3d-tiny_retinanet_rooms-240x320',
    ],
)
def test_a_step_trains_every_parameter(name):
    """A parameter without a gradient would be an error in training with several processes."""
    cfg = load_config(CONFIG.with_name(f'{name}.py'))
    init_default_scope(cfg.default_scope)
    arch = dict(embed_dims=48, num_layers=12, num_heads=3, feedforward_channels=48)
    cfg.model.backbone.update(arch=arch, img_size=(64, 96), drop_path_rate=0.0)
    for augment in cfg.model.data_preprocessor.get('batch_augments') or ():
        augment.size = (64, 96)  # instead of 1024x1024
    if isinstance(cfg.model.neck, list):
        cfg.model.neck[0].embed_dim, cfg.model.neck[1].in_channels = 48, [48] * 4
    if 'roi_head' in cfg.model:  # a few regions instead of a thousand
        cfg.model.train_cfg.rpn_proposal.max_per_img = 24
        cfg.model.train_cfg.rcnn.sampler.num = 12
        cfg.model.roi_head.bbox_head.fc_out_channels = 64
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    classes = (cfg.model.get('bbox_head') or cfg.model.roi_head.bbox_head).num_classes
    data = demo_mm_inputs(
        2, image_shapes=[(3, 64, 96)] * 2, num_classes=classes, num_items=[3, 2], with_mask=True
    )
    losses = model.train()(**model.data_preprocessor(data, training=True), mode='loss')
    losses = [v for k, v in losses.items() if 'loss' in k]  # not the accuracy
    parts = [p for v in losses for p in (v if isinstance(v, list) else [v])]
    assert all(torch.isfinite(part) for part in parts)
    sum(parts).backward()
    vit = getattr(model.backbone, 'vit', model.backbone)
    assert vit.layers[0].attn.qkv.weight.grad.abs().sum() > 0
    untouched = [k for k, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert untouched == []


DETECTORS = sorted(p for p in CONFIG.parent.glob('*.py'))


@pytest.mark.parametrize('path', DETECTORS, ids=lambda path: path.stem)
def test_mixed_precision_is_one_that_the_operators_know(path):
    wrapper = load_config(path).optim_wrapper
    if wrapper.type == 'AmpOptimWrapper':
        assert (wrapper.dtype, wrapper.loss_scale) == ('float16', 'dynamic')


def test_why_it_is_not_bfloat16():
    """Once mmcv has the kernel, this fails, and the configs can be thought over."""
    ops = pytest.importorskip('mmcv.ops')
    boxes = torch.tensor([[0.0, 1.0, 1.0, 6.0, 6.0]])
    with pytest.raises(NotImplementedError, match='BFloat16'):
        ops.roi_align(torch.ones(1, 4, 8, 8).bfloat16(), boxes.bfloat16(), 2)


def test_vitdet_sees_one_size_in_training_and_test():
    cfg = load_config(CONFIG.with_name('mask3d-base_vitdet_8xb8-amp-100e_coco-1024x1024.py'))
    init_default_scope(cfg.default_scope)
    pre = MODELS.build(cfg.model.data_preprocessor)
    data = demo_mm_inputs(2, image_shapes=[(3, 300, 400), (3, 500, 420)], with_mask=True)
    assert pre(data, training=True)['inputs'].shape == (2, 3, 1024, 1024)
    resize, pad = (TRANSFORMS.build(step) for step in cfg.test_dataloader.dataset.pipeline[1:3])
    image = np.full((480, 640, 3), 255, np.uint8)
    padded = pad(resize(dict(img=image, img_shape=(480, 640))))['img']
    assert padded.shape == (1024, 1024, 3)
    batch = dict(inputs=[torch.from_numpy(padded).permute(2, 0, 1)], data_samples=None)
    seen = pre(batch, training=False)['inputs']
    assert seen.shape == (1, 3, 1024, 1024)
    assert seen[0, :, -1, -1].abs().max() < 0.02  # the mean colour


def test_windows_of_vitdet_reach_the_model():
    cfg = load_config(CONFIG.with_name('mask3d-base_vitdet_8xb8-amp-100e_coco-1024x1024.py'))
    init_default_scope(cfg.default_scope)
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    assert model.backbone.vit.window_size == 14
    assert model.backbone.vit.global_attn_indexes == (2, 5, 8, 11)
    assert model.backbone.vit.grid_size == (64, 64)
    norms = [type(level.norm).__name__ for level in model.neck.convs]
    assert norms == ['LayerNorm2d'] * 4


def test_training_and_evaluation_from_an_encoder(tiny_rooms, tmp_path, run_script):
    """Two iterations, and boxes and masks are evaluated against the right annotations."""
    cfg = load_config(CONFIG)
    init_default_scope(cfg.default_scope)
    backbone = MODELS.build({**cfg.model.backbone, 'img_size': (96, 128)})
    backbone.init_weights()
    encoder = tmp_path / 'encoder.pth'
    torch.save({'state_dict': backbone.state_dict()}, encoder)
    options = [
        *TOOL_OPTIONS,
        'model.backbone.init_cfg.type=Pretrained',
        f'model.backbone.init_cfg.checkpoint={encoder}',
        'val_dataloader=None',
        'val_cfg=None',
        'val_evaluator=None',
    ]
    for split in ('train', 'test'):
        loader = f'{split}_dataloader'
        options += [
            f'{loader}.dataset.data_root={tiny_rooms}',
            f'{loader}.num_workers=0',
            f'{loader}.persistent_workers=False',
        ]
    work_dir = tmp_path / 'run'
    log = run_script(TOOLS / 'train.py', CONFIG, '--work-dir', work_dir, '--cfg-options', *options)
    assert f'encoder tensors from {encoder}' in log
    assert '[1][2/2]' in log
    assert 'loss_mask' in log
    out = tmp_path / 'metrics.json'
    checkpoint = work_dir / 'epoch_1.pth'
    # Of annotations that belonged to other frames pycocotools would know none of the results.
    run_script(
        TOOLS / 'test.py', CONFIG, checkpoint, '--work-dir', work_dir, '--out', out,
        '--cfg-options', *options, 'model.test_cfg.rcnn.score_thr=0.0',
    )  # fmt: skip
    figures = json.loads(out.read_text())
    for kind in ('bbox', 'segm'):
        assert 0 <= figures[f'coco/{kind}_mAP'] <= 1  # -1: no annotation was found
