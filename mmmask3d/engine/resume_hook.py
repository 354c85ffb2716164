"""Saves the state of the random number generators, and checkpoints that survive a kill.

mmengine's checkpoints hold no RNG state, so a resumed run draws other numbers than one that was
not interrupted. :class:`RNGStateHook` puts the state of every rank, and the position within the
epoch, into the checkpoint; :class:`mmmask3d.engine.loops.ResumableEpochBasedTrainLoop` takes both
up again. :class:`AtomicCheckpointHook` writes files that are complete or absent and removes old
ones only after the new one is safe.
"""

import random
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_gather_object, get_rank, get_world_size, is_main_process
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from mmmask3d.checkpoints.files import ATOMIC_BACKEND
from mmmask3d.registry import HOOKS

CHECKPOINT_KEY = 'resume_state'


def capture_rng_state() -> dict[str, Any]:
    """Return the state of Python's, numpy's and torch's global generators.

    Only tensors and plain Python objects, so that ``torch.load(weights_only=True)`` reads it.
    """
    version, internal, gauss = random.getstate()
    state: Any = np.random.get_state()
    name, keys, position, has_gauss, cached = state
    return {
        'python': [version, list(internal), gauss],
        'numpy': [name, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, cached],
        'torch': torch.get_rng_state(),
        'cuda': torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def restore_rng_state(state: dict[str, Any]) -> None:
    """Set the global generators to what :func:`capture_rng_state` returned."""
    version, internal, gauss = state['python']
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = state['numpy']
    np.random.set_state((name, keys.cpu().numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state['torch'].cpu())
    if state['cuda'] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state['cuda'].cpu())


def sampler_of(dataloader: DataLoader) -> Any:
    """Return the sampler of single samples, also behind a batch sampler of the user's."""
    return getattr(dataloader.batch_sampler, 'sampler', dataloader.sampler)


@HOOKS.register_module()
class RNGStateHook(Hook):
    """Save RNG states and the position within the epoch; hand them back when a run is resumed.

    The loop registers this hook by itself. With several processes the states of all ranks are
    saved if checkpoints are written by :class:`AtomicCheckpointHook`, which gathers them; with
    another checkpoint hook only rank 0's state can be saved and a resumed run says so.

    Only a resumed run gets the state back; weights taken by ``load_from`` leave the RNG alone. A
    seed in the config that differs from the checkpoint's holds from the resumed step on.
    """

    # late, so that what other hooks draw before it is part of the state it saves
    priority = 'VERY_LOW'

    def __init__(self) -> None:
        self._gathered: list[dict[str, Any]] | None = None
        self._loaded: dict[str, Any] | None = None
        self._training: dict[str, Any] | None = None

    def gather(self) -> None:
        """Collect the states of all ranks for the checkpoint about to be written.

        Every rank must call it.
        """
        self._gathered = all_gather_object(self._current_state())

    def _current_state(self) -> dict[str, Any]:
        # a checkpoint written during validation: training goes on with the state before it
        return capture_rng_state() if self._training is None else self._training

    def before_val(self, runner: Runner) -> None:
        """Keep training's state: validation must not change what training draws."""
        self._training = capture_rng_state()

    def after_val(self, runner: Runner) -> None:
        """Go on with the state from before the validation."""
        if self._training is not None:
            restore_rng_state(self._training)
            self._training = None

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Add the states to the checkpoint (runs on rank 0 only)."""
        states, self._gathered = self._gathered, None
        meta, loop = checkpoint['meta'], runner.train_loop
        # an epoch's checkpoint is written after its last batch, with the next epoch's number
        boundary = meta['epoch'] == loop.epoch + 1
        checkpoint[CHECKPOINT_KEY] = {
            'rng': states or [self._current_state()],
            'world_size': get_world_size(),
            'batches_done': 0 if boundary else getattr(loop, 'batches_done', 0),
            'epoch_length': len(loop.dataloader),
            'sampler_seed': getattr(sampler_of(loop.dataloader), 'seed', None),
        }

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Keep what the checkpoint holds; whether it is a resume shows later."""
        self._loaded = checkpoint.get(CHECKPOINT_KEY)
        seed, meta = (runner.cfg.get('randomness') or {}).get('seed'), checkpoint.get('meta') or {}
        if not runner._resume or seed in (None, meta.get('seed')):
            return
        runner.logger.warning(
            f'randomness.seed={seed} of the config is used from here on; the checkpoint was '
            f'trained with {meta.get("seed")}. For the numbers and the order of an uninterrupted '
            'run leave the seed as it was.'
        )
        meta['seed'] = seed  # mmengine would go back to the old one
        if self._loaded is not None:
            self._loaded = {**self._loaded, 'rng': None, 'sampler_seed': None}

    def before_train(self, runner: Runner) -> None:
        """Hand the state to the loop if the run is resumed."""
        loaded, self._loaded = self._loaded, None
        if runner.iter == 0:  # nothing trained yet: fresh start, perhaps from load_from
            return
        if loaded is None:
            runner.logger.warning(
                'The checkpoint holds no RNG state (it was not written with '
                'mmmask3d.RNGStateHook): the run goes on with other random numbers than an '
                'uninterrupted one.'
            )
            return
        if hasattr(runner.train_loop, 'continue_from'):
            runner.train_loop.continue_from(loaded, self._state_of_this_rank(runner, loaded))
        else:
            runner.logger.warning(
                f'{type(runner.train_loop).__name__} draws data before the RNG state can be '
                'restored: the run goes on with other random numbers than an uninterrupted one. '
                "Use train_cfg=dict(type='mmmask3d.ResumableEpochBasedTrainLoop', ...) if that "
                'matters.'
            )

    @staticmethod
    def _state_of_this_rank(runner: Runner, loaded: dict[str, Any]) -> dict[str, Any] | None:
        world_size, states = get_world_size(), loaded['rng']
        if states is None:  # another seed was asked for
            return None
        if loaded['world_size'] != world_size or len(states) != world_size:
            runner.logger.warning(
                f'The checkpoint holds the RNG states of {len(states)} of '
                f'{loaded["world_size"]} processes, this run has {world_size}: the run goes on '
                'with other random numbers than an uninterrupted one. Resume with the same number '
                'of processes, and write checkpoints with mmmask3d.AtomicCheckpointHook.'
            )
            return None
        return states[get_rank()]


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook``, safe against kills and complete for every rank.

    - Local files are written to a temporary name, flushed to the disk and renamed.
    - With ``max_keep_ckpts`` the oldest file is removed after the new one is complete; mmengine
      removes it before, so that a kill can leave no checkpoint at all.
    - The RNG states of all ranks are gathered for :class:`RNGStateHook`.

    Takes ``CheckpointHook``'s arguments. ``backend_args`` of the user's own keep their meaning.
    """

    backend_args: dict | None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        remote = '://' in str(self.out_dir or '')
        if self.backend_args is None and self.file_client_args is None and not remote:
            self.backend_args = {'backend': ATOMIC_BACKEND}

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict[str, Any]) -> None:
        outdated: list[int] = []
        if self.max_keep_ckpts > 0 and step not in self.keep_ckpt_ids:
            while len(self.keep_ckpt_ids) >= self.max_keep_ckpts:
                outdated.append(self.keep_ckpt_ids.popleft())
        for hook in runner.hooks:
            if isinstance(hook, RNGStateHook):
                hook.gather()
        super()._save_checkpoint_with_step(runner, step, meta)
        if not is_main_process():
            return
        for old in outdated:
            path = self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(old))
            if self.file_backend.isfile(path):
                self.file_backend.remove(path)
            elif self.file_backend.isdir(path):  # sharded checkpoints are folders
                self.file_backend.rmtree(path)
