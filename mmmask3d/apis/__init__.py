"""Python API: models by name; chains of the project's tools.

What is named here is imported when it is asked for: the tools use modules of this package without
PyTorch being loaded for them.
"""

from importlib import import_module
from typing import Any

_MODULES = {
    'MaskedRGBDInferencer': 'inferencer',
    'get_model': 'model_zoo',
    'list_models': 'model_zoo',
}

__all__ = ['MaskedRGBDInferencer', 'get_model', 'list_models']


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(import_module(f'{__name__}.{_MODULES[name]}'), name)
