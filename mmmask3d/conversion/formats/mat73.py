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
from mmmask3d.datasets.depth_io import FrameError

_CHUNK_CACHE = 64 * 2**20  # bytes a data set; chunks may span several frames

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
        start = file.read(16)
    if not h5py.is_hdf5(path):
        kind = ' (a MATLAB file of another version)' if start.startswith(b'MATLAB 5') else ''
        raise SourceError(
            f'{path}: no HDF5 signature, expected a MATLAB file of version 7.3; it starts with '
            f'{start!r}{kind}. Use the file as distributed.'
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


def check_array(dataset: Any, shape: Sequence[int | None], kinds: str, where: str) -> h5py.Dataset:
    """Check what an array is declared to be.

    Args:
        dataset: What :func:`find` returned.
        shape: Expected, as stored (reversed); None where it does not matter.
        kinds: Kinds of numpy types: 'u', 'f', 'O' (references).
        where: Its name, for messages.

    Raises:
        SourceError: It is declared otherwise.
    """
    if not isinstance(dataset, h5py.Dataset):
        raise SourceError(f'{where} is no array.')
    found = _try(lambda: (dataset.shape, dataset.dtype), where, 'its declaration', SourceError)
    sides, dtype = found[0] or (), found[1]
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
    return _try(lambda: file[reference], where, 'what it refers to', FrameError)


def read_text(file: h5py.File, reference: Any, where: str) -> str:
    """A string of a cell array: (length, 1) uint16, UTF-16 code units.

    Raises:
        SourceError: It is something else.
        FrameError: It cannot be read.
    """
    codes = check_array(follow(file, reference, where), (None, 1), 'u', where)
    units = read_part(codes, (slice(None), 0), where)
    return _try(
        lambda: units.astype('<u2').tobytes().decode('utf-16-le'), where, 'text', FrameError
    )
