"""MATLAB 5 files: what is made of their variables, and damaged ones."""

import h5py
import numpy as np
import pytest
import scipy.io

from mmmask3d.conversion.formats.mat5 import read_mat5
from mmmask3d.conversion.paths import SourceError


def save(path, content, compressed=False):
    scipy.io.savemat(path, content, do_compression=compressed)
    return path


def cells(*values):
    array = np.empty((1, len(values)), object)
    array[0, :] = values
    return array


@pytest.mark.parametrize('compressed', [False, True])
def test_values(tmp_path, compressed):
    records = np.array(
        [[('a', 1), ('b', 2)], [('c', 3), ('d', 4)]], [('name', object), ('number', object)]
    )
    content = {
        'matrix': np.arange(6.0).reshape(2, 3) + 0.5,
        'integers': np.array([[1.0, 2.0, 300.0]]),
        'text': 'zwölf /n/fs/sun3d',
        'no_text': '',
        'cells': cells('one', np.arange(3), cells('deeper', 'still')),
        'struct': {'labels13': np.arange(4), 'classNames': cells('bed', 'books')},
        'records': records,
        'strange': np.array([1j]),  # not asked for, so it may be anything
    }
    path = save(tmp_path / 'a.mat', content, compressed)
    names = [name for name in content if name != 'strange']
    found = read_mat5(path, names, {'records': ['name']})
    np.testing.assert_array_equal(found['matrix'], content['matrix'])
    np.testing.assert_array_equal(found['integers'], [[1, 2, 300]])
    assert (found['text'], found['no_text']) == ('zwölf /n/fs/sun3d', '')
    one, numbers, deeper = found['cells']
    assert (one, numbers.tolist(), deeper) == ('one', [[0, 1, 2]], ['deeper', 'still'])
    (record,) = found['struct']
    assert (record['labels13'].tolist(), record['classNames']) == ([[0, 1, 2, 3]], ['bed', 'books'])
    assert found['records'] == [{'name': name} for name in 'acbd']  # columns first
    with pytest.raises(SourceError, match=r'a\.mat: .*a variable of type complex128'):
        read_mat5(path, ['strange'])
    with pytest.raises(SourceError, match=r'lacks the variable absent, found cells, integers'):
        read_mat5(path, ['text', 'absent'])


def test_other_files(tmp_path):
    path = save(tmp_path / 'a.mat', {'x': 1})
    with h5py.File(path, 'w', userblock_size=512) as file:
        file['x'] = 1
    with pytest.raises(SourceError, match=r'a\.mat: cannot be read as a MATLAB file of version 5'):
        read_mat5(path, ['x'])
    with pytest.raises(OSError, match='absent'):
        read_mat5(tmp_path / 'absent.mat', ['x'])


@pytest.mark.parametrize('compressed', [False, True])
def test_cut_short(tmp_path, compressed):
    path = save(tmp_path / 'a.mat', {'x': np.random.default_rng(0).random(40)}, compressed)
    whole = path.read_bytes()
    for size in (0, 100, 150, len(whole) - 40):
        path.write_bytes(whole[:size])
        with pytest.raises(SourceError, match=r'a\.mat: '):
            read_mat5(path, ['x'])
