"""A run that was killed and resumed ends with the same weights, bit for bit."""

import multiprocessing
import os
import signal
import sys
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner

from mmmask3d.checkpoints.files import load_checkpoint_file
from mmmask3d.engine import run_config
from mmmask3d.models import Mask3DViT
from mmmask3d.registry import LOOPS
from mmmask3d.weights.extraction import extract

# 8 frames in batches of 2: four iterations an epoch, three epochs
LAST = 'epoch_3.pth'
EPOCHS = {'train_cfg.max_epochs': 3, 'train_cfg.val_interval': 2}
WITHIN = {'default_hooks.checkpoint.by_epoch': False, 'default_hooks.checkpoint.interval': 2}
WORKERS = {'train_dataloader.num_workers': 2}


def train_here(config, work_dir, options, resume=None, hooks=()):
    cfg = run_config.load_config(config, str(work_dir), options)
    cfg.experiment_name = f'{Path(config).stem}_{work_dir.parent.name}_{work_dir.name}_{resume}'
    run_config.apply_resume(cfg, resume, print)
    runner = Runner.from_cfg(cfg)
    for hook in hooks:
        runner.register_hook(hook)
    runner.train()


class KillHook(Hook):
    """Kill the process after an iteration, without any chance to clean up."""

    priority = 'LOWEST'

    def __init__(self, at):
        self.at = at

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter + 1 == self.at:
            os.kill(os.getpid(), signal.SIGKILL)


def kill_at(iteration, config, work_dir, options):
    """Train in a process of its own that is killed right after an iteration (from 1)."""
    process = multiprocessing.get_context('fork').Process(
        target=train_here, args=(config, work_dir, options), kwargs={'hooks': [KillHook(iteration)]}
    )
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    (log,) = work_dir.rglob('*.log')
    assert f'Epoch(train) [2][{iteration - 4}/4]' in log.read_text()


def last_of(work_dir):
    names = sorted(path.name for path in work_dir.glob('*.pth'))
    newest = LAST if LAST in names else 'iter_12.pth'
    return load_checkpoint_file(work_dir / newest)


def differing(one, other):
    """Names of what differs between two checkpoints: weights, optimizer moments, rates."""
    names = [
        k
        for k in one['state_dict']
        if not torch.equal(one['state_dict'][k], other['state_dict'][k])
    ]
    assert one['state_dict'].keys() == other['state_dict'].keys()
    states = one['optimizer']['state'], other['optimizer']['state']
    assert states[0].keys() == states[1].keys()
    for number, state in states[0].items():
        names += [f'{number}.{k}' for k in state if not torch.equal(state[k], states[1][number][k])]
    rates = [[g['lr'] for g in ckpt['optimizer']['param_groups']] for ckpt in (one, other)]
    return names + (['lr'] if rates[0] != rates[1] else [])


@pytest.fixture(scope='module')
def uninterrupted(make_tiny_config, tmp_path_factory):
    folder = tmp_path_factory.mktemp('uninterrupted')
    train_here(make_tiny_config(folder), folder / 'whole', EPOCHS)
    return last_of(folder / 'whole')


@pytest.mark.parametrize('persistent', [False, True])
def test_killed_within_an_epoch_with_data_workers(
    tiny_config, tmp_path, uninterrupted, persistent, load_tool, monkeypatch
):
    """Killed after iteration 7, resumed from the checkpoint of iteration 6: batch 3 of epoch 2.

    The same weights as without workers.
    """
    options = {**EPOCHS, **WITHIN, **WORKERS, 'train_dataloader.persistent_workers': persistent}
    broken = tmp_path / 'broken'
    kill_at(7, tiny_config, broken, options)
    assert {p.name for p in broken.glob('*.pth')} == {'iter_2.pth', 'iter_4.pth', 'iter_6.pth'}
    if persistent:  # through the tool
        given = [f'{key}={value}' for key, value in options.items()]
        argv = ['train.py', tiny_config, '--work-dir', broken, '--resume', '--cfg-options', *given]
        monkeypatch.setattr(sys, 'argv', list(map(str, argv)))
        load_tool('train.py').main()
        log = max(broken.rglob('*.log'), key=lambda path: path.parent.name).read_text()
        assert 'Continuing in epoch 2 at batch 3 of 4' in log
        assert 'Epoch(train) [2][3/4]' in log
        assert 'Epoch(train) [2][2/4]' not in log
    else:
        train_here(tiny_config, broken, options, resume='auto')
    assert differing(last_of(broken), uninterrupted) == []


def test_killed_after_an_epochs_checkpoint(tiny_config, tmp_path, uninterrupted):
    """The iterations after the checkpoint are done again. Workers come and go: same weights."""
    broken = tmp_path / 'broken'
    kill_at(6, tiny_config, broken, {**EPOCHS, **WORKERS})
    assert [p.name for p in broken.glob('*.pth')] == ['epoch_1.pth']
    train_here(tiny_config, broken, EPOCHS, resume='auto')
    assert differing(last_of(broken), uninterrupted) == []


def stop_at(iteration):
    """As a kill, but in this process: the run raises and nothing after the iteration happens."""

    @LOOPS.register_module(name='StoppingLoop', force=True)
    class StoppingLoop(LOOPS.get('mmmask3d.ResumableEpochBasedTrainLoop')):
        def run_iter(self, idx, data_batch):
            if self._iter == iteration:
                raise KeyboardInterrupt
            super().run_iter(idx, data_batch)

    return {'train_cfg.type': 'StoppingLoop'}


def test_stopped_at_the_end_of_an_epoch(tiny_config, tmp_path, uninterrupted):
    """Its last iteration, by a checkpoint of iterations: the next epoch is not begun twice."""
    done = 4
    options = {**EPOCHS, **WITHIN, 'default_hooks.checkpoint.interval': 1}
    broken = tmp_path / 'broken'
    with pytest.raises(KeyboardInterrupt):
        train_here(tiny_config, broken, {**options, **stop_at(done)})
    assert (broken / f'iter_{done}.pth').exists()
    assert not (broken / f'iter_{done + 1}.pth').exists()
    train_here(tiny_config, broken, options, resume='auto')
    assert differing(last_of(broken), uninterrupted) == []


def test_with_an_encoder_of_timm(tiny_config, tmp_path):
    """Stopped in its second epoch; rotary positions, registers and dropped paths."""
    backbone = dict(
        _delete_=True,
        type='TimmViT',
        model='vit_small_patch16_dinov3',
        model_args=dict(embed_dim=48, depth=2, num_heads=3),
        img_size=(32, 48),
        patch_size=8,
        drop_path_rate=0.1,
    )
    config = tmp_path / 'timm.py'
    config.write_text(f"_base_ = './tiny.py'\nmodel = dict(backbone={backbone!r})\n")
    options = {**EPOCHS, **WITHIN}
    train_here(config, tmp_path / 'whole', options)
    with pytest.raises(KeyboardInterrupt):
        train_here(config, tmp_path / 'broken', {**options, **stop_at(6)})
    train_here(config, tmp_path / 'broken', options, resume='auto')
    found = last_of(tmp_path / 'broken')
    assert 'backbone.trunk.reg_token' in found['state_dict']
    assert differing(found, last_of(tmp_path / 'whole')) == []


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason='torch finds no CUDA GPU here')
def test_deterministic_on_a_gpu_in_bf16(tiny_config, tmp_path):
    """Stopped in its second epoch."""
    options = {
        **EPOCHS, **WITHIN, 'randomness.deterministic': True,
        'optim_wrapper.type': 'AmpOptimWrapper', 'optim_wrapper.dtype': 'bfloat16',
    }  # fmt: skip
    train_here(tiny_config, tmp_path / 'whole', options)
    with pytest.raises(KeyboardInterrupt):
        train_here(tiny_config, tmp_path / 'broken', {**options, **stop_at(6)})
    train_here(tiny_config, tmp_path / 'broken', options, resume='auto')
    assert differing(last_of(tmp_path / 'broken'), last_of(tmp_path / 'whole')) == []


def test_validation_does_not_change_training(tiny_config, tmp_path, uninterrupted):
    train_here(tiny_config, tmp_path / 'often', {**EPOCHS, 'train_cfg.val_interval': 1})
    assert differing(last_of(tmp_path / 'often'), uninterrupted) == []


def test_without_the_saved_rng_state_the_weights_differ(tiny_config, tmp_path, uninterrupted):
    """Control: the comparison above can fail, and the loss of exactness is said."""
    broken = tmp_path / 'broken'
    with pytest.raises(KeyboardInterrupt):
        train_here(tiny_config, broken, {**EPOCHS, **stop_at(5)})
    path = broken / 'epoch_1.pth'
    checkpoint = load_checkpoint_file(path)
    del checkpoint['resume_state']
    torch.save(checkpoint, path)
    train_here(tiny_config, broken, EPOCHS, resume='auto')
    assert differing(last_of(broken), uninterrupted)
    logs = ''.join(log.read_text() for log in broken.rglob('*.log'))
    assert 'The checkpoint holds no RNG state' in logs


def test_random_order_without_a_seed_in_the_config(tiny_config, tmp_path):
    """Without randomness.seed each start draws one; a resumed run takes the first run's."""
    options = {**EPOCHS, 'randomness': {'seed': None}}
    whole, broken = tmp_path / 'whole', tmp_path / 'broken'
    train_here(tiny_config, whole, options)
    broken.mkdir()
    (whole / 'epoch_1.pth').rename(broken / 'epoch_1.pth')
    train_here(tiny_config, broken, options, resume='auto')
    assert differing(last_of(broken), last_of(whole)) == []


def test_changed_epoch_length_is_refused_within_an_epoch(tiny_config, tmp_path):
    options = {**EPOCHS, **WITHIN}
    with pytest.raises(KeyboardInterrupt):
        train_here(tiny_config, tmp_path / 'run', {**options, **stop_at(3)})
    with pytest.raises(RuntimeError, match=r'after batch 2 of 4 of epoch 1, but this run has 2'):
        train_here(
            tiny_config,
            tmp_path / 'run',
            {**options, 'train_dataloader.batch_size': 4},
            resume='auto',
        )


def test_mmengines_own_loop_resumes_and_says_that_it_is_not_exact(tiny_config, tmp_path):
    options = {**EPOCHS, 'train_cfg.type': 'EpochBasedTrainLoop'}
    assert LOOPS.get('EpochBasedTrainLoop') is EpochBasedTrainLoop
    train_here(tiny_config, tmp_path / 'run', {**options, 'train_cfg.max_epochs': 1})
    train_here(tiny_config, tmp_path / 'run', options, resume='auto')
    assert (tmp_path / 'run' / LAST).exists()
    logs = ''.join(log.read_text() for log in (tmp_path / 'run').rglob('*.log'))
    assert 'draws data before the RNG state can be restored' in logs


LORA = """
_base_ = './tiny.py'
model = dict(
    backbone=dict(
        _delete_=True,
        type='LoRAEncoder',
        drop_rate=0.1,
        module=dict(
            type='Mask3DViT',
            arch=dict(embed_dims=48, num_layers=2, num_heads=3, feedforward_channels=96),
            img_size=(32, 48),
            patch_size=8,
            drop_path_rate=0.1,
            init_cfg=dict(type='Pretrained', checkpoint={weights!r}),
        ),
    ),
    anchor=dict(type='FeatureAnchor'),
)
custom_hooks = [dict(type='EMAHook', momentum=0.5), dict(type='DecoderFirstHook', iters=2)]
"""


class Keep(Hook):
    """Keep the runner of a training that is over."""

    def after_train(self, runner):
        self.runner = runner


def test_lora_its_average_and_a_decoder_that_goes_first(tiny_config, tmp_path):
    """By value: who waits, what is averaged and exported, what the teacher is; resumed exactly."""
    torch.manual_seed(1)
    encoder = Mask3DViT(
        arch=dict(embed_dims=48, num_layers=2, num_heads=3, feedforward_channels=96),
        img_size=(32, 48), patch_size=8,
    )  # fmt: skip
    encoder.init_weights()
    weights = str(tmp_path / 'base.pth')
    torch.save(dict(state_dict=encoder.state_dict(), meta={}), weights)
    config = tmp_path / 'lora.py'
    config.write_text(LORA.replace('{weights!r}', repr(weights)))
    options = {**EPOCHS, **WITHIN, 'default_hooks.checkpoint.interval': 1}
    keep = Keep()
    train_here(config, tmp_path / 'whole', options, hooks=[keep])

    def at(iteration, folder='whole'):
        return load_checkpoint_file(tmp_path / folder / f'iter_{iteration}.pth')

    assert 'lora_base_sha256' in at(12)['state_dict']._metadata['backbone']
    up, head = 'backbone.module.layers.1.attn.qkv.lora_up.weight', 'heads.depth.proj.weight'
    assert not at(2)['state_dict'][up].any()
    assert not torch.equal(at(1)['state_dict'][head], at(2)['state_dict'][head])
    assert at(3)['ema_state_dict'][f'module.{up}'].any()
    # state_dict holds the averages, and ema_state_dict what was trained: mmengine swaps them.
    for name in (up, head):
        before, now = at(5)['state_dict'][name], at(6)['state_dict'][name]
        torch.testing.assert_close(now, (before + at(6)['ema_state_dict'][f'module.{name}']) / 2)
        assert not torch.equal(before, now)
    last = str(tmp_path / 'whole' / 'iter_12.pth')
    extract(last, str(tmp_path / 'encoder.pth'), None, None)
    state, down = at(12)['state_dict'], up.replace('lora_up', 'lora_down')
    torch.testing.assert_close(
        load_checkpoint_file(tmp_path / 'encoder.pth')['state_dict']['layers.1.attn.qkv.weight'],
        encoder.layers[1].attn.qkv.weight.detach() + state[up] @ state[down],
    )
    model = keep.runner.model
    images = torch.rand(1, 3, 32, 48)
    with torch.no_grad():
        expected = encoder.eval()(images)[-1]
        torch.testing.assert_close(model.anchor.teacher(images)[-1], expected, rtol=0, atol=0)
        assert not torch.allclose(model.eval().backbone(images)[-1], expected)

    with pytest.raises(KeyboardInterrupt):
        train_here(config, tmp_path / 'broken', {**options, **stop_at(6)})
    train_here(config, tmp_path / 'broken', options, resume='auto')
    assert differing(at(12, 'broken'), at(12)) == []
    averages = at(12, 'broken')['ema_state_dict'], at(12)['ema_state_dict']
    torch.testing.assert_close(*averages, rtol=0, atol=0)
