"""The probe as a hook of a pre-training: it changes nothing, and says what the report card says."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from mmmask3d.apis.report_card import ReportOptions, report_encoders
from mmmask3d.engine.probe_hook import ProbeHook, _targets
from mmmask3d.engine.run_config import load_config
from mmmask3d.evaluation.frames import Frame
from mmmask3d.registry import MODELS

ROOT = Path(__file__).parents[2]
HOOK = """
probed = dict(type='RGBDDataset', data_root={root!r}, img_suffix='.png', pipeline=[
    dict(type='LoadRGBD'), dict(type='RGBDResize', scale=(48, 32)), dict(type='PackRGBDInputs')])
custom_hooks = [dict(type='ProbeHook', train_dataset=probed, val_dataset=probed, interval=1)]
"""


def pretrain(config, folder):
    cfg = load_config(config)
    cfg.work_dir = str(folder)
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner


def test_hook_logs_and_leaves_the_training_alone(make_tiny_config, tmp_path):
    (tmp_path / 'a').mkdir()
    config = make_tiny_config(tmp_path / 'a')
    plain = pretrain(config, tmp_path / 'plain')
    with_hook = tmp_path / 'with_hook.py'
    root = str(tmp_path / 'a' / 'frames')
    with_hook.write_text(config.read_text() + HOOK.format(root=root))
    probed = pretrain(with_hook, tmp_path / 'probed')
    for ours, theirs in zip(plain.model.parameters(), probed.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    log = next((tmp_path / 'probed').glob('*/vis_data/scalars.json')).read_text()
    lines = [json.loads(line) for line in log.splitlines()]
    steps = [line['step'] for line in lines if 'probe/linear_rmse' in line]
    assert steps == [1, 2]
    assert all(line['probe/knn_abs_rel'] > 0 for line in lines if 'probe/knn_abs_rel' in line)


TIMM = dict(
    type='TimmViT', model='vit_tiny_patch16_224.augreg_in21k', patch_size=8, img_size=(32, 48),
    model_args=dict(depth=2, embed_dim=48),
)  # fmt: skip


@pytest.mark.parametrize('backbone', [None, TIMM], ids=['Mask3DViT', 'TimmViT'])
def test_hook_and_report_card_give_the_same_figures(backbone, tiny_config, tmp_path):
    """Also with the normalisation of timm's weights, 0.5 for this model, in both."""
    cfg = load_config(tiny_config)
    cfg.model.backbone = backbone or cfg.model.backbone
    init_default_scope('mmmask3d')
    model = MODELS.build(cfg.model)
    model.init_weights()
    pipeline = [dict(type='LoadRGBD'), dict(type='PackRGBDInputs')]
    data = dict(cfg.val_dataloader.dataset, pipeline=pipeline)
    hook = ProbeHook(data, dict(data, indices=5))
    hook.before_train(None)
    logged = {}
    runner = SimpleNamespace(
        model=model,
        epoch=0,
        visualizer=SimpleNamespace(add_scalars=lambda scalars, step: logged.update(scalars)),
        logger=SimpleNamespace(info=print),
    )
    hook.after_train_epoch(SimpleNamespace(**vars(runner), max_epochs=1))
    meta = {'cfg': cfg.pretty_text}
    torch.save({'state_dict': model.state_dict(), 'meta': meta}, tmp_path / 'epoch_1.pth')
    cfg.train_dataloader.dataset = data
    cfg.val_dataloader.dataset = dict(data, indices=5)
    options = ReportOptions(parts=['depth', 'normals'], pictures=0)
    card = report_encoders([cfg], {'a': [str(tmp_path / 'epoch_1.pth')]}, options)
    compared = 0
    for part, prefix in (
        ('depth/linear', 'linear'),
        ('depth/knn', 'knn'),
        ('normals/linear', 'normals_linear'),
    ):
        figures = card.results['parts'][part]['figures']['a']
        assert figures == {key: logged[f'probe/{prefix}_{key}'] for key in figures}
        compared += len(figures)
    assert len(logged) == compared


def test_depth_without_any_plane_is_probed_without_normals():
    depth = torch.zeros(24, 32)
    depth[::8, ::8] = 2.0  # no window holds enough readings for a plane
    image = torch.zeros(3, 24, 32, dtype=torch.uint8)
    frames = [[Frame(path=name, image=image, depth=depth)] for name in ('a', 'b')]
    assert list(_targets(frames)) == ['']
    for some in frames:
        some[0].depth = torch.full((24, 32), 2.0)
    assert list(_targets(frames)) == ['', 'normals_']


def test_hook_finds_mistakes_before_the_training(make_tiny_config, tmp_path):
    config = make_tiny_config(tmp_path)
    with_hook = tmp_path / 'with_hook.py'
    with_hook.write_text(config.read_text() + HOOK.format(root=str(tmp_path / 'nowhere')))
    with pytest.raises(FileNotFoundError, match='nowhere'):
        pretrain(with_hook, tmp_path / 'probed')
    assert not list((tmp_path / 'probed').glob('epoch_*.pth'))


def test_hook_ends_every_process_when_the_main_one_fails(make_tiny_config, tmp_path, run_ranks):
    """Else the others would wait until their timeout."""
    config = make_tiny_config(tmp_path)
    with_hook = tmp_path / 'with_hook.py'
    text = HOOK.format(root=str(tmp_path / 'frames')).replace('interval=1', "methods=('none',)")
    with_hook.write_text(config.read_text() + text)
    for code, output in run_ranks(
        ROOT / 'tools/train.py', with_hook, '--work-dir', tmp_path / 'run'
    ):
        assert code == 1
        assert "the probe failed in the main process: ValueError: method must be 'linear'" in output
