import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.registry import init_default_scope

from mmmask3d.engine.run_config import load_config
from mmmask3d.registry import MODELS

ROOT = Path(__file__).parents[2]
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


def test_training_and_evaluation_from_an_encoder(tiny_rooms, tmp_path):
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
    log = run('train.py', CONFIG, '--work-dir', work_dir, '--cfg-options', *options)
    assert f'encoder tensors from {encoder}' in log
    assert '[1][2/2]' in log
    assert 'loss_mask' in log
    out = tmp_path / 'metrics.json'
    checkpoint = work_dir / 'epoch_1.pth'
    # Of annotations that belonged to other frames pycocotools would know none of the results.
    log = run(
        'test.py', CONFIG, checkpoint, '--work-dir', work_dir, '--out', out,
        '--cfg-options', *options, 'model.test_cfg.rcnn.score_thr=0.0',
    )  # fmt: skip
    figures = json.loads(out.read_text())
    for kind in ('bbox', 'segm'):
        assert 0 <= figures[f'coco/{kind}_mAP'] <= 1  # -1: no annotation was found


def run(tool, *arguments):
    done = subprocess.run(
        [sys.executable, ROOT / 'tools' / tool, *arguments], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr
