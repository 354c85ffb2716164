"""Read MATLAB files of version 7.3, which are HDF5, that may be damaged.

Arrays are stored with their dimensions reversed, and cells and struct arrays as references to other
objects of the file.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np

from mmmask3d.conversion.paths import SourceError

_CHUNK_CACHE = 64 * 2**20  # bytes a data set; chunks may span several frames

_T = TypeVar('_T')


def _try(read: Callable[[], _T], where: str | Path, what: str) -> _T:
    """Call a reader of the libraries; on damaged files they raise nearly every kind of exception.

    Hence the broad ``except``: it covers that one call, not code of this project.
    """
    try:
        return read()
    except Exception as reason:
        text = ' '.join(str(reason).split()) or type(reason).__name__
        raise SourceError(
            f'{where}: {what} cannot be read ({text[:300]}). The file is damaged or incomplete; '
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
        start = file.read(16)
    if not h5py.is_hdf5(path):
        kind = ' (a MATLAB file of another version)' if start.startswith(b'MATLAB 5') else ''
        raise SourceError(
            f'{path}: no HDF5 signature, expected a MATLAB file of version 7.3; it starts with '
            f'{start!r}{kind}. Use the file as distributed.'
        )
    what = f'the HDF5 structure of its {os.path.getsize(path)} bytes'
    opened = _try(lambda: h5py.File(path, 'r', rdcc_nbytes=_CHUNK_CACHE), path, what)
    with opened:
        yield opened


def find_array(
    file: h5py.File, key: Any, shape: Sequence[int | None], kinds: str, where: str
) -> h5py.Dataset:
    """Find an array, and check what it is declared to be.

    Args:
        file: The file.
        key: Name of a variable, or of a field of a struct array (with '/'); or a reference, an
            element of a cell or struct array.
        shape: Expected, as stored (reversed); None where it does not matter.
        kinds: Kinds of numpy types: 'u', 'f', 'O' (references).
        where: The file and the variable, for messages.

    Raises:
        SourceError: It is missing, damaged, or declared otherwise.
    """
    if isinstance(key, str) and not _try(lambda: key in file, where, 'it'):
        found = ', '.join(_try(lambda: sorted(file), where, 'the list of variables'))
        raise SourceError(
            f'{where} is missing, found {found or "nothing"}. Is this another file, or one saved '
            f'again without it?'
        )
    dataset = _try(lambda: file[key], where, 'it')
    if not isinstance(dataset, h5py.Dataset):
        raise SourceError(f'{where} is no array.')
    sides, dtype = _try(lambda: (dataset.shape or (), dataset.dtype), where, 'its declaration')
    fits = len(sides) == len(shape) and dtype.kind in kinds
    if not fits or any(w not in (None, s) for w, s in zip(shape, sides, strict=True)):
        wanted = 'x'.join('any' if s is None else str(s) for s in shape)
        raise SourceError(
            f'{where} is declared as {dtype} {"x".join(map(str, sides))} (as stored), expected '
            f'{wanted} of kind {" or ".join(kinds)}. The file is damaged, or not the one '
            f'distributed.'
        )
    return dataset


def read_part(dataset: h5py.Dataset, part: Any, where: str) -> np.ndarray:
    """Read part of an array.

    Raises:
        SourceError: It is damaged.
    """
    return _try(lambda: dataset[part], where, 'this part')


def read_text(file: h5py.File, reference: Any, where: str) -> str:
    """A string of a cell array: (length, 1) uint16, UTF-16 code units.

    Raises:
        SourceError: It is damaged, or something else.
    """
    units = read_part(find_array(file, reference, (None, 1), 'u', where), (slice(None), 0), where)
    return _try(lambda: units.astype('<u2').tobytes().decode('utf-16-le'), where, 'text')
