"""The configs of docs/backbones.md are built, and its table of sizes is what comes out."""

import re
from pathlib import Path

import pytest
import timm
import torch

from mmmask3d.models import Mask3DPyramid, TimmViT
from mmmask3d.registry import MODELS

TEXT = (Path(__file__).parents[2] / 'docs/backbones.md').read_text()
BLOCKS = re.findall(r'```python\n(.*?)```', TEXT, re.DOTALL)
MODELS_OF_TIMM = re.findall(r'`((?:vit|deit3|eva02|aimv2)_\w+\.\w+)`', TEXT)
SIZES = re.findall(r'^\| (\d+)x(\d+) \|(.+)\|$', TEXT, re.MULTILINE)


def backbone(block):
    scope = {}
    exec(block, scope)
    return scope['backbone']


def test_there_is_something_to_check():
    assert [backbone(b)['type'].removeprefix('mmmask3d.') for b in BLOCKS] == [
        *('Mask3DViT', 'Mask3DPyramid', 'TimmViT', 'Mask3DPyramid')
    ]
    assert len(MODELS_OF_TIMM) == 10
    assert len(SIZES) == 3


@pytest.mark.parametrize('block', BLOCKS[:2], ids=['vit', 'pyramid'])
def test_configs(block):
    cfg = backbone(block)
    model = MODELS.build({**cfg, 'arch': 'deit-tiny'})
    assert model.init_cfg == cfg['init_cfg'] or model.vit.init_cfg == cfg['init_cfg']
    size = cfg['img_size']
    maps = model.eval().to('meta')(torch.empty(1, 3, *size, device='meta'))
    strides = cfg.get('out_strides', (16,) * 4)
    channels = cfg.get('out_channels', (192,) * 4)
    assert [tuple(m.shape) for m in maps] == [
        (1, c, size[0] // s, size[1] // s) for c, s in zip(channels, strides, strict=True)
    ]


def test_defaults_written_out_are_the_defaults():
    cfg = backbone(BLOCKS[1])
    model = Mask3DPyramid(arch='deit-tiny')
    for key in ('out_strides', 'out_channels', 'out_indices'):
        assert getattr(model, key) == cfg[key]


@pytest.mark.parametrize(('height', 'width', 'cells'), SIZES)
def test_table_of_sizes(height, width, cells):
    model = Mask3DPyramid(arch='deit-tiny').eval().to('meta')
    maps = model(torch.empty(1, 3, int(height), int(width), device='meta'))
    assert [f'{m.shape[2]}x{m.shape[3]}' for m in maps] == [c.strip() for c in cells.split('|')]


@pytest.mark.parametrize('block', BLOCKS[2:], ids=['vit', 'pyramid'])
def test_configs_of_timm(block):
    cfg = backbone(block)
    encoder = cfg.get('encoder', cfg)
    with torch.device('meta'):
        model = MODELS.build(cfg).eval()
        maps = model(torch.empty(1, 3, 480, 640))
    built = getattr(model, 'vit', model)
    assert built.has_weights()
    assert built.grid_size == tuple(side // 16 for side in encoder['img_size'])
    strides = getattr(model, 'out_strides', (16,) * 4)
    assert [tuple(m.shape[2:]) for m in maps] == [(480 // s, 640 // s) for s in strides]


@pytest.mark.parametrize('name', MODELS_OF_TIMM)
def test_models_of_timm_exist_and_have_weights(name):
    assert name in timm.list_pretrained()
    with torch.device('meta'):
        assert TimmViT(name).num_layers in (12, 24)
