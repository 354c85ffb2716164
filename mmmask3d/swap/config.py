"""Writes the planned swap as a small config that inherits from the user's, and as a diff."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmmask3d.config_files import read_config_file
from mmmask3d.config_scopes import register_config_scopes
from mmmask3d.swap.backbone import SwapError
from mmmask3d.swap.plan import Change, Swap, brief

_LINE = 96


def read_config(source: str) -> Config:
    """Read a config file, or one named by its package (``mmdet::retinanet/...py``).

    Raises:
        FileNotFoundError: there is no such file.
        SwapError: no such package, a config of the lazy kind (``with read_base():``), or one that
            cannot be read.
    """
    register_config_scopes()
    if '::' in source:
        path = _packaged(source)
    else:
        path = os.path.expanduser(source)
    if not os.path.isfile(path):
        raise FileNotFoundError(f'{source}: config file not found (looked for {path}).')
    try:
        lazy = path.endswith('.py') and Config._is_lazy_import(path)
        cfg = None if lazy else read_config_file(path)
    except Exception as error:  # of any kind: a config is code, and imports more
        raise SwapError(
            f'{source}: the config cannot be read: {type(error).__name__}: {error}. What it '
            f'inherits from and imports has to be there; modules of your own are found through '
            f'PYTHONPATH.'
        ) from error
    if lazy:
        raise SwapError(
            f'{source} is a config of the newer kind, made of Python imports, from which a config '
            f'with _base_ cannot inherit. Write it out first: python -c "from mmengine import '
            f"Config; Config.fromfile({path!r}).dump('written_out.py')\"."
        )
    return cfg


def _packaged(source: str) -> str:
    """Path of ``package::folder/config.py``."""
    try:
        return Config._get_cfg_path(source, 'config.py')[0]
    except AssertionError as error:
        raise SwapError(f'{source}: there is no such package: {error}') from error
    except ValueError as error:  # mmengine takes no + and no dot in a folder's name
        raise SwapError(
            f'{source}: mmengine takes only letters, digits, - and _ in such a name. Give the '
            f'path of the file.'
        ) from error


def base_of(source: str, out: str | os.PathLike) -> str:
    """What ``_base_`` says in a config at ``out``: a package's name, or a relative path."""
    if '::' in source:
        return source
    folder = Path(out).expanduser().resolve().parent
    return Path(os.path.relpath(Path(source).expanduser().resolve(), folder)).as_posix()


def render_config(swap: Swap, base: str, checkpoint: str | None) -> str:
    """The text of the new config; each entry under a comment that says why it is there."""
    tree: dict[str, Any] = {}
    for change in swap.changes:
        *parents, last = change.key.split('.')
        holder = tree
        for key in parents:
            holder = holder.setdefault(key, {})
        holder[last] = change
    what = f'with {checkpoint}' if checkpoint else 'from random weights'
    lines = [f'# {base}, its backbone replaced by the encoder {what}.', f'_base_ = {base!r}']
    for key, entry in tree.items():
        lines += _rendered(key, entry, '', top=True)
    return '\n'.join(lines) + '\n'


def _rendered(key: str, entry: Any, indent: str, top: bool = False) -> list[str]:
    comma = '' if top else ','
    sign = ' = ' if top else '='
    if isinstance(entry, Change):
        value = entry.new
        if entry.replaces and isinstance(value, Mapping):
            value = {'_delete_': True, **value}
        body = _value(value, indent, len(key) + 3)
        return [*_comment(entry.reason, indent), f'{indent}{key}{sign}{body}{comma}']
    lines = [f'{indent}{key}{sign}dict(']
    for name, inner in entry.items():
        lines += _rendered(name, inner, indent + '    ')
    return [*lines, f'{indent}){comma}']


def _value(value: Any, indent: str, used: int = 0) -> str:
    """As Python source, on one line where it fits."""
    line = _one_line(value)
    if len(indent) + used + len(line) <= _LINE or not isinstance(value, Mapping | list | tuple):
        return line
    deeper = indent + '    '
    if isinstance(value, Mapping) and _plain_keys(value):
        inner = [f'{deeper}{k}={_value(v, deeper, len(k) + 2)},' for k, v in value.items()]
        return '\n'.join(['dict(', *inner, f'{indent})'])
    if isinstance(value, Mapping):
        inner = [f'{deeper}{k!r}: {_value(v, deeper, len(repr(k)) + 3)},' for k, v in value.items()]
        return '\n'.join(['{', *inner, f'{indent}}}'])
    opening, closing = ('[', ']') if isinstance(value, list) else ('(', ')')
    inner = [f'{deeper}{_value(v, deeper, 1)},' for v in value]
    return '\n'.join([opening, *inner, f'{indent}{closing}'])


def _one_line(value: Any) -> str:
    if isinstance(value, Mapping):
        if _plain_keys(value):
            return f'dict({", ".join(f"{k}={_one_line(v)}" for k, v in value.items())})'
        return '{' + ', '.join(f'{k!r}: {_one_line(v)}' for k, v in value.items()) + '}'
    if isinstance(value, list):
        return f'[{", ".join(map(_one_line, value))}]'
    if isinstance(value, tuple):
        return f'({", ".join(map(_one_line, value))}{"," if len(value) == 1 else ""})'
    return repr(value)


def _plain_keys(value: Mapping) -> bool:
    return all(isinstance(key, str) and key.isidentifier() for key in value)


def _comment(text: str, indent: str) -> list[str]:
    lines, line = [], f'{indent}#'
    for word in text.split():
        if len(line) + 1 + len(word) > _LINE and line.strip() != '#':
            lines.append(line)
            line = f'{indent}#'
        line += f' {word}'
    return [*lines, line]


def describe(swap: Swap) -> str:
    """The diff against the user's config, and what it leaves to the user."""
    lines = []
    for change in swap.changes:
        lines += [
            f'{change.key}',
            f'  - {brief(change.old or None)}',
            f'  + {brief(change.new, 400) if change.new is not None else None}',
            f'  {change.reason}',
        ]
    lines += [f'note: {note}' for note in swap.notes]
    return '\n'.join(lines)
