"""Settles options that depend on each other, so that one override on a command line is enough.

torch and mmengine refuse many pairs of options with an error about the one that the user did not
touch: ``num_workers=0`` with the config's ``persistent_workers=True``. Where only one meaning is
left the other option follows.
"""

import inspect
import logging
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.optim import AmpOptimWrapper

#: What only worker processes have a use for, and torch refuses without them.
_OF_WORKERS = ('persistent_workers', 'prefetch_factor', 'timeout', 'multiprocessing_context')


def has_accelerator() -> bool:
    """Whether torch finds a GPU or another accelerator that mmengine knows."""
    return torch.cuda.is_available() or any(
        getattr(torch, name, None) is not None and getattr(torch, name).is_available()
        for name in ('npu', 'mlu', 'musa')
    )


def settle_dependent_options(cfg: Config) -> None:
    """Let options follow those they depend on; changes the config in place.

    - Data loaders: what needs worker processes goes with ``num_workers=0``, ``pin_memory`` where
      there is no accelerator; ``shuffle`` moves to the sampler and ``drop_last`` to the batch
      sampler where these decide.
    - Validation and test: one of loader, loop and evaluator set to None switches off all three.
    - ``optim_wrapper.type=OptimWrapper`` takes the settings of mixed precision away.
    """
    for stage in ('train', 'val', 'test'):
        loader = cfg.get(f'{stage}_dataloader')
        if isinstance(loader, dict):
            _settle_loader(loader)
    for stage in ('val', 'test'):
        parts = [f'{stage}_dataloader', f'{stage}_cfg', f'{stage}_evaluator']
        off = [key for key in parts if key in cfg and cfg[key] is None]
        dropped = [key for key in parts if cfg.get(key) is not None]
        if off and dropped:
            print_log(
                f'{off[0]}=None: {stage} is off, and {" and ".join(dropped)} with it.',
                logger='current',
                level=logging.WARNING,
            )
            cfg.update(dict.fromkeys(parts))
    wrapper = cfg.get('optim_wrapper')
    kind = wrapper.get('type', 'OptimWrapper') if isinstance(wrapper, dict) else None
    if str(kind).split('.')[-1] in ('OptimWrapper', 'Bfloat16OptimWrapper'):
        for name in inspect.signature(AmpOptimWrapper).parameters:
            wrapper.pop(name, None)


def _settle_loader(loader: dict[str, Any]) -> None:
    if not loader.get('num_workers'):
        for key in _OF_WORKERS:
            loader.pop(key, None)
    if not has_accelerator():
        loader.pop('pin_memory', None)
    for key, place in (('shuffle', 'sampler'), ('drop_last', 'batch_sampler')):
        if isinstance(loader.get(place), dict) and key in loader:
            loader[place][key] = loader.pop(key)
