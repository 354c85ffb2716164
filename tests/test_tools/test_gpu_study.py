"""The study of a GPU in miniature, on a CPU: six generated frames, encoders of width 48."""

import json
from pathlib import Path

import pytest
import torch
from mmengine.registry import init_default_scope

from mmmask3d.conversion.packing import pack
from mmmask3d.models import Mask3DViT
from mmmask3d.registry import MODELS

CONFIGS = Path(__file__).parents[2] / 'configs'
ARCH = dict(embed_dims=48, num_layers=2, num_heads=3, feedforward_channels=96)
LOADER = 'dict(batch_size=2, num_workers=0, persistent_workers=False)'
PARTS = [
    *('models/mask3d_vit-mini', 'datasets/rooms_pretrain', 'datasets/pipelines_96x128'),
    *('schedules/pretrain_adamw_100e', 'default_runtime'),
]
FRAMES = f"""
_base_ = {[f'{CONFIGS}/_base_/{part}.py' for part in PARTS]!r}
train_dataloader = dict(**{LOADER}, dataset=dict(pipeline=_base_.small_rgbd_train))
model = dict(
    backbone=dict(arch=dict(_delete_=True, **{ARCH})),
    depth_encoder=dict(embed_dims=24, num_heads=2),
    fusion=dict(embed_dims=24),
    decoders=dict(depth=dict(embed_dims=24, num_layers=1, num_heads=2)),
)
"""
LABELS = f"""
_base_ = {str(CONFIGS / 'segmentation/mask3d-mini_fcn_rooms_demo.py')!r}
train_dataloader = val_dataloader = {LOADER}
model = dict(
    backbone=dict(arch=dict(_delete_=True, **{ARCH})),
    decode_head=dict(in_channels=48, channels=16),
)
"""


@pytest.fixture
def tool(load_tool, monkeypatch):
    tool = load_tool('benchmarks/gpu_study.py')
    scratch = dict(type='mmmask3d.Mask3DViT', arch=ARCH, patch_size=8)
    monkeypatch.setattr(tool, 'SCRATCH', scratch)
    return tool


@pytest.fixture
def arguments(tmp_path, tiny_rooms):
    pack(tiny_rooms, tmp_path / 'study.lmdb')
    (tmp_path / 'frames.py').write_text(FRAMES)
    (tmp_path / 'labels.py').write_text(LABELS)
    torch.manual_seed(1)
    encoder = Mask3DViT(arch=ARCH, img_size=(96, 128), patch_size=8)
    encoder.init_weights()
    torch.save(dict(state_dict=encoder.state_dict(), meta={}), tmp_path / 'encoder.pth')
    return [
        *('--data', f'{tmp_path}/study.lmdb', '--weights', f'{tmp_path}/encoder.pth'),
        *('--frames', f'{tmp_path}/frames.py', '--labels', f'{tmp_path}/labels.py'),
        *('--epochs', '2', '--finetune-epochs', '1', '--seeds', '0'),
        *('--work-dir', f'{tmp_path}/work', '--out', f'{tmp_path}/study.json'),
    ]


@pytest.fixture
def three_methods(tool, monkeypatch):
    few = {
        'weights': {k: tool.METHODS['weights'][k] for k in ('untouched', 'mae-anchored')},
        'scratch': {'mask3d-distilled': tool.METHODS['scratch']['mask3d-distilled']},
    }
    monkeypatch.setattr(tool, 'METHODS', few)


@pytest.mark.usefixtures('three_methods')
def test_no_stage_is_started_when_time_is_up(tool, arguments, tmp_path, monkeypatch):
    monkeypatch.setattr(tool.Study, 'finetune', lambda *_: pytest.fail('time is up before'))
    clock = iter([0, 0, 30, 90, *[90] * 20])  # begun, unpacked, the first method, then no more
    monkeypatch.setattr(tool, 'time', type('Clock', (), {'monotonic': lambda: next(clock)}))
    monkeypatch.setattr(tool.Study, 'pretrain', lambda _, *of: dict(encoder=f'{of}'))
    assert tool.main([*arguments, '--minutes', '1']) == 1
    found = json.loads((tmp_path / 'study.json').read_text())
    assert found['trained'] == {'weights/untouched': [dict(encoder="('weights', 'untouched', 0)")]}
    assert found['left'] == ['weights/untouched/0/finetuned', 'weights/mae-anchored/0',
                             'scratch/mask3d-distilled/0']  # fmt: skip
    assert found['report'] is None


@pytest.mark.usefixtures('three_methods')
def test_all_stages_once(tool, arguments, tmp_path, monkeypatch):
    assert tool.main(arguments) == 0
    found = json.loads((tmp_path / 'study.json').read_text())
    names = ['weights/untouched', 'weights/mae-anchored', 'scratch/mask3d-distilled']
    assert list(found['trained']) == list(found['finetuned']) == names
    # four frames in batches of two
    assert [run['iterations'] for (run,) in found['trained'].values()] == [0, 4, 4]
    weights = [torch.load(run['encoder'])['state_dict'] for (run,) in found['trained'].values()]
    given = torch.load(tmp_path / 'encoder.pth')['state_dict']
    key = 'layers.0.attn.qkv.weight'
    assert torch.equal(weights[0][key], given[key])
    assert not torch.equal(weights[1][key], given[key])
    assert all(0 <= figures['mIoU'] <= 100 for (figures,) in found['finetuned'].values())
    parts = found['report']['parts']
    assert (
        set(parts['depth/linear']['figures']) == set(parts['labels/linear']['figures']) == {*names}
    )
    # again: nothing is run, the result is the same
    for stage in ('pretrain', 'finetune', 'report'):
        monkeypatch.setattr(tool.Study, stage, lambda *_: pytest.fail('run again'))
    assert tool.main(arguments) == 0
    assert json.loads((tmp_path / 'study.json').read_text()) == found


def test_every_method_is_a_model(tool, arguments):
    study = tool.Study(tool.parse_args(arguments))
    heads, anchored = {}, set()
    for begin, methods in tool.METHODS.items():
        for method in methods:
            cfg = study.pretraining(begin, method, 0)
            init_default_scope(cfg.default_scope)
            model = MODELS.build(cfg.model)
            heads[f'{begin}/{method}'] = (*model.heads, model.depth_encoder is not None)
            if model.anchor is not None:
                anchored.add(method)
            assert ('init_cfg' in cfg.model.backbone) == (begin == 'weights')
    assert {k: v for k, v in heads.items() if v != ('depth', True)} == {
        'weights/mae-anchored': ('rgb', False),
        'weights/rgb2depth': ('depth', False),
        'weights/rgb2depth-anchored': ('depth', False),
        'scratch/mae': ('rgb', False),
        'scratch/rgb2depth': ('depth', False),
    }
    assert anchored == {'anchor-alone', 'mae-anchored', 'rgb2depth-anchored', 'mask3d-anchored',
                        'mask3d-distilled'}  # fmt: skip
