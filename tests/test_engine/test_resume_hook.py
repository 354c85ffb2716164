"""Which checkpoints are on the disk at any time, and the states of the generators they hold."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.logging import MessageHub, MMLogger

from mmmask3d.checkpoints.files import ATOMIC_BACKEND
from mmmask3d.engine import AtomicCheckpointHook, RNGStateHook
from mmmask3d.engine.resume_hook import capture_rng_state, restore_rng_state, sampler_of


class DiskFull(Exception):
    pass


class FakeRunner(SimpleNamespace):
    """Writes empty files, and notes what was there just before and after each was written."""

    def __init__(self, folder, **more):
        super().__init__(
            work_dir=str(folder),
            folder=folder,
            hooks=[],
            logger=MMLogger.get_current_instance(),
            message_hub=MessageHub.get_instance(str(folder)),
            while_saving=[],
            full=False,
            as_folder=False,
            **more,
        )

    def save_checkpoint(self, out_dir, filename, *args, **kwargs):
        if self.full:
            raise DiskFull
        if self.as_folder:
            (self.folder / filename).mkdir()
            (self.folder / filename / 'shard').touch()
        else:
            (self.folder / filename).touch()
        self.while_saving.append(names(self.folder))


def names(folder):
    return {path.name for path in folder.glob('epoch_*')}


def files(*steps):
    return {f'epoch_{step}.pth' for step in steps}


def start(runner, keep):
    hook = AtomicCheckpointHook(interval=1, max_keep_ckpts=keep)
    hook.before_train(runner)
    return hook


@pytest.mark.parametrize('as_folder', [False, True], ids=['files', 'folders of shards'])
@pytest.mark.parametrize('keep', [1, 2, 3])
def test_as_many_checkpoints_as_asked_for(tmp_path, keep, as_folder):
    """The oldest goes, and not before the newest is there."""
    runner = FakeRunner(tmp_path)
    runner.as_folder = as_folder
    hook = start(runner, keep)
    for step in range(1, 6):
        hook._save_checkpoint_with_step(runner, step, {})
        assert names(tmp_path) == files(*range(max(1, step - keep + 1), step + 1))
        assert runner.while_saving[-1] == files(*range(max(1, step - keep), step + 1))
        assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / f'epoch_{step}.pth')


def test_the_old_checkpoint_survives_a_failed_save(tmp_path):
    runner = FakeRunner(tmp_path)
    hook = start(runner, 1)
    hook._save_checkpoint_with_step(runner, 1, {})
    runner.full = True
    with pytest.raises(DiskFull):
        hook._save_checkpoint_with_step(runner, 2, {})
    assert names(tmp_path) == files(1)


def test_saving_a_step_again_removes_nothing(tmp_path):
    """mmengine does so where a step is the best so far."""
    runner = FakeRunner(tmp_path)
    hook = start(runner, 2)
    for step in (1, 2, 2, 2):
        hook._save_checkpoint_with_step(runner, step, {})
    assert names(tmp_path) == files(1, 2)


def test_a_resumed_run_goes_on_counting(tmp_path):
    runner = FakeRunner(tmp_path)
    hook = start(runner, 3)
    for step in (1, 2, 3):
        hook._save_checkpoint_with_step(runner, step, {})
    hook = start(runner, 2)  # fewer than before
    assert names(tmp_path) == files(2, 3)
    hook._save_checkpoint_with_step(runner, 4, {})
    assert names(tmp_path) == files(3, 4)
    assert runner.message_hub.get_info('keep_ckpt_ids') == [3, 4]


def test_all_checkpoints_are_kept_by_default(tmp_path):
    runner = FakeRunner(tmp_path)
    hook = start(runner, -1)
    for step in range(1, 5):
        hook._save_checkpoint_with_step(runner, step, {})
    assert names(tmp_path) == files(1, 2, 3, 4)


@pytest.mark.parametrize(
    ('options', 'backend'),
    [
        ({}, {'backend': ATOMIC_BACKEND}),
        ({'backend_args': {'backend': 'local'}}, {'backend': 'local'}),
        ({'out_dir': 's3://bucket/run'}, None),
        ({'out_dir': 'elsewhere'}, {'backend': ATOMIC_BACKEND}),
    ],
)
def test_backend(options, backend):
    assert AtomicCheckpointHook(interval=1, **options).backend_args == backend


# ---------------------------------------------------------------- generators

DRAWS = {
    'python': lambda: [random.random(), random.gauss(0, 1)],
    'numpy': lambda: [*np.random.rand(3), np.random.randn()],
    'torch': lambda: torch.rand(3).tolist(),
}


@pytest.mark.parametrize('name', DRAWS)
def test_each_generator_is_restored(name, tmp_path):
    """With half a pair of normal draws pending; through a file that a safe reader reads."""
    draw = DRAWS[name]
    random.gauss(0, 1), np.random.randn()
    torch.save(capture_rng_state(), tmp_path / 'state.pth')
    expected = draw()
    assert draw() != expected
    restore_rng_state(torch.load(tmp_path / 'state.pth', weights_only=True))
    assert draw() == expected


def draw_all():
    return [draw() for draw in DRAWS.values()]


def saved(hook, runner):
    checkpoint = {'meta': {'epoch': runner.train_loop.epoch + 1}}
    hook.before_save_checkpoint(runner, checkpoint)
    return checkpoint['resume_state']


@pytest.fixture
def loop_runner():
    loader = torch.utils.data.DataLoader(range(8), batch_size=2)
    return SimpleNamespace(train_loop=SimpleNamespace(epoch=0, dataloader=loader, batches_done=4))


def test_validation_leaves_no_trace(loop_runner):
    hook = RNGStateHook()
    before = capture_rng_state()
    expected = draw_all()
    restore_rng_state(before)
    hook.before_val(None)
    draw_all()
    state = saved(hook, loop_runner)  # the best checkpoint is written during validation
    hook.after_val(None)
    assert draw_all() == expected
    restore_rng_state(state['rng'][0])
    assert draw_all() == expected
    later = saved(hook, loop_runner)['rng'][0]  # after validation, the state of then
    expected = draw_all()
    restore_rng_state(later)
    assert draw_all() == expected
    hook.after_val(None)  # without a validation there is nothing to undo
    assert draw_all() != expected


def test_gathered_states_serve_one_checkpoint(loop_runner):
    hook = RNGStateHook()
    hook.gather()
    expected = draw_all()
    restore_rng_state(saved(hook, loop_runner)['rng'][0])
    assert draw_all() == expected
    later = saved(hook, loop_runner)['rng'][0]
    expected = draw_all()
    restore_rng_state(later)
    assert draw_all() == expected


def test_position_at_and_within_an_epoch(loop_runner):
    hook = RNGStateHook()
    for epoch, done in ((1, 0), (0, 4)):
        checkpoint = {'meta': {'epoch': epoch}}
        hook.before_save_checkpoint(loop_runner, checkpoint)
        assert checkpoint['resume_state']['batches_done'] == done
        assert checkpoint['resume_state']['epoch_length'] == 4
        assert checkpoint['resume_state']['world_size'] == 1
        assert checkpoint['resume_state']['sampler_seed'] is None


def test_states_of_another_number_of_processes(warnings_logged_by_mmengine):
    runner = SimpleNamespace(logger=MMLogger.get_current_instance())
    of_rank = RNGStateHook._state_of_this_rank
    assert of_rank(runner, {'world_size': 1, 'rng': ['mine']}) == 'mine'
    assert of_rank(runner, {'world_size': 1, 'rng': None}) is None
    assert warnings_logged_by_mmengine == []
    for world_size, states in ((2, ['a', 'b']), (2, ['a'])):
        assert of_rank(runner, {'world_size': world_size, 'rng': states}) is None
        assert f'of {len(states)} of 2 processes, this run has 1' in warnings_logged_by_mmengine[-1]


def test_sampler_behind_a_batch_sampler():
    sampler = torch.utils.data.SequentialSampler(range(8))
    batches = torch.utils.data.BatchSampler(sampler, 2, False)
    assert sampler_of(torch.utils.data.DataLoader(range(8), batch_sampler=batches)) is sampler
    assert sampler_of(torch.utils.data.DataLoader(range(8), sampler=sampler)) is sampler
