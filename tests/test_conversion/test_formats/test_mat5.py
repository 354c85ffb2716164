"""The reader of MATLAB 5 files against scipy's, and on files that are damaged."""

import struct
import zlib

import h5py
import numpy as np
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mmmask3d.conversion.formats.mat5 import read_mat5
from mmmask3d.conversion.paths import SourceError

LARGEST = 100_000
TYPES = ['i1', 'u1', 'i2', 'u2', 'i4', 'u4', 'i8', 'u8', 'f4', 'f8']


def save(path, content, compressed=False):
    scipy.io.savemat(path, content, do_compression=compressed)
    return path


def cells(*values):
    array = np.empty((1, len(values)), object)
    array[0, :] = values
    return array


def same(found, matlab):
    """Whether what was read is what scipy reads of the same file."""
    if isinstance(found, str):
        return matlab.dtype.kind == 'U' and found == ''.join(np.ravel(matlab))
    if isinstance(found, list):
        matlab = np.ravel(matlab, order='F')
        if len(found) != len(matlab):
            return False
        if matlab.dtype.names is None:
            return all(same(f, m) for f, m in zip(found, matlab, strict=True))
        return all(
            set(f) == set(matlab.dtype.names) and all(same(f[k], m[k]) for k in f)
            for f, m in zip(found, matlab, strict=True)
        )
    return found.shape == matlab.shape and np.array_equal(found, matlab)


EXAMPLES = {
    'matrix': np.arange(6.0).reshape(2, 3),
    'small integers in floats': np.array([[1.0, 2.0, 300.0]]),
    'three axes': np.arange(24, dtype=np.uint16).reshape(2, 3, 4),
    'one byte': np.uint8(7),
    'text': 'zwölf /n/fs/sun3d',
    'no text': '',
    'empty': np.empty((0, 3)),
    'cells': cells('one', np.arange(3), cells('deeper', 'still')),
    'struct': {'labels13': np.arange(40), 'classNames': cells('bed', 'books')},
    'records': np.array(
        [[('a', 1), ('b', 2)], [('c', 3), ('d', 4)]], [('rgbpath', object), ('valid', object)]
    ),
}


@pytest.mark.parametrize('compressed', [False, True])
@pytest.mark.parametrize('name', EXAMPLES)
def test_as_scipy_reads(name, compressed, tmp_path):
    path = save(tmp_path / 'a.mat', {'x': EXAMPLES[name], 'y': np.arange(5)}, compressed)
    expected = scipy.io.loadmat(path)
    found = read_mat5(path, ['x', 'y'], LARGEST)
    assert same(found['x'], expected['x'])
    assert same(found['y'], expected['y'])
    assert not same(found['x'], expected['y'])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_numbers(tmp_path_factory, data):
    dtype = np.dtype(data.draw(st.sampled_from(TYPES)))
    shape = data.draw(hnp.array_shapes(min_dims=2, max_dims=3, min_side=0, max_side=4))
    values = data.draw(hnp.arrays(dtype, shape))
    path = save(tmp_path_factory.mktemp('m') / 'a.mat', {'x': values}, data.draw(st.booleans()))
    found = read_mat5(path, ['x'], LARGEST)['x']
    np.testing.assert_array_equal(found, values)  # NaN equal to NaN
    assert found.dtype == dtype


def test_big_endian(tmp_path):
    """The file of a machine of the other byte order, written by hand."""

    def element(kind, content):
        return struct.pack('>II', kind, len(content)) + content + bytes(-len(content) % 8)

    matrix = (
        element(6, struct.pack('>II', 6, 0))  # double
        + element(5, struct.pack('>ii', 1, 2))
        + element(1, b'x')
        + element(4, struct.pack('>HH', 258, 3))
    )
    header = b'MATLAB 5.0 MAT-file'.ljust(124) + b'\x01\x00MI'
    (tmp_path / 'a.mat').write_bytes(header + element(14, matrix))
    assert scipy.io.loadmat(tmp_path / 'a.mat')['x'].tolist() == [[258, 3]]
    assert read_mat5(tmp_path / 'a.mat', ['x'], LARGEST)['x'].tolist() == [[258, 3]]


def test_other_variables_and_fields_are_passed_over(tmp_path):
    """They may hold what is not read: complex numbers here."""
    content = {
        'strange': np.array([1j]),
        'records': np.array([('a', 1j), ('b', 2j)], [('name', object), ('strange', object)]),
    }
    for compressed in (False, True):
        path = save(tmp_path / 'a.mat', content, compressed)
        found = read_mat5(path, ['records'], LARGEST, {'records': ['name']})
        assert found == {'records': [{'name': 'a'}, {'name': 'b'}]}
        with pytest.raises(SourceError, match='which is not read'):
            read_mat5(path, ['records'], LARGEST)
        with pytest.raises(SourceError, match=r'lacks the variable absent, found records, strange'):
            read_mat5(path, ['absent'], LARGEST)


def test_limits(tmp_path):
    path = save(tmp_path / 'a.mat', {'x': np.zeros((1000, 1000))}, compressed=True)
    assert path.stat().st_size < 10_000
    with pytest.raises(SourceError, match=r'offset 128, unpacked: more than the 10000 bytes'):
        read_mat5(path, ['x'], 10_000)
    assert read_mat5(path, ['x'], 8_100_000)['x'].shape == (1000, 1000)
    with pytest.raises(SourceError, match=r'bytes, expected at most 100 of such a file'):
        read_mat5(path, ['x'], 100)
    nested = 'x'
    for _ in range(12):
        nested = cells(nested)
    path = save(tmp_path / 'b.mat', {'x': nested})
    with pytest.raises(SourceError, match='more than 8 levels of cells'):
        read_mat5(path, ['x'], LARGEST)


def test_other_formats(tmp_path):
    path = tmp_path / 'a.mat'
    with h5py.File(path, 'w', userblock_size=512) as file:
        file['x'] = 1
    with pytest.raises(SourceError, match=r'version 7\.3 \(HDF5\), expected version 5'):
        read_mat5(path, ['x'], LARGEST)
    scipy.io.savemat(path, {'x': 1}, format='4')
    with pytest.raises(SourceError, match='no header of a MATLAB file of version 5'):
        read_mat5(path, ['x'], LARGEST)
    with pytest.raises(OSError, match='absent'):
        read_mat5(tmp_path / 'absent.mat', ['x'], LARGEST)


@pytest.mark.parametrize('compressed', [False, True])
def test_cut_short_anywhere(tmp_path, compressed):
    content = {'numbers': np.arange(40.0), 'cells': EXAMPLES['cells'], 's': EXAMPLES['struct']}
    path = save(tmp_path / 'a.mat', content, compressed)
    whole = path.read_bytes()
    # Every third byte, and the last ones; up to seven bytes of padding may be missing.
    for size in (*range(0, len(whole) - 40, 3), *range(len(whole) - 40, len(whole) - 7)):
        path.write_bytes(whole[:size])
        with pytest.raises(SourceError, match=r'a\.mat[:,] '):
            read_mat5(path, list(content), LARGEST)


def patched(path, old, new):
    """Replace what stands in the file once."""
    data = path.read_bytes()
    assert data.count(old) == 1
    path.write_bytes(data.replace(old, new))


SIDES = struct.pack('<II', 5, 8)


@pytest.mark.parametrize(
    ('old', 'new', 'message'),
    [
        # Terabytes of numbers.
        (SIDES + struct.pack('<ii', 2, 3), SIDES + struct.pack('<ii', 2**31 - 1, 2**31 - 1),
         'offset 1..: 6 numbers declared as 2147483647x2147483647'),
        (SIDES + struct.pack('<ii', 2, 3), SIDES + struct.pack('<ii', -2, -3), 'matrix of -2x-3'),
        # A type that does not exist, with which scipy reads outside of its table.
        (struct.pack('<II', 9, 48), struct.pack('<II', 0xF000, 48), 'type 61440, expected numbers'),
        (struct.pack('<II', 9, 48), struct.pack('<II', 9, 2**32 - 8), 'where 48 are left'),
        (struct.pack('<II', 9, 48), struct.pack('<II', 9, 47), '47 bytes of float64'),
        (struct.pack('<II', 6, 8) + struct.pack('<I', 6), struct.pack('<II', 6, 8) +
         struct.pack('<I', 99), 'a matrix of class 99'),
        # As cells, the numbers are no elements.
        (struct.pack('<II', 6, 8) + struct.pack('<I', 6), struct.pack('<II', 6, 8) +
         struct.pack('<I', 1), 'type 9, expected a matrix|6 x 1 elements'),
    ],
)  # fmt: skip
def test_declarations_that_lie(tmp_path, old, new, message):
    path = save(tmp_path / 'a.mat', {'x': np.arange(6.0).reshape(2, 3) + 0.5})
    patched(path, old, new)
    with pytest.raises(SourceError, match=rf'a\.mat: offset \d+: .*({message})|{message}'):
        read_mat5(path, ['x'], LARGEST)


def test_many_cells_declared(tmp_path):
    path = save(tmp_path / 'a.mat', {'x': cells(*'abcde')})
    patched(
        path, SIDES + struct.pack('<ii', 1, 5), SIDES + struct.pack('<ii', 2**31 - 1, 2**31 - 1)
    )
    with pytest.raises(
        SourceError, match=r'4611686014132420609 x 1 elements declared in \d+ bytes'
    ):
        read_mat5(path, ['x'], LARGEST)


def test_damaged_compression(tmp_path):
    path = save(tmp_path / 'a.mat', {'x': np.random.default_rng(0).random(500)}, compressed=True)
    data = bytearray(path.read_bytes())
    data[2000:2010] = bytes(10)
    path.write_bytes(data)
    with pytest.raises(SourceError, match=r'variable at offset 128, unpacked: cannot be unpacked'):
        read_mat5(path, ['x'], LARGEST)
    path.write_bytes(bytes(data[:128]) + struct.pack('<II', 15, 20) + zlib.compress(b'')[:20] * 3)
    with pytest.raises(SourceError, match=r'a\.mat'):
        read_mat5(path, ['x'], LARGEST)


def test_flipped_and_overwritten_bytes(tmp_path):
    """1,000 seeded mutations: read, or refused; nothing else."""
    path = tmp_path / 'a.mat'
    wholes = [
        save(path, {'x': EXAMPLES['records'], 'y': EXAMPLES['cells'], 'z': 1.5}, c).read_bytes()
        for c in (False, True)
    ]
    rng = np.random.default_rng(0)
    refused = 0
    for number in range(1000):
        data = bytearray(wholes[number % 2])
        for _ in range(int(rng.integers(1, 4))):
            at = int(rng.integers(len(data)))
            if rng.random() < 0.5:
                data[at] ^= 1 << int(rng.integers(8))
            else:
                data[at : at + 4] = rng.bytes(4)
        path.write_bytes(data)
        try:
            read_mat5(path, ['x', 'y', 'z'], LARGEST)
        except SourceError:
            refused += 1
    assert 250 < refused < 1000
