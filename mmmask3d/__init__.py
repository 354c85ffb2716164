"""Masked RGB-D pre-training (Mask3D, CVPR 2023) for OpenMMLab.

Importing the package is light: no model library is imported until a registry is asked for
one of our components (see :mod:`mmmask3d.registry`).
"""

from importlib import import_module
from typing import Any

from .version import __version__

__all__ = ['__version__', 'register_all_modules']


def __getattr__(name: str) -> Any:
    if name != 'register_all_modules':
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return import_module('mmmask3d.setup_env').register_all_modules
