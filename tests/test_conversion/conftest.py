"""A made-up data set with its converter, a writer of MATLAB 7.3 files, and a look at folders."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def toy(monkeypatch):
    """The module `toy_converter`, importable by worker processes too."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    import toy_converter

    yield toy_converter
    sys.modules.pop('toy_converter')


def read_tree(root, state=False):
    """Content of every file below a folder by relative name; without the state of conversions."""
    root = Path(root)
    return {
        str(p.relative_to(root)): p.read_bytes()
        for p in sorted(root.rglob('*'))
        if p.is_file() and (state or '.conversion' not in p.parts)
    }


@pytest.fixture(name='read_tree', scope='session')
def _read_tree():
    return read_tree


class Mat73Writer:
    """Writes variables into an open file as MATLAB does: axes reversed, cells as references."""

    def __init__(self, file: h5py.File) -> None:
        self.file = file
        self.refs = file.create_group('#refs#')

    def array(self, name: str, matlab: np.ndarray, kind: str, **options) -> h5py.Dataset:
        """A matrix, given with its axes as MATLAB has them."""
        stored = np.ascontiguousarray(matlab.T)
        dataset = self.file.create_dataset(name, data=stored, **options)
        dataset.attrs['MATLAB_class'] = np.bytes_(kind)
        return dataset

    def hidden(self, matlab: np.ndarray, kind: str) -> h5py.Reference:
        """An object that only a reference leads to."""
        return self.array(f'#refs#/{len(self.refs):x}', matlab, kind).ref

    def text(self, text: str) -> h5py.Reference:
        """A string: 1 x length."""
        return self.hidden(np.array([[ord(c) for c in text]], np.uint16), 'char')

    def references(self, name: str, references: list, row: bool, kind: str) -> None:
        """A cell array, or a field of a struct array: 1 x N (row) or N x 1."""
        stored = np.array(references, h5py.ref_dtype).reshape((-1, 1) if row else (1, -1))
        dataset = self.file.create_dataset(name, data=stored, dtype=h5py.ref_dtype)
        dataset.attrs['MATLAB_class'] = np.bytes_(kind)


@pytest.fixture(scope='session')
def mat73():
    """Function `mat73(path)`: context of a Mat73Writer for a new file with MATLAB's header."""

    @contextmanager
    def write(path) -> Iterator[Mat73Writer]:
        with h5py.File(path, 'w', userblock_size=512) as file:
            yield Mat73Writer(file)
        text = b'MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: Sat Mar 2 2013 HDF5 schema 1.0'
        with open(path, 'r+b') as file:
            file.write(text.ljust(124) + b'\x00\x02IM')

    return write
