"""Lets the config rule in a resumed run: what a checkpoint stores never overrules it in silence.

A checkpoint of mmengine holds the optimizer's settings and the schedulers' as well as their state,
and resuming puts all of it back: a longer ``max_epochs``, another learning rate, weight decay or
batch size would have no effect, or half of one. :class:`ResumedConfigHook` takes from the
checkpoint what was learned and how far training came (weights, moments, position), and everything
that a config can say from the config.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmengine.hooks import EMAHook, Hook
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapperDict
from mmengine.runner import IterBasedTrainLoop, Runner

from mmmask3d.engine.resume_hook import CHECKPOINT_KEY
from mmmask3d.models.encoder_record import parse_config_text
from mmmask3d.registry import HOOKS

#: Where a checkpoint keeps the names of the parameters in the order of the optimizer's state.
PARAMETER_NAMES = 'optimizer_parameters'

#: Entries of a config that decide what is trained and how; the others are not compared.
_COMPARED = (
    'auto_scale_lr',
    'custom_hooks',
    'data_preprocessor',
    'default_hooks.checkpoint',
    'model',
    'optim_wrapper',
    'param_scheduler',
    'randomness',
    'train_cfg',
    'train_dataloader',
    'val_dataloader.dataset',
    'val_evaluator',
)
#: With another of these, the best score so far was measured otherwise.
_OF_THE_SCORE = (
    'val_dataloader.dataset',
    'val_evaluator',
    *(f'default_hooks.checkpoint.{k}' for k in ('save_best', 'rule', 'greater_keys', 'less_keys')),
)

_REMEDY = (
    'Resume with the config of the checkpoint in this point, or start a new run from its weights: '
    'load_from=<checkpoint> and no --resume.'
)


@HOOKS.register_module()
class ResumedConfigHook(Hook):
    """Make a resumed run follow its config, and say what differs from the checkpoint's.

    docs/training.md lists what each change does. Schedules are computed from the start, so that
    from the resumed step on every rate is that of a run with the settings of the config throughout;
    moments are matched by the parameters' names. A strategy (FSDP, DeepSpeed) and several
    optimizers are restored as they are in the checkpoint.

    The tool ``train.py`` and ``ResumableEpochBasedTrainLoop`` register it by themselves.
    """

    # before the hooks that take up what is corrected here
    priority = 'VERY_HIGH'

    def __init__(self) -> None:
        self._replay = False
        self._score_changed = False

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Add the parameters' names; leave out functions, which no safe reader would build."""
        if not isinstance(runner, Runner):
            return
        if 'optimizer' in checkpoint and _has_one_optimizer(runner):
            checkpoint[PARAMETER_NAMES] = {'': _names(runner)}
        schedulers = checkpoint.get('param_schedulers') or []
        several = schedulers.values() if isinstance(schedulers, Mapping) else [schedulers]
        for state in (state for entries in several for state in entries):
            for key in [key for key, value in state.items() if callable(value)]:
                del state[key]

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Replace in the checkpoint what the config says otherwise; report it.

        Raises:
            RuntimeError: The change has no single meaning; the message names the remedy.
        """
        if not getattr(runner, '_resume', False):
            return
        changed = _reported_differences(runner, checkpoint)
        if not _has_one_optimizer(runner):
            if any(key.startswith(('optim_wrapper', 'param_scheduler')) for key in changed):
                runner.logger.warning(
                    'The optimizer and its schedule are restored as they are in the checkpoint: '
                    'these changes have no effect. Start a new run with load_from=<checkpoint> and '
                    'resume=False for them.'
                )
            return
        self._score_changed = any(key.startswith(_OF_THE_SCORE) for key in changed)
        for objection in _objections(runner, checkpoint, changed):
            raise RuntimeError(f'{objection} {_REMEDY}')
        _count_epochs(runner, checkpoint)
        if 'optimizer' not in checkpoint or _measured(runner):
            return
        self._replay = True
        checkpoint.pop('param_schedulers', None)
        keep_scaler = not any(key.startswith('optim_wrapper.loss_scale') for key in changed)
        checkpoint['optimizer'] = _configured_optimizer(runner, checkpoint, keep_scaler)

    def before_train(self, runner: Any) -> None:
        """Bring the schedules to the resumed position."""
        if self._score_changed:
            self._score_changed = False
            for key in [k for k in runner.message_hub.runtime_info if k.startswith('best_')]:
                runner.message_hub.pop_info(key)
            runner.logger.warning(
                'The best score so far was measured otherwise and is forgotten; its checkpoint '
                'stays where it is.'
            )
        if not _has_one_optimizer(runner) or not runner._resume or runner.iter == 0:
            return
        loop = runner.train_loop
        # mmengine takes these from the checkpoint as well
        runner.message_hub.update_info_dict(dict(cfg=runner.cfg.pretty_text, seed=runner.seed))
        if self._replay:
            self._replay = False
            length = 0 if isinstance(loop, IterBasedTrainLoop) else len(loop.dataloader)
            replay(runner.param_schedulers or [], loop.epoch, loop.iter, length)
            runner.logger.info(
                f'The schedule is computed for the config as it is now, up to epoch {loop.epoch}, '
                f'iteration {loop.iter}: the learning rate goes on at {_rates(runner)}.'
            )
        _warn_of_what_is_over(runner)


def replay(schedulers: Sequence[Any], epochs: int, iterations: int, epoch_length: int) -> None:
    """Step fresh schedulers as training would have done.

    Args:
        schedulers: Those of one optimizer, as built.
        epochs: Complete epochs.
        iterations: Iterations in all.
        epoch_length: Iterations of an epoch; 0 where training does not count epochs.
    """
    with warnings.catch_warnings():
        # there is no step of the optimizer between two of the schedulers here
        warnings.filterwarnings('ignore', message='.*`scheduler.step\\(\\)` before')
        for iteration in range(1, iterations + 1):
            for scheduler in schedulers:
                if not scheduler.by_epoch:
                    scheduler.step()
            if epoch_length and iteration % epoch_length == 0:
                if iteration // epoch_length > epochs:
                    continue  # the last batch of an epoch that is not closed
                for scheduler in schedulers:
                    if scheduler.by_epoch:
                        scheduler.step()


# ------------------------------------------------------------------------------ configs


def differences(old: Any, new: Any) -> dict[str, tuple[Any, Any]]:
    """Compare two configs where they decide what is trained.

    Returns:
        Old and new value by dotted key; ``'not set'`` stands for an entry that is missing.
    """
    old, new = dict(_flattened(old)), dict(_flattened(new))
    return {
        key: (old.get(key, 'not set'), new.get(key, 'not set'))
        for key in sorted({*old, *new})
        if old.get(key, 'not set') != new.get(key, 'not set')
        and any(key == part or key.startswith(f'{part}.') for part in _COMPARED)
    }


def _flattened(value: Any, key: str = '') -> Iterator[tuple[str, Any]]:
    entries: Any = ()
    if isinstance(value, dict):
        entries = value.items()
    elif isinstance(value, list | tuple):
        value = list(value)
        if any(isinstance(entry, dict | list | tuple) for entry in value):
            entries = enumerate(value)
    if not entries:
        yield key, value
    for name, entry in entries:
        yield from _flattened(entry, f'{key}.{name}' if key else str(name))


def _reported_differences(runner: Any, checkpoint: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What the config says otherwise than that in the checkpoint, which is read and never run."""
    try:
        old = parse_config_text((checkpoint.get('meta') or {})['cfg'])
        changed = differences(old, parse_config_text(runner.cfg.pretty_text))
    except (KeyError, SyntaxError, ValueError):
        runner.logger.warning(
            'The checkpoint or this run holds no config that can be read, so what changed cannot '
            'be named. The config of this run is in force.'
        )
        return {}
    if not changed:
        return {}
    lines = []
    for key, (old, new) in changed.items():
        hint = ''
        if 'init_cfg' in key or key.endswith('.pretrained'):
            hint = ' (no effect: the weights are those of the checkpoint)'
        elif key == 'train_dataloader.batch_size':
            hint = ' (the learning rate follows it only with --auto-scale-lr)'
        lines.append(f'  {key}: {old!r} -> {new!r}{hint}')
    runner.logger.warning(
        'The config differs from the one in the checkpoint. It is in force from here on:\n'
        + '\n'.join(lines)
    )
    return changed


# ------------------------------------------------------------------------------ refusals


def _objections(
    runner: Runner, checkpoint: Mapping[str, Any], changed: Mapping[str, tuple[Any, Any]]
) -> Iterator[str]:
    """Why a run cannot be resumed with its config."""
    loop, meta = runner.train_loop, checkpoint['meta']
    averaged = any(isinstance(hook, EMAHook) for hook in runner.hooks)
    if 'ema_state_dict' in checkpoint and not averaged:
        yield (
            "The checkpoint was written with an EMAHook, so its weights are averages; this run's "
            'config has no such hook, and training would go on from the averages in place of the '
            'weights that were trained.'
        )
    # mmengine's loop by iterations writes epoch 0 throughout
    if not isinstance(loop, IterBasedTrainLoop) and meta['epoch'] == 0:
        state = checkpoint.get(CHECKPOINT_KEY) or {}
        if meta['iter'] > state.get('epoch_length', len(loop.dataloader)):
            yield (
                f'The checkpoint comes from a run that counted {meta["iter"]} iterations and no '
                f'epochs; {type(loop).__name__} counts epochs, and in which one it stands is not '
                'defined.'
            )
    for key, kinds in changed.items():
        old, new = (str(kind).split('.')[-1] for kind in kinds)
        if key.startswith('optim_wrapper.') and key.endswith('optimizer.type') and old != new:
            yield f'{key}: the checkpoint holds the state of {old}, which {new} cannot continue.'
    if measured := _measured(runner):
        of_rates = ('auto_scale_lr', 'optim_wrapper', 'param_scheduler', 'train_')
        if wrong := [key for key in changed if key.startswith(of_rates)]:
            yield (
                f'{", ".join(wrong)}: the schedule changed, and {type(measured[0]).__name__} '
                'follows measured values, so what it would have done cannot be computed.'
            )


def _measured(runner: Runner) -> list[Any]:
    """Schedulers that follow measured values, and go on from what the checkpoint holds of them."""
    return [s for s in runner.param_schedulers or [] if getattr(s, 'need_val_args', False)]


# ------------------------------------------------------------------------------ position


def _count_epochs(runner: Runner, checkpoint: Mapping[str, Any]) -> None:
    """Count the iterations done in epochs of this run.

    A checkpoint within an epoch whose length changed is refused by the loop.
    """
    meta, loop = checkpoint['meta'], runner.train_loop
    if isinstance(loop, IterBasedTrainLoop):
        meta['epoch'] = 0  # it counts none
        return
    within = 0
    if hasattr(loop, 'continue_from'):  # other loops begin the epoch again
        within = (checkpoint.get(CHECKPOINT_KEY) or {}).get('batches_done', 0)
    done = meta['epoch'] * len(loop.dataloader) + within
    if done != meta['iter']:
        runner.logger.warning(
            f'An epoch has {len(loop.dataloader)} batches in this run: after {meta["epoch"]} '
            f'epochs, iterations are counted from {done} on, not from {meta["iter"]}.'
        )
        meta['iter'] = done


def _warn_of_what_is_over(runner: Runner) -> None:
    loop = runner.train_loop
    by_iterations = isinstance(loop, IterBasedTrainLoop)
    unit, done = ('iters', loop.iter) if by_iterations else ('epochs', loop.epoch)
    total = getattr(loop, f'max_{unit}')
    if done >= total:
        runner.logger.warning(
            f'Nothing is left to train: the checkpoint has done {done} of {total} {unit}. Set '
            f'train_cfg.max_{unit} higher to go on.'
        )
    elif runner.param_schedulers and all(
        s.end <= (loop.epoch if s.by_epoch else loop.iter) for s in runner.param_schedulers
    ):
        runner.logger.warning(
            f'Every entry of param_scheduler has ended by now, but training goes on to {total} '
            f'{unit}: the learning rate stays at {_rates(runner)}. Leave `end` and `T_max` out of '
            'the last entry, or set them to the new length.'
        )


# ------------------------------------------------------------------------------ optimizer


def _has_one_optimizer(runner: Any) -> bool:
    return isinstance(runner, Runner) and not isinstance(runner.optim_wrapper, OptimWrapperDict)


def _rates(runner: Runner) -> str:
    rates = {group['lr'] for group in runner.optim_wrapper.param_groups}
    return ' to '.join(f'{rate:.4g}' for rate in sorted({min(rates), max(rates)}))


def _names(runner: Runner) -> list[str]:
    """Names of the trained parameters, in the order of the optimizer's state."""
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    parameters = [
        one for group in runner.optim_wrapper.optimizer.param_groups for one in group['params']
    ]
    return [names.get(id(one), f'unnamed {i}') for i, one in enumerate(parameters)]


def _configured_optimizer(
    runner: Runner, checkpoint: Mapping[str, Any], keep_scaler: bool
) -> dict[str, Any]:
    """The optimizer's state for loading: moments of the checkpoint, settings of the config.

    The rates are those of the start, which :func:`replay` brings to the position.
    """
    stored, state = checkpoint['optimizer'], runner.optim_wrapper.state_dict()
    state['state'] = _moments_by_index(runner, stored, checkpoint)
    if 'loss_scaler' in stored and 'loss_scaler' in state and keep_scaler:
        state['loss_scaler'] = stored['loss_scaler']
    return dict(state)


def _moments_by_index(
    runner: Runner, stored: Mapping[str, Any], checkpoint: Mapping[str, Any]
) -> dict[int, Any]:
    """Moments in the order of this run's parameters."""
    ours, names = _names(runner), checkpoint.get(PARAMETER_NAMES, {}).get('')
    if names is None:  # a checkpoint without names: the groups must be the same
        sizes = [len(group['params']) for group in stored['param_groups']]
        found = [len(group['params']) for group in runner.optim_wrapper.optimizer.param_groups]
        if sizes != found:
            raise RuntimeError(
                f'The optimizer in the checkpoint has groups of {sizes} parameters, that of this '
                f'config groups of {found}, and the checkpoint does not name them. {_REMEDY}'
            )
        names = ours
    by_name = {name: stored['state'][i] for i, name in enumerate(names) if i in stored['state']}
    new = sorted(set(ours) - set(names))
    if new:
        runner.logger.warning(
            f'{len(new)} parameters were not trained before and start without moments: '
            f'{", ".join(new[:3])}{", ..." if len(new) > 3 else ""}.'
        )
    return {i: by_name[name] for i, name in enumerate(ours) if name in by_name}
