"""Python API: models by name, and inference. What is named here is imported when asked for."""

from importlib import import_module
from typing import Any

_MODULES = {
    'MaskedRGBDInferencer': 'mmmask3d.apis.inferencer',
    'get_model': 'mmmask3d.weights.zoo',
    'list_models': 'mmmask3d.weights.index',
}

__all__ = ['MaskedRGBDInferencer', 'get_model', 'list_models']


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(import_module(_MODULES[name]), name)
