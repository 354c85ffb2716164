"""Turns a config file and command-line options into the config of a run, for the tools."""

import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.runner import Runner

from mmmask3d.checkpoints.files import CheckpointError, find_resumable_checkpoint
from mmmask3d.config_files import read_config_file
from mmmask3d.datasets.masking_config import resolve_masking
from mmmask3d.engine.dependent_options import has_accelerator, settle_dependent_options
from mmmask3d.preflight import check_environment


def load_config(
    path: str | os.PathLike,
    work_dir: str | None = None,
    cfg_options: dict[str, Any] | None = None,
    launcher: str = 'none',
) -> Config:
    """Read a config file and apply the options every tool has.

    The work directory is the argument, else the config's, else ``./work_dirs/<config name>``.
    Options that depend on each other are settled, see :func:`settle_dependent_options`.

    ``masking`` is handed to the pipelines here, after the options: see
    :func:`~mmmask3d.datasets.masking_config.resolve_masking`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: ``masking`` is wrong or has no effect.
    """
    cfg = read_config_file(path, cfg_options)
    cfg.launcher = launcher
    settle_dependent_options(cfg)
    if work_dir is not None:
        cfg.work_dir = work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = os.path.join('./work_dirs', Path(path).stem)
    if resolve_masking(cfg, asked=_masking_options(cfg_options or {})):
        # Runtimes of one's own: the hook asks the encoder where the config gives no patch size.
        if cfg.get('default_hooks') is None:
            cfg.default_hooks = {}
        cfg.default_hooks.setdefault('masking', dict(type='mmmask3d.MaskingHook'))
    return cfg


def _masking_options(cfg_options: dict[str, Any]) -> set[str]:
    """Keys of ``masking`` that options set, as ``masking.key=...`` or as a dict ``masking``."""
    whole = cfg_options.get('masking')
    dotted = {key.removeprefix('masking.') for key in cfg_options if key.startswith('masking.')}
    return dotted | set(whole if isinstance(whole, dict) else ())


def check_libraries(cfg: Config) -> None:
    """Check the environment for what the config's ``default_scope`` needs.

    Raises:
        EnvironmentProblem: A package is missing or does not fit, with the cure.
    """
    scope = cfg.get('default_scope')
    needed = [scope] if scope in ('mmseg', 'mmdet') else []
    check_environment(need_ops=scope == 'mmdet', need=needed)


def enable_cpu_processes(cfg: Config) -> None:
    """Join several processes over gloo where there is no GPU; mmengine asks for one regardless.

    Changes nothing with a single process or with GPUs.

    Raises:
        RuntimeError: A launcher other than ``pytorch`` is used without GPUs.
    """
    if cfg.launcher == 'none' or has_accelerator():
        return
    if cfg.launcher != 'pytorch':
        raise RuntimeError(
            f'--launcher {cfg.launcher}: torch finds no GPU on {platform.node()}, and several '
            'processes without GPU are supported with --launcher pytorch only '
            '(tools/dist_train.sh).'
        )
    torch.distributed.init_process_group('gloo')
    wrapper = cfg.get('model_wrapper_cfg') or dict(
        type='MMDistributedDataParallel', broadcast_buffers=False
    )
    cfg.model_wrapper_cfg = dict(wrapper, device_ids=None)
    if 'find_unused_parameters' in cfg:
        cfg.model_wrapper_cfg.setdefault('find_unused_parameters', cfg.find_unused_parameters)


def enable_amp(cfg: Config) -> None:
    """Switch the optimizer wrapper to automatic mixed precision, bfloat16 unless the config says.

    float16 is known to end in NaN in masked pre-training; bfloat16 needs no loss scaling. Detectors
    get float16 with loss scaling, see :func:`check_amp`.

    Raises:
        RuntimeError: The wrapper is neither ``OptimWrapper`` nor ``AmpOptimWrapper``.
    """
    wrapper = cfg.optim_wrapper
    kind = wrapper.get('type', 'OptimWrapper')
    if kind.endswith('Bfloat16OptimWrapper'):
        return  # it is on
    if kind not in ('OptimWrapper', 'AmpOptimWrapper'):
        raise RuntimeError(
            f"--amp: the config's optim_wrapper is {kind!r}; expected OptimWrapper or "
            'AmpOptimWrapper. Set the precision in the config instead.'
        )
    wrapper.type = 'AmpOptimWrapper'
    if cfg.get('default_scope') == 'mmdet':
        wrapper.setdefault('dtype', 'float16')
        wrapper.setdefault('loss_scale', 'dynamic')
    wrapper.setdefault('dtype', 'bfloat16')


def check_amp(cfg: Config) -> None:
    """Check that mixed precision is possible where the config asks for it.

    Raises:
        RuntimeError: mmengine's ``AmpOptimWrapper`` is asked for and there is no accelerator; or a
            detector is to be trained in bfloat16, which mmcv's operators do not know.
    """
    wrapper = cfg.get('optim_wrapper') or {}
    if wrapper.get('type') != 'AmpOptimWrapper':
        return
    if cfg.get('default_scope') == 'mmdet' and wrapper.get('dtype') == 'bfloat16':
        raise RuntimeError(
            "Detectors do not train in bfloat16: mmcv's RoIAlign, NMS and focal loss have no "
            'kernel for it, and its eight bits do not hold coordinates of boxes. Set '
            "optim_wrapper.dtype='float16' and optim_wrapper.loss_scale='dynamic', or "
            "optim_wrapper.type='OptimWrapper' for float32."
        )
    if not has_accelerator():
        raise RuntimeError(
            'Mixed precision (AmpOptimWrapper) needs a GPU, and torch finds none on '
            f'{platform.node()}. Train in float32: --cfg-options optim_wrapper.type=OptimWrapper '
            'and no --amp. On a CPU with bfloat16 units (AMX, AVX512-BF16) '
            'optim_wrapper.type=mmmask3d.Bfloat16OptimWrapper is faster.'
        )


def check_schedule(cfg: Config) -> None:
    """Check that no part of the schedule would begin after the training.

    A scheduler without ``end`` lasts until ``train_cfg.max_epochs``; mmengine's error for one that
    is then too short names neither.

    Raises:
        ValueError: The training is no longer than the warm-up.
    """
    length = (cfg.get('train_cfg') or {}).get('max_epochs')
    schedulers = cfg.get('param_scheduler') or []
    for i, one in enumerate(schedulers if isinstance(schedulers, list) else []):
        begin = one.get('begin', 0)
        if length and one.get('by_epoch', True) and one.get('end') is None and begin >= length:
            before = f'param_scheduler.{i - 1}.end={length / 2} ' if i else ''
            raise ValueError(
                f'param_scheduler.{i} ({one.type}) begins at epoch {begin}, but '
                f'train_cfg.max_epochs is {length}. Train for more epochs, or shorten the warm-up: '
                f'--cfg-options {before}param_scheduler.{i}.begin={length / 2}'
            )


def enable_auto_scale_lr(cfg: Config) -> None:
    """Scale the learning rate by the actual batch size over ``auto_scale_lr.base_batch_size``.

    Raises:
        RuntimeError: The config does not say for which batch size its learning rate is meant.
    """
    if not (cfg.get('auto_scale_lr') or {}).get('base_batch_size'):
        raise RuntimeError(
            '--auto-scale-lr: the config has no auto_scale_lr.base_batch_size. Add '
            'auto_scale_lr = dict(base_batch_size=<batch size the learning rate is meant for>).'
        )
    cfg.auto_scale_lr.enable = True


def apply_resume(cfg: Config, resume: str | None, log: Callable[[str], Any]) -> None:
    """Set what to resume from.

    Args:
        cfg: Config of the run, with its ``work_dir``; changed in place.
        resume: None to leave the config's choice; 'auto' for the newest complete checkpoint in the
            work directory, if there is one; else the path of a checkpoint.
        log: Receives what was decided.

    Raises:
        FileNotFoundError: The named checkpoint does not exist.
    """
    if resume is None:
        # the same robust choice for configs that ask for it themselves
        if not cfg.get('resume') or cfg.get('load_from') is not None:
            return
        resume = 'auto'
    if resume == 'auto':
        found = find_resumable_checkpoint(cfg.work_dir, log)
        if found is None:
            log(f'Nothing to resume in {cfg.work_dir}: starting a new run.')
            cfg.resume = False
            return
        log(f'Resuming from {found}, the newest complete checkpoint.')
        resume = found
    elif '://' not in resume and not os.path.exists(os.path.expanduser(resume)):
        raise FileNotFoundError(
            f'--resume {resume}: no such checkpoint. Give an existing file, or --resume alone for '
            f'the newest one in {cfg.work_dir}.'
        )
    cfg.resume = True
    cfg.load_from = resume


def require_fitting_checkpoint(runner: Runner) -> None:
    """Make the runner refuse a checkpoint that does not fill its model exactly.

    mmengine only warns and goes on with random weights where nothing fits. For runs that resume or
    evaluate; fine-tuning by ``load_from`` may well start from part of another model.

    Raises:
        RuntimeError: When the checkpoint is loaded; lists the keys and shapes that differ.
    """
    load = runner.load_checkpoint

    def load_strictly(filename: str, *args: Any, **kwargs: Any) -> Any:
        try:
            return load(filename, *args, **{**kwargs, 'strict': True})
        except CheckpointError:
            raise  # says already what is wrong with the file
        except RuntimeError as error:
            raise RuntimeError(
                f'{filename} does not fit {type(runner.model).__name__} as the config builds it. '
                f'Give the config the checkpoint was trained with. {error}'
            ) from error

    runner.load_checkpoint = load_strictly


def require_some_weights(runner: Runner) -> None:
    """Make the runner refuse a ``load_from`` checkpoint without a single usable weight.

    mmengine only warns, and the run would start from random weights in silence. A checkpoint of
    which some tensors fit is taken, as everywhere in OpenMMLab.

    Raises:
        RuntimeError: When the checkpoint is loaded; shows what its keys look like.
    """
    load = runner.load_checkpoint

    def load_something(filename: str, *args: Any, **kwargs: Any) -> Any:
        checkpoint = load(filename, *args, **kwargs)
        given = checkpoint.get('state_dict', checkpoint)
        given = {k.removeprefix('module.'): v for k, v in given.items() if hasattr(v, 'shape')}
        model = runner.model.state_dict()
        model = {k.removeprefix('module.'): v for k, v in model.items()}
        if not any(k in model and model[k].shape == v.shape for k, v in given.items()):
            raise RuntimeError(
                f'load_from={filename}: none of its {len(given)} tensors fits '
                f'{type(runner.model).__name__} by name and shape; it has '
                f'{", ".join(list(given)[:2])}, ..., the model {", ".join(list(model)[:2])}, .... '
                'An encoder goes into the backbone: model.backbone.init_cfg=dict(type='
                "'Pretrained', checkpoint=...)."
            )
        return checkpoint

    runner.load_checkpoint = load_something
