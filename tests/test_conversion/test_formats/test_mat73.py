"""MATLAB 7.3 files: values, files of another kind, and damage."""

import h5py
import numpy as np
import pytest
import scipy.io

from mmmask3d.conversion.formats.mat73 import find_array, open_mat73, read_part, read_text
from mmmask3d.conversion.paths import SourceError


def test_version_73(mat73, tmp_path):
    path = tmp_path / 'b.mat'
    with mat73(path) as file:
        file.array('depth', np.arange(6, dtype=np.float32).reshape(2, 3), 'single')
        file.references('names', [file.text('one'), file.text('zwölf')], False, 'cell')
    with open_mat73(path) as file:
        depth = find_array(file, 'depth', (3, None), 'f', 'depth')
        np.testing.assert_array_equal(read_part(depth, 1, 'depth'), [1, 4])  # a MATLAB column
        names = find_array(file, 'names', (1, 2), 'O', 'names')
        texts = [read_text(file, r, 'names') for r in read_part(names, (), 'names').ravel()]
        assert texts == ['one', 'zwölf']
        assert find_array(file, names[0, 0], (3, 1), 'u', 'names').shape == (3, 1)


def test_not_version_73(tmp_path):
    scipy.io.savemat(tmp_path / 'old.mat', {'depth': 1})
    with (
        pytest.raises(SourceError, match=r'no HDF5 signature.*another version'),
        open_mat73(tmp_path / 'old.mat'),
    ):
        pass
    (tmp_path / 'empty.mat').write_bytes(b'')
    with pytest.raises(SourceError, match='no HDF5 signature'), open_mat73(tmp_path / 'empty.mat'):
        pass
    with pytest.raises(OSError, match='absent'), open_mat73(tmp_path / 'absent.mat'):
        pass


def test_version_73_cut_short(mat73, tmp_path):
    path = tmp_path / 'b.mat'
    with mat73(path) as file:
        file.array('depth', np.zeros((50, 50), np.float32), 'single')
    content = path.read_bytes()
    path.write_bytes(content[:-1000])
    with (
        pytest.raises(SourceError, match=rf'b\.mat: the HDF5 .* {len(content) - 1000} bytes .*eof'),
        open_mat73(path),
    ):
        pass


def declare(file, name='depth', shape=(4, 5), dtype='f4', **options):
    return file.create_dataset(name, shape, dtype, **options)


@pytest.mark.parametrize(
    ('expected', 'kinds', 'options', 'message'),
    [
        ((4, 6), 'f', {}, 'declared as float32 4x5 .* expected 4x6 .* kind f'),
        ((4, 5, None), 'f', {}, 'expected 4x5xany'),
        ((4, 5), 'u', {}, 'declared as float32'),
        ((4, 5), 'f', dict(dtype='i4'), 'declared as int32'),
        ((None, None), 'f', dict(shape=None), 'declared as float32'),
    ],
)
def test_declarations_that_do_not_fit(tmp_path, expected, kinds, options, message):
    path = tmp_path / 'c.mat'
    with h5py.File(path, 'w') as file:
        declare(file, **options)
    with h5py.File(path) as file, pytest.raises(SourceError, match=f'here .*{message}'):
        find_array(file, 'depth', expected, kinds, 'here')


def test_what_is_no_array_or_not_there(tmp_path):
    path = tmp_path / 'c.mat'
    with h5py.File(path, 'w') as file:
        file.create_group('group')
        with pytest.raises(SourceError, match='is no array'):
            find_array(file, 'group', (4, 5), 'f', 'group')
        with pytest.raises(SourceError, match='absent is missing, found group'):
            find_array(file, 'absent', (4, 5), 'f', 'absent')


def test_a_damaged_chunk_is_a_damaged_frame(tmp_path):
    path = tmp_path / 'c.mat'
    values = np.random.default_rng(0).random((4, 20, 20))
    with h5py.File(path, 'w') as file:
        file.create_dataset('depth', data=values, chunks=(1, 20, 20), compression='gzip')
        place = file['depth'].id.get_chunk_info(2)
    content = bytearray(path.read_bytes())
    content[place.byte_offset : place.byte_offset + 50] = bytes(50)
    path.write_bytes(content)
    with h5py.File(path) as file:
        depth = find_array(file, 'depth', (4, 20, 20), 'f', 'depth')
        np.testing.assert_array_equal(read_part(depth, 1, 'depth'), values[1])
        with pytest.raises(SourceError, match='depth, frame 3: this part cannot be read'):
            read_part(depth, 2, 'depth, frame 3')
