"""Every ablation that docs/method.md lists trains, given to the loader as a user would give it."""

import argparse
import re
import shlex
from pathlib import Path

import pytest
import torch
from mmengine.config import DictAction
from mmengine.dataset import default_collate
from mmengine.registry import init_default_scope

import mmmask3d
from mmmask3d.datasets import resolve_masking
from mmmask3d.engine.run_config import load_config
from mmmask3d.registry import DATASETS, MODELS

REPO = Path(mmmask3d.__file__).parents[1]
CONFIG = REPO / 'configs' / 'mask3d' / 'mask3d_vit-tiny_b32-100e_rooms-240x320.py'
# Small and without a network's width to wait for; what an ablation sets comes after and wins.
SMALL = (
    'model.backbone.arch.embed_dims=48 model.backbone.arch.num_layers=2 '
    'model.backbone.arch.num_heads=2 model.backbone.arch.feedforward_channels=96 '
    'model.depth_encoder.embed_dims=48 model.depth_encoder.num_heads=2 model.fusion.embed_dims=48'
)


def section() -> str:
    """The part of docs/method.md that lists ablations."""
    return (REPO / 'docs' / 'method.md').read_text().split('\n## Ablations\n')[1].split('\n## ')[0]


def documented() -> list[tuple[str, str]]:
    """(name, options) of the table's lines."""
    rows = re.findall(r'^\| ([^|]*)\|[^|]*\| `(.*)` \|$', section(), flags=re.M)
    found, name = [], ''
    for variable, options in rows:
        name = variable.strip() or name
        found.append((f'{name}: {options}', options))
    return found


def parse(options: str) -> dict:
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    return parser.parse_args(['--cfg-options', *shlex.split(options)]).cfg_options


def test_the_table_is_read_whole():
    assert len(documented()) == section().count(' |\n') - 1 > 20  # all lines but the head


@pytest.mark.parametrize('options', [pytest.param(o, id=n) for n, o in documented()])
def test_documented_ablation_trains(options, make_rgbd_folder, tmp_path):
    make_rgbd_folder(tmp_path, 2, (80, 60))
    # Ablations of the encoder are built as they are documented, the others on a small one.
    small = {} if 'arch=' in options else parse(SMALL)
    options = parse(options)
    cfg = load_config(CONFIG)
    init_default_scope(cfg.default_scope)
    if small:
        cfg.model.backbone.arch = {}
    if options.get('model.depth_encoder', 0) is None:
        small = {k: v for k, v in small.items() if 'depth_encoder' not in k}
    if 'model.backbone.init_cfg.type' in options:
        reference = MODELS.build(dict(cfg.model.backbone, arch=arch_of(small)))
        torch.nn.init.constant_(reference.patch_embed.projection.bias, 0.25)
        torch.save(reference.state_dict(), tmp_path / 'encoder.pth')
        options['model.backbone.init_cfg.checkpoint'] = str(tmp_path / 'encoder.pth')
    cfg.merge_from_dict({**small, **options})
    resolve_masking(cfg)
    model = MODELS.build(cfg.model)
    model.init_weights()
    for name in ('train_dataloader', 'val_dataloader'):
        source = dict(data_root=str(tmp_path), ann_file='', img_suffix='.png')
        dataset = DATASETS.build({**cfg[name].dataset, **source})
        batch = default_collate([dataset[0], dataset[1]])
        inputs = model.data_preprocessor(batch)['inputs']
        losses = model(inputs, mode='loss')
        total = sum(losses.values())
        assert torch.isfinite(total)
        assert total > 0
        total.backward()
    for head in model.heads.values():
        assert head.proj.weight.grad.abs().sum() > 0
    if 'model.heads.depth.residual' not in options:  # whose last layer starts at zero
        assert model.backbone.layers[0].attn.qkv.weight.grad.abs().sum() > 0
    if 'model.backbone.init_cfg.type' in options:
        assert (model.backbone.patch_embed.projection.bias == 0.25).all()


def arch_of(small: dict) -> dict:
    prefix = 'model.backbone.arch.'
    return {k.removeprefix(prefix): v for k, v in small.items() if k.startswith(prefix)}
