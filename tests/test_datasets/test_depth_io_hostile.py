"""Damaged and hostile files end in FrameError or a plausible array, in little memory.

11,722 mutated files, seeded: cut at every byte of small files, bits flipped, bytes replaced,
parts removed, repeated and swapped between files, numbers in headers replaced by extreme ones.
"""

import os
import resource
import struct
import zlib
from io import BytesIO

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmmask3d.datasets import FrameError
from mmmask3d.datasets.depth_io import MAX_PIXELS, decode_colour, decode_depth, to_readings

RNG = np.random.default_rng(0)
DEPTH = RNG.integers(0, 60000, (9, 11)).astype(np.uint16)
COLOUR = RNG.integers(0, 256, (9, 11, 3), dtype=np.uint8)
_EXTREMES = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def npy(array, version=(1, 0)):
    buffer = BytesIO()
    np.lib.format.write_array(buffer, array, version=version)
    return buffer.getvalue()


def chunk(kind, data, length=None):
    body = kind + data
    length = len(data) if length is None else length
    return struct.pack('>I', length) + body + struct.pack('>I', zlib.crc32(body))


def png(width, height, bits=16, colour_type=0, data=b'', extra=b''):
    header = chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, bits, colour_type, 0, 0, 0))
    image = chunk(b'IDAT', zlib.compress(data, 9))
    return b'\x89PNG\r\n\x1a\n' + header + image + extra + chunk(b'IEND', b'')


FILES = {
    'png16': cv2.imencode('.png', DEPTH)[1].tobytes(),
    'png8': cv2.imencode('.png', (DEPTH >> 8).astype(np.uint8))[1].tobytes(),
    'png_rgb': cv2.imencode('.png', COLOUR)[1].tobytes(),
    'jpeg': cv2.imencode('.jpg', COLOUR)[1].tobytes(),
    'jpeg_progressive': cv2.imencode('.jpg', COLOUR, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[
        1
    ].tobytes(),
    'npy_u2': npy(DEPTH),
    'npy_f4': npy(DEPTH.astype('>f4')),
    'npy_f8_2': npy(DEPTH.astype('f8'), (2, 0)),
    'npy_fortran': npy(np.asfortranarray(DEPTH)),
}


def mutations(content, others, rng, count):
    """Damaged copies of a file: every length, then `count` at random."""
    yield from (content[:length] for length in range(len(content)))
    for _ in range(count):
        data = bytearray(content)
        for _ in range(rng.integers(1, 4)):
            at = int(rng.integers(len(data)))
            other = int(rng.integers(at, min(len(data), at + 40) + 1))
            match rng.integers(7):
                case 0:
                    data[at] ^= 1 << int(rng.integers(8))
                case 1:
                    data[at] = int(rng.integers(256))
                case 2:
                    del data[at:other]
                case 3:
                    data[at:at] = data[at:other]
                case 4:
                    donor = others[int(rng.integers(len(others)))]
                    data[at:other] = donor[at : at + 40]
                case 5:
                    value = _EXTREMES[int(rng.integers(len(_EXTREMES)))]
                    form = ('>I', '<I')[int(rng.integers(2))]
                    data[at : at + 4] = struct.pack(form, value)
                case 6:
                    data[at:at] = bytes(int(rng.integers(1, 300)))
            if not data:
                break
        yield bytes(data)


def outcome(function, content, *arguments):
    """What a file decodes to, or None with FrameError; any other exception fails the test."""
    message, result = 'file: ', None
    try:
        result = function(content, 'file', *arguments)
    except FrameError as error:
        message = str(error)
    assert message.startswith('file: ')
    return result


@pytest.mark.filterwarnings('ignore')  # numpy and pillow remark on odd headers
@pytest.mark.parametrize('name', FILES)
def test_damaged_files(name, capfd):
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    tried = read = 0
    for content in mutations(FILES[name], list(FILES.values()), rng, 800):
        tried += 1
        depth = outcome(decode_depth, content)
        if depth is not None:
            read += 1
            assert depth.ndim == 2
            assert depth.dtype.kind in 'uif'
            assert 0 < depth.size <= MAX_PIXELS
            metres, valid = to_readings(depth, 1000.0)
            assert np.isfinite(metres).all()
            assert (metres[~valid] == 0).all()
            assert (metres[valid] >= 0).all()
        for backend in ('cv2', 'pillow'):
            colour = outcome(decode_colour, content, backend)
            if colour is not None:
                assert colour.dtype == np.uint8
                assert colour.ndim == 3
                assert colour.shape[2] == 3
                assert 0 < colour.size <= 3 * MAX_PIXELS
    assert tried == 800 + len(FILES[name])
    if name.startswith('npy'):
        assert read > 20  # damage of values cannot be seen
    capfd.readouterr()  # what libpng and libjpeg say of it


@settings(deadline=None, max_examples=300)
@given(
    shape=st.tuples(*[st.integers(-5, 2**62) | st.integers(0, 12)] * 2) | st.just((9, 11, 1)),
    descr=st.sampled_from(
        [
            '<u2',
            '>f8',
            '|b1',
            '|O',
            '<U10',
            '<M8[D]',
            '<c16',
            '|V100',
            '<f16',
            'x',
            '<i8',
            '',
            '<u99',
        ]
    ),
    order=st.booleans(),
    body=st.integers(0, 300),
)
def test_npy_headers_that_lie(shape, descr, order, body):
    header = repr({'descr': descr, 'fortran_order': order, 'shape': shape}).encode() + b'\n'
    content = b'\x93NUMPY\x01\x00' + struct.pack('<H', len(header)) + header + bytes(body)
    array = outcome(decode_depth, content)
    if array is not None:
        assert array.shape == shape
        assert array.nbytes <= body


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=80))
def test_npy_headers_of_any_bytes(header):
    content = b'\x93NUMPY\x01\x00' + struct.pack('<H', len(header)) + header + bytes(200)
    outcome(decode_depth, content)


@pytest.mark.parametrize('nested', [b'(' * 9000, b'[' * 200 + b']' * 200, b'-' * 9000 + b'1'])
def test_npy_headers_that_are_nested(nested):
    content = b'\x93NUMPY\x01\x00' + struct.pack('<H', len(nested)) + nested
    with pytest.raises(FrameError, match=r'unreadable \.npy'):
        decode_depth(content, 'file')


def test_a_pickle_is_not_run(tmp_path):
    class Payload:
        def __reduce__(self):
            return (open, (str(tmp_path / 'ran'), 'w'))

    array = np.empty((2, 2), object)
    array[:] = Payload()
    buffer = BytesIO()
    np.save(buffer, array, allow_pickle=True)
    with pytest.raises(FrameError, match='found object'):
        decode_depth(buffer.getvalue(), 'file')
    assert not (tmp_path / 'ran').exists()


# ---------------------------------------------------------------- memory


def growth(content):
    """Mebibytes that decoding takes in a process of its own, and whether it was refused."""
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        refused = [outcome(f, content) is None for f in (decode_depth, decode_colour)]
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        os.write(write, f'{(after - before) // 1024} {all(refused):d}'.encode())
        os._exit(0)
    os.close(write)
    with open(read) as file:
        grown, refused = file.read().split()
    os.waitpid(pid, 0)
    return int(grown), refused == '1'


def jpeg_of(width, height):
    content = bytearray(FILES['jpeg'])
    at = content.index(b'\xff\xc0') + 5
    content[at : at + 4] = struct.pack('>HH', height, width)
    return bytes(content)


def lying_chunk(length):
    content = FILES['png_rgb']
    at = content.index(b'IDAT')
    return content[: at - 4] + struct.pack('>I', length) + content[at:]


@pytest.mark.parametrize(
    'content',
    [
        png(2**31 - 1, 2**31 - 1),
        png(60000, 60000),
        png(60000, 60000, data=bytes(10**7)),  # ten megabytes in ten kilobytes
        png(11586, 11586),
        png(1000000, 135),
        png(60000, 60000, 8, 2),
        lying_chunk(2**30),  # OpenCV 4.12 makes room for what the chunk declares
        lying_chunk(2**31 - 1),
        jpeg_of(65500, 65500),
        jpeg_of(20000, 20000),
        b'\x93NUMPY\x01\x00\x76\x00'
        + f'{ {"descr": "<f8", "fortran_order": False, "shape": (2**20, 2**20)} }'.ljust(
            117
        ).encode()
        + b'\n',
    ],
)
def test_a_small_file_does_not_take_much_memory(content, capfd):
    assert len(content) < 20000
    grown, refused = growth(content)
    capfd.readouterr()
    assert refused
    assert grown < 64


def test_the_largest_size_that_is_allowed_is_decoded_or_refused_by_the_decoder():
    assert MAX_PIXELS >= 5 * 6048 * 4032  # ETH3D
    with pytest.raises(FrameError, match=r'declares 11586x11586 pixels .* expected 1 to 134217728'):
        decode_depth(png(11586, 11586), 'file')
    with pytest.raises(FrameError, match='declares 0x7 pixels'):
        decode_depth(png(0, 7), 'file')
    rows = png(30000, 4000, 8, 0, bytes(30001 * 4000))  # 120 million pixels, of zeros
    assert len(rows) < 200000
    assert decode_depth(rows, 'file').shape == (4000, 30000)
