"""Read MATLAB files of version 7.3, which are HDF5, that may be damaged.

Arrays are stored with their dimensions reversed, and cells and struct arrays as references to other
objects of the file. Nothing is read before its declared shape and type have been checked: a damaged
file of a few kilobytes can declare terabytes.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np

from mmmask3d.conversion.paths import SourceError
from mmmask3d.datasets.depth_io import FrameError

_SIGNATURE = b'\x89HDF\r\n\x1a\n'
_USER_BLOCK = 512  # MATLAB's own header before the HDF5 signature
_CHUNK_CACHE = 64 * 2**20  # bytes a data set; chunks may span several frames
_LONGEST_TEXT = 4096

_T = TypeVar('_T')


def _try(read: Callable[[], _T], path: str | Path, what: str, error: type[ValueError]) -> _T:
    """Call a reader of the libraries; on damaged files they raise nearly every kind of exception.

    Hence the broad ``except``: it covers that one call, not code of this project.
    """
    try:
        return read()
    except Exception as reason:
        text = ' '.join(str(reason).split()) or type(reason).__name__
        raise error(
            f'{path}: {what} cannot be read ({text[:300]}). The file is damaged or incomplete; '
            f'copy it again.'
        ) from reason


@contextmanager
def open_mat73(path: Path) -> Iterator[h5py.File]:
    """Open a MATLAB file of version 7.3.

    Raises:
        SourceError: It is no HDF5 file, or cut short.
        OSError: It cannot be opened.
    """
    with path.open('rb') as file:
        start = file.read(_USER_BLOCK + len(_SIGNATURE))
    if _SIGNATURE not in (start[: len(_SIGNATURE)], start[_USER_BLOCK:]):
        kind = ' (a MATLAB file of another version)' if start.startswith(b'MATLAB 5') else ''
        raise SourceError(
            f'{path}: no HDF5 signature at byte 0 or {_USER_BLOCK}, expected a MATLAB file of '
            f'version 7.3; it starts with {start[:16]!r}{kind}. Use the file as distributed.'
        )
    size = os.path.getsize(path)
    opened = _try(
        lambda: h5py.File(path, 'r', rdcc_nbytes=_CHUNK_CACHE),
        path,
        f'the HDF5 structure of its {size} bytes',
        SourceError,
    )
    try:
        yield opened
    finally:
        opened.close()


def find(file: h5py.File | h5py.Group, name: str, path: Path) -> h5py.Dataset | h5py.Group:
    """A variable, or a field of a struct array.

    Raises:
        SourceError: It is missing or damaged.
    """
    where = f'{path}: {name}'
    if not _try(lambda: name in file, path, name, SourceError):
        found = _try(lambda: sorted(file), path, 'the list of variables', SourceError)
        raise SourceError(
            f'{where} is missing, found {", ".join(found) or "nothing"}. '
            f'Is this another file, or one saved again without it?'
        )
    return _try(lambda: file[name], path, name, SourceError)


def check_array(
    dataset: Any, shape: Sequence[int | None], kinds: str, where: str, largest: int | None = None
) -> h5py.Dataset:
    """Check what an array is declared to be, before any of it is read.

    Args:
        dataset: What :func:`find` returned.
        shape: Expected, as stored (reversed); None where it does not matter.
        kinds: Kinds of numpy types: 'u', 'f', 'O' (references).
        where: Its name, for messages.
        largest: Most elements.

    Raises:
        SourceError: It is declared otherwise.
    """
    if not isinstance(dataset, h5py.Dataset):
        raise SourceError(f'{where} is no array.')
    found = _try(lambda: (dataset.shape, dataset.dtype), where, 'its declaration', SourceError)
    sides, dtype = found
    fits = sides is not None and len(sides) == len(shape)
    fits = fits and all(w is None or w == s for w, s in zip(shape, sides, strict=True))
    fits = fits and dtype.kind in kinds
    if not fits or (largest is not None and int(np.prod(sides, dtype=object)) > largest):
        wanted = 'x'.join('any' if s is None else str(s) for s in shape)
        is_ = 'x'.join(map(str, sides)) if sides is not None else 'empty'
        limit = f', at most {largest} elements' if largest is not None else ''
        raise SourceError(
            f'{where} is declared as {dtype} {is_} (as stored), expected {wanted}{limit} of kind '
            f'{" or ".join(kinds)}. The file is damaged, or not the one distributed.'
        )
    return dataset


def read_part(dataset: h5py.Dataset, part: Any, where: str) -> np.ndarray:
    """Read part of an array that :func:`check_array` has passed.

    Raises:
        FrameError: It cannot be read.
    """
    return _try(lambda: dataset[part], where, 'this part', FrameError)


def follow(file: h5py.File, reference: Any, where: str) -> Any:
    """The object that an element of a cell or struct array refers to.

    Raises:
        FrameError: The reference leads nowhere.
    """
    if not isinstance(reference, h5py.Reference) or not reference:
        raise FrameError(f'{where} refers to nothing. The file is damaged; copy it again.')
    return _try(lambda: file[reference], where, 'what it refers to', FrameError)


def read_text(file: h5py.File, reference: Any, where: str) -> str:
    """A string of a cell array: (length, 1) uint16, UTF-16 code units.

    Raises:
        SourceError: It is something else.
        FrameError: It cannot be read.
    """
    codes = check_array(follow(file, reference, where), (None, 1), 'u', where, _LONGEST_TEXT)
    units = read_part(codes, (slice(None), 0), where)
    return _try(
        lambda: units.astype('<u2').tobytes().decode('utf-16-le'), where, 'text', FrameError
    )
