"""Read some variables of a MATLAB file of version 5, by scipy."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import loadmat, whosmat

from mmmask3d.conversion.paths import SourceError


def read_mat5(
    path: Path, names: Sequence[str], fields: Mapping[str, Sequence[str]] | None = None
) -> dict[str, Any]:
    """Read variables.

    Args:
        path: The file.
        names: Variables that have to be there; others are passed over.
        fields: Fields to keep of a struct array, by variable; all of them by default.

    Returns:
        By name. Numeric: an array with the axes of MATLAB. Text: a string. Cell array: a list, and
        struct array: a list of dicts, both in MATLAB's order (columns first). Rows of text: a list.

    Raises:
        SourceError: The file is of another format, damaged, or lacks a variable.
        OSError: It cannot be opened.
    """
    fields = fields or {}
    path.open('rb').close()
    try:
        content = loadmat(path, variable_names=list(names))
        found = {name: _plain(content[name], fields.get(name)) for name in names if name in content}
        there = list(found) if len(found) == len(names) else [name for name, *_ in whosmat(path)]
    except Exception as error:  # scipy raises nearly anything on damaged files
        raise SourceError(
            f'{path}: cannot be read as a MATLAB file of version 5 ({type(error).__name__}: '
            f'{error}). Copy the file again.'
        ) from error
    missing = [name for name in names if name not in found]
    if missing:
        raise SourceError(
            f'{path}: lacks the variable {", ".join(missing)}, found '
            f'{", ".join(sorted(there)) or "none"}. Is this another file?'
        )
    return found


def _plain(value: Any, fields: Sequence[str] | None = None) -> Any:
    """What :func:`read_mat5` returns for an array of scipy's."""
    kind = value.dtype.kind if isinstance(value, np.ndarray) else ''
    if kind and value.dtype.names:
        kept = [name for name in value.dtype.names if fields is None or name in fields]
        return [{name: _plain(record[name]) for name in kept} for record in value.ravel('F')]
    if kind == 'O':
        return [_plain(part) for part in value.ravel('F')]
    if kind == 'U':
        return ''.join(value.ravel()) if value.size <= 1 else value.ravel().tolist()
    if not kind or kind not in 'biuf':
        raise ValueError(f'a variable of type {getattr(value, "dtype", type(value).__name__)}')
    return value
