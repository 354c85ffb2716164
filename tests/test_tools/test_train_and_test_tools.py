"""tools/train.py, tools/test.py and the launchers, end to end on eight small frames."""

import json
import math
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mmmask3d.checkpoints.files import load_checkpoint_file
from mmmask3d.engine.run_config import check_amp, enable_amp

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / 'tools'


def run(*command, cwd=None, **environment):
    """Run a command to its end with this python's programs first on the PATH."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ['PATH']])
    env = {**os.environ, 'OMP_NUM_THREADS': '1', 'PATH': path, **environment}
    command = [str(part) for part in command]
    return subprocess.run(command, capture_output=True, text=True, timeout=500, cwd=cwd, env=env)


@pytest.fixture
def call(load_tool):
    """Function that calls `main` of a tool in this process, `call('train', argument, ...)`."""
    return lambda name, *arguments: load_tool(f'{name}.py').main([str(a) for a in arguments])


ONE_EPOCH = 'train_cfg.max_epochs=1'


def test_train_then_test(tiny_config, tmp_path, run_script):
    """Work directory from the config's name, in the current folder; options reach the run."""
    said = run_script(
        *(TOOLS / 'train.py', tiny_config, '--cfg-options', ONE_EPOCH),
        *('optim_wrapper.optimizer.lr=5e-4', 'masking.depth_ratio=0.75'),
        cwd=tmp_path,
    )
    work = tmp_path / 'work_dirs/tiny'
    assert [p.name for p in work.glob('*.pth')] == ['epoch_1.pth']
    cfg = Config.fromfile(work / 'tiny.py')
    assert cfg.optim_wrapper.optimizer.lr == 5e-4
    assert cfg.masking == dict(rgb_ratio=0.5, depth_ratio=0.75)
    assert 'Depth of removed patches' in said
    assert 'Traceback' not in said

    out = tmp_path / 'metrics.json'
    checkpoint = work / 'epoch_1.pth'
    run_script(
        *(TOOLS / 'test.py', tiny_config, checkpoint),
        *('--work-dir', tmp_path / 'tested', '--out', out),
        *('--cfg-options', 'masking.depth_ratio=0.75'),
    )
    metrics = json.loads(out.read_text())
    assert metrics['masked_depth/frames_metric'] == 8
    assert 0 < metrics['masked_depth/rmse'] < 10
    # what the training run measured with the same weights on the same frames and masks
    scalars = next(work.rglob('scalars.json')).read_text().splitlines()
    last = json.loads(scalars[-1])
    assert metrics['masked_depth/rmse'] == pytest.approx(last['masked_depth/rmse'], rel=1e-5)


def test_work_dir_resume_and_nothing_to_resume(tiny_config, tmp_path, call, capsys):
    work = tmp_path / 'run'
    # without workers, in a config that has them
    loader = (f'train_dataloader.{x}' for x in ('num_workers=0', 'persistent_workers=True'))
    arguments = ('train', tiny_config, '--work-dir', work, '--resume', '--cfg-options', ONE_EPOCH)
    call(*arguments, *loader, 'train_dataloader.prefetch_factor=4')
    assert f'Nothing to resume in {work}: starting a new run.' in capsys.readouterr().err
    assert (work / 'epoch_1.pth').exists()
    call('train', tiny_config, '--work-dir', work, '--resume')
    assert 'epoch_1.pth, the newest complete checkpoint' in capsys.readouterr().err
    finished = load_checkpoint_file(work / 'epoch_2.pth')
    assert finished['meta']['iter'] == 8
    # one epoch was asked for and then two: the cosine of two, before its last of eight steps
    rate = 1e-5 + (1e-3 - 1e-5) * (1 + math.cos(math.pi * 7 / 8)) / 2
    assert finished['optimizer']['param_groups'][0]['lr'] == pytest.approx(rate)
    with pytest.raises(FileNotFoundError, match=r'--resume .*epoch_7\.pth: no such checkpoint'):
        call('train', tiny_config, '--work-dir', work, '--resume', work / 'epoch_7.pth')


def test_auto_scale_lr(tiny_config, tmp_path, call):
    """Batches of 2 where the rate is meant for 4: half the rate, in every group."""
    options = ('--cfg-options', ONE_EPOCH, 'param_scheduler=None')
    for name, more in (('plain', ()), ('scaled', ('--auto-scale-lr',))):
        call('train', tiny_config, '--work-dir', tmp_path / name, *more, *options)
    rates = {
        name: {
            group['lr']
            for group in load_checkpoint_file(tmp_path / name / 'epoch_1.pth')['optimizer'][
                'param_groups'
            ]
        }
        for name in ('plain', 'scaled')
    }
    assert rates == {'plain': {1e-3}, 'scaled': {5e-4}}


def test_auto_scale_lr_without_a_base(tiny_config, tmp_path, call):
    with pytest.raises(RuntimeError, match=r'the config has no auto_scale_lr\.base_batch_size'):
        call(
            *('train', tiny_config, '--work-dir', tmp_path / 'run', '--auto-scale-lr'),
            *('--cfg-options', 'auto_scale_lr.base_batch_size=None'),
        )
    assert not (tmp_path / 'run').exists()


def test_a_warm_up_as_long_as_the_training_is_named(tiny_config, tmp_path, call):
    config = tiny_config.with_name('warm_up.py')
    config.write_text(
        f'_base_ = {tiny_config.name!r}\n'
        'steps = dict(convert_to_iter_based=True)\n'
        'param_scheduler = [\n'
        "    dict(type='LinearLR', start_factor=0.1, begin=0, end=1, **steps),\n"
        "    dict(type='CosineAnnealingLR', begin=1, **steps),\n"
        ']\n'
    )
    run = ('train', config, '--work-dir', tmp_path / 'run', '--cfg-options', ONE_EPOCH)
    with pytest.raises(ValueError, match=r'param_scheduler\.1 .* begins at epoch 1, but') as error:
        call(*run)
    assert not (tmp_path / 'run').exists()
    # the advice, taken literally, trains
    call(*run, *re.search(r'--cfg-options (.*)', str(error.value))[1].split())
    assert (tmp_path / 'run/epoch_1.pth').exists()


def test_amp_without_a_gpu_is_refused_in_plain_words(tiny_config, tmp_path, call, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with pytest.raises(RuntimeError, match='needs a GPU, and torch finds none') as error:
        call('train', tiny_config, '--work-dir', tmp_path / 'run', '--amp')
    # the advice, taken literally, trains
    advice = re.search(r'--cfg-options (\S+)', str(error.value))[1].rstrip(',.')
    assert not (tmp_path / 'run').exists()
    config = tiny_config.with_name('amp.py')
    config.write_text(
        f"_base_ = './{tiny_config.name}'\noptim_wrapper = dict(type='AmpOptimWrapper')\n"
    )
    work = ('--work-dir', tmp_path / 'run')
    with pytest.raises(RuntimeError, match='needs a GPU'):
        call('train', config, *work)
    call('train', config, *work, '--cfg-options', advice, ONE_EPOCH)
    assert (tmp_path / 'run/epoch_1.pth').exists()


def test_missing_config_and_wrong_out(tiny_config, call, capsys):
    with pytest.raises(FileNotFoundError, match=r'nowhere\.py: config file not found'):
        call('train', 'nowhere.py')
    with pytest.raises(SystemExit):
        call('test', tiny_config, 'x.pth', '--out', 'metrics.txt')
    assert 'expected a name that ends in .pkl, .pickle or .json' in capsys.readouterr().err


def test_test_tool_names_a_missing_checkpoint(tiny_config, tmp_path, call):
    with pytest.raises(FileNotFoundError, match=r'gone\.pth: checkpoint not found'):
        call('test', tiny_config, tmp_path / 'gone.pth', '--work-dir', tmp_path / 'run')


def test_a_checkpoint_of_another_model_is_neither_tested_nor_resumed(tiny_config, tmp_path, call):
    work = tmp_path / 'run'
    call('train', tiny_config, '--work-dir', work, '--cfg-options', ONE_EPOCH)
    deeper = ('--cfg-options', 'model.backbone.arch.num_layers=3')
    message = r'epoch_1\.pth does not fit MaskedRGBD(.|\n)*backbone\.layers\.2\.'
    for name, more in (('test', ()), ('train', ('--resume',))):
        chosen = [work / 'epoch_1.pth'] if name == 'test' else []
        with pytest.raises(RuntimeError, match=message):
            call(name, tiny_config, *chosen, '--work-dir', work, *more, *deeper)
    assert not (work / 'epoch_2.pth').exists()


def test_load_from_takes_part_of_a_model_but_not_nothing(tiny_config, tmp_path, call):
    work = tmp_path / 'run'
    call('train', tiny_config, '--work-dir', work, '--cfg-options', ONE_EPOCH)
    state = load_checkpoint_file(work / 'epoch_1.pth')['state_dict']
    encoder = {k.removeprefix('backbone.'): v for k, v in state.items() if 'backbone.' in k}
    torch.save({'state_dict': encoder}, tmp_path / 'encoder.pth')
    other = ('--work-dir', tmp_path / 'other', '--cfg-options', ONE_EPOCH)
    with pytest.raises(
        RuntimeError, match=r'encoder\.pth: none of its \d+ tensors fits MaskedRGBD'
    ):
        call('train', tiny_config, *other, f'load_from={tmp_path / "encoder.pth"}')
    more = ('model.decoders.depth.num_layers=2', f'load_from={work / "epoch_1.pth"}')
    call('train', tiny_config, *other, *more)
    assert (tmp_path / 'other' / 'epoch_1.pth').exists()


def test_fewer_frames_than_a_batch(tiny_config, tmp_path, call):
    with pytest.raises(ValueError, match=r'8 samples .* are fewer than batch_size=16'):
        call(
            *('train', tiny_config, '--work-dir', tmp_path / 'run'),
            *('--cfg-options', 'train_dataloader.batch_size=16'),
        )


def free_port():
    with socket.socket() as server:
        server.bind(('127.0.0.1', 0))
        return str(server.getsockname()[1])


def stand_in(folder, program):
    """A PATH on which a program prints its arguments."""
    path = folder / program
    path.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    path.chmod(0o755)
    return f'{folder}{os.pathsep}{os.environ["PATH"]}'


@pytest.mark.skipif(torch.cuda.is_available(), reason='would take GPUs; the CPU stands in for them')
def test_two_processes(tiny_config, tmp_path):
    """dist_train.sh: 8 frames, 2 processes, batches of 2: 2 iterations each."""
    work = tmp_path / 'run'
    done = run(
        *('bash', TOOLS / 'dist_train.sh', tiny_config, 2, '--work-dir', work),
        PORT=free_port(),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    checkpoint = load_checkpoint_file(work / 'epoch_2.pth')
    assert checkpoint['meta']['iter'] == 4
    assert checkpoint['resume_state']['world_size'] == 2
    assert len(checkpoint['resume_state']['rng']) == 2
    assert all(torch.isfinite(v).all() for v in checkpoint['state_dict'].values())
    scalars = next(work.rglob('scalars.json')).read_text().splitlines()
    assert json.loads(scalars[-1])['masked_depth/frames_metric'] == 8  # of both processes


def test_launcher_of_tests_passes_everything_on(tmp_path):
    """The words after `python`, by a stand-in that prints them."""
    done = run(
        *('bash', TOOLS / 'dist_test.sh', 'a b.py', 'c.pth', 2, '--out', 'metrics.json'),
        PATH=stand_in(tmp_path, 'python'),
        PORT='29512',
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert {'torch.distributed.run', '--nproc_per_node=2', '--master_port=29512'} <= set(lines)
    assert lines[-7:] == [
        *(str(TOOLS / 'test.py'), 'a b.py', 'c.pth'),
        *('--launcher', 'pytorch', '--out', 'metrics.json'),
    ]


@pytest.mark.parametrize(
    ('script', 'arguments'),
    [('dist_train.sh', []), ('dist_test.sh', ['config.py']), ('slurm_train.sh', ['partition'])],
)
def test_launchers_stop_when_arguments_are_missing(script, arguments):
    done = run('bash', TOOLS / script, *arguments)
    assert done.returncode != 0
    assert 'usage' in done.stderr
    assert script in done.stderr


def test_slurm_launcher_passes_everything_on(tmp_path):
    done = run(
        *('bash', TOOLS / 'slurm_train.sh', 'gpus', 'job', 'a b.py', 'work', '--resume'),
        PATH=stand_in(tmp_path, 'srun'),
        GPUS='16',
        SRUN_ARGS='--time=1:00 --mem=8G',
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert {'--ntasks=16', '--ntasks-per-node=8', '--time=1:00', '--mem=8G'} <= set(lines)
    assert lines[-4:] == ['a b.py', '--work-dir=work', '--launcher=slurm', '--resume']


def test_precision_of_detectors():
    """mmcv's operators know no bfloat16."""
    detector = Config(dict(default_scope='mmdet', optim_wrapper=dict(type='OptimWrapper')))
    enable_amp(detector)
    assert detector.optim_wrapper.dtype == 'float16'
    assert detector.optim_wrapper.loss_scale == 'dynamic'
    other = Config(dict(default_scope='mmseg', optim_wrapper=dict(type='OptimWrapper')))
    enable_amp(other)
    assert other.optim_wrapper == dict(type='AmpOptimWrapper', dtype='bfloat16')
    on = Config(dict(default_scope='mmmask3d', optim_wrapper=dict(type='Bfloat16OptimWrapper')))
    enable_amp(on)
    assert on.optim_wrapper == dict(type='Bfloat16OptimWrapper')
    detector.optim_wrapper.dtype = 'bfloat16'
    with pytest.raises(RuntimeError, match='Detectors do not train in bfloat16'):
        check_amp(detector)
