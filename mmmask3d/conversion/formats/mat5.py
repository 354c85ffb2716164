"""Read some variables of a MATLAB file of version 5 that may be damaged.

scipy reads the file in a child process: it takes type codes as indices of a C array, so that a
flipped bit can end the process (a segmentation fault in scipy 1.17) or ask for any memory.
"""

import multiprocessing
import resource
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from mmmask3d.conversion.paths import SourceError

_SECONDS = 600.0
_MEMORY = 8 * 2**30  # bytes of address space; SUN RGB-D's 10,335 records take 0.4 GiB


def read_mat5(
    path: Path,
    names: Sequence[str],
    largest: int,
    fields: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Any]:
    """Read variables.

    Args:
        path: The file.
        names: Variables that have to be there; others are passed over.
        largest: Most bytes that the file may have.
        fields: Fields to keep of a struct array, by variable; all of them by default.

    Returns:
        By name. Numeric: an array with the axes of MATLAB. Text: a string. Cell array: a list, and
        struct array: a list of dicts, both in MATLAB's order (columns first). Rows of text: a list.

    Raises:
        SourceError: The file is larger, of another format, damaged, or lacks a variable.
        OSError: It cannot be opened.
    """
    size = path.stat().st_size
    if size > largest:
        raise SourceError(f'{path}: {size} bytes, expected at most {largest} of such a file.')
    try:
        found, there = call_in_child(_load, (path, list(names), dict(fields or {})), _SECONDS)
    except ChildError as error:
        raise SourceError(
            f'{path}: cannot be read as a MATLAB file of version 5 ({error}). Copy the file again.'
        ) from error
    missing = [name for name in names if name not in found]
    if missing:
        raise SourceError(
            f'{path}: lacks the variable {", ".join(missing)}, found '
            f'{", ".join(sorted(there)) or "none"}. Is this another file?'
        )
    return found


def _load(path: Path, names: list[str], fields: dict) -> tuple[dict[str, Any], list[str]]:
    """The variables that are there, and the names of all; in the child."""
    from scipy.io import loadmat, whosmat

    limits = resource.getrlimit(resource.RLIMIT_AS)
    most = min([_MEMORY, *(limit for limit in limits if limit != resource.RLIM_INFINITY)])
    resource.setrlimit(resource.RLIMIT_AS, (most, limits[1]))
    content = loadmat(path, variable_names=names)
    found = {name: _plain(content[name], fields.get(name)) for name in names if name in content}
    return found, list(found) if len(found) == len(names) else [n for n, *_ in whosmat(path)]


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


# ------------------------------------------------------------------ child process


class ChildError(RuntimeError):
    """What a child process was asked for failed, crashed or took too long."""


def call_in_child(function: Callable, arguments: tuple, seconds: float) -> Any:
    """Call a function in a process of its own, which may crash.

    Args:
        function: Of a module, to be found by its name.
        arguments: Of it.
        seconds: After which the process is killed.

    Raises:
        ChildError: It raised an error, crashed or took too long.
    """
    context = multiprocessing.get_context('spawn')
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(theirs, function, arguments), daemon=True)
    process.start()
    theirs.close()
    try:
        if not ours.poll(seconds):
            raise ChildError(f'no end after {seconds:g} seconds')
        result, error = ours.recv()
    except EOFError:
        process.join()
        raise ChildError(f'the reader crashed, exit code {process.exitcode}') from None
    finally:
        process.kill()
        process.join()
        ours.close()
    if error:
        raise ChildError(error)
    return result


def _answer(pipe: Connection, function: Callable, arguments: tuple) -> None:
    try:
        answer = function(*arguments), ''
    except Exception as error:  # readers raise nearly anything on damaged files
        answer = None, f'{type(error).__name__}: {error}'
    pipe.send(answer)
