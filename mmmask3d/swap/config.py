"""Writes the planned swap as a small config that inherits from the user's, and as a diff."""

import os
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from yapf.yapflib.yapf_api import FormatCode  # mmengine brings it

from mmmask3d.config_files import read_config_file
from mmmask3d.config_scopes import register_config_scopes
from mmmask3d.swap.backbone import SwapError
from mmmask3d.swap.plan import Change, Swap, brief

_LINE = 96
_STYLE = dict(
    based_on_style='pep8', column_limit=_LINE, dedent_closing_brackets=True,
    split_all_top_level_comma_separated_values=True,
)  # fmt: skip


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
        lines += _rendered(key, entry)
    text: str = FormatCode('\n'.join(lines) + '\n', style_config=_STYLE)[0]
    return text


def _rendered(key: str, entry: Any, depth: int = 0) -> list[str]:
    """Source without a layout, but for the comments."""
    sign, comma = ('=', ',') if depth else (' = ', '')
    if isinstance(entry, Change):
        value = entry.new
        if entry.replaces and isinstance(value, Mapping):
            value = {'_delete_': True, **value}
        comment = textwrap.wrap(
            entry.reason, _LINE - 4 * depth, initial_indent='# ', subsequent_indent='# '
        )
        return [*comment, f'{key}{sign}{_source(value)}{comma}']
    inner = [line for name, one in entry.items() for line in _rendered(name, one, depth + 1)]
    return [f'{key}{sign}dict(', *inner, f'){comma}']


def _source(value: Any) -> str:
    """As Python source on one line."""
    if isinstance(value, Mapping):
        if all(isinstance(key, str) and key.isidentifier() for key in value):
            return f'dict({", ".join(f"{k}={_source(v)}" for k, v in value.items())})'
        return '{' + ', '.join(f'{k!r}: {_source(v)}' for k, v in value.items()) + '}'
    if isinstance(value, list):
        return f'[{", ".join(map(_source, value))}]'
    if isinstance(value, tuple):
        return f'({", ".join(map(_source, value))}{"," if len(value) == 1 else ""})'
    return repr(value)


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
