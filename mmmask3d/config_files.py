"""Reads config files: the one way in for tools, inferencer, model zoo and data checks."""

import os
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config

from mmmask3d.config_scopes import register_config_scopes


def read_config_file(
    path: str | os.PathLike, cfg_options: Mapping[str, Any] | None = None
) -> Config:
    """Read a config file, which may inherit across packages (``_base_ = 'mmmask3d::...'``).

    Args:
        path: The file; ``~`` is the home folder.
        cfg_options: Overrides by dotted key.

    Raises:
        FileNotFoundError: There is no such file.
    """
    register_config_scopes()
    path = os.path.expanduser(os.fspath(path))
    if not os.path.isfile(path):
        raise FileNotFoundError(f'{path}: config file not found (current folder: {os.getcwd()}).')
    cfg = Config.fromfile(path)
    if cfg_options:
        cfg.merge_from_dict(dict(cfg_options))
    # mmengine puts `_scope_` into every dict with a type that a `_base_ = 'package::...'` brings:
    # the name of the package. Our configs are written for their default scope, mmseg in those of
    # segmentation, whose components our registries do not know.
    if cfg.get('default_scope'):
        for entry in nested_dicts(cfg._cfg_dict):
            if entry.get('_scope_') == 'mmmask3d':
                del entry['_scope_']
    # Of other packages it would be handed on to the collate function, which does not know it.
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        collate = (cfg.get(name) or {}).get('collate_fn')
        if isinstance(collate, dict):
            collate.pop('_scope_', None)
    return cfg


def nested_dicts(value: Any) -> Iterator[Any]:
    """Every dict of a config, at any depth, from the outermost."""
    if isinstance(value, Mapping):
        yield value
        value = list(value.values())
    if isinstance(value, list | tuple):
        for entry in value:
            yield from nested_dicts(entry)
