"""What is refused before a PNG is decoded, and that values come through."""

import struct
import zlib

import cv2
import numpy as np
import pytest

from mmmask3d.conversion.formats.png_source import read_colour_png, read_png_map
from mmmask3d.datasets.depth_io import FrameError

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)
MAP16 = RNG.integers(0, 65536, (20, 30), dtype=np.uint16)
MAP8 = RNG.integers(0, 256, (20, 30), dtype=np.uint8)


def png(array):
    return cv2.imencode('.png', array)[1].tobytes()


def claimed(width, height):
    """A PNG of some bytes whose header claims any size, with a right checksum."""
    body = b'IHDR' + struct.pack('>IIBBBBB', width, height, 16, 0, 0, 0, 0)
    content = png(MAP16)
    return content[:12] + body + struct.pack('>I', zlib.crc32(body)) + content[33:]


@pytest.mark.parametrize('array', [MAP16, MAP8])
def test_maps_come_back_as_stored(array, tmp_path):
    (tmp_path / 'a.png').write_bytes(png(array))
    got = read_png_map(tmp_path / 'a.png', array.dtype.type)
    assert got.dtype == array.dtype
    np.testing.assert_array_equal(got, array)


def test_colour_is_not_touched(tmp_path):
    (tmp_path / 'a.png').write_bytes(png(COLOUR))
    assert read_colour_png(tmp_path / 'a.png') == (png(COLOUR), (30, 20))


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'', 'expected a PNG file, found 0 bytes'),
        (cv2.imencode('.jpg', COLOUR)[1].tobytes(), 'expected a PNG file'),
        (png(MAP16)[:200], 'truncated PNG'),
        (png(MAP16)[:30], 'truncated PNG'),
        (b'\x89PNG\r\n\x1a\n' + bytes(4) + b'IEND\xaeB`\x82', 'no IHDR'),
        (png(MAP8), 'grey PNG of 16 bits, found grey of 8 bits'),
        (png(COLOUR), 'found RGB of 8 bits'),
        (png(np.dstack([COLOUR, MAP8])), 'found RGBA'),
        (claimed(100_000, 100_000), r'claims 100000 x 100000 pixels \(byte 16\)'),
        (claimed(0, 20), 'claims 0 x 20'),
        (claimed(30, 2**31), 'claims 30 x 2147483648'),
    ],
)
def test_refused_maps(content, message, tmp_path):
    (tmp_path / 'bad.png').write_bytes(content)
    with pytest.raises(FrameError, match=rf'bad\.png: .*{message}'):
        read_png_map(tmp_path / 'bad.png', np.uint16)


@pytest.mark.parametrize('content', [b'', b'GIF89a', png(COLOUR)[:100], claimed(9000, 10)])
def test_refused_colour(content, tmp_path):
    (tmp_path / 'bad.png').write_bytes(content)
    with pytest.raises(FrameError, match=r'bad\.png: '):
        read_colour_png(tmp_path / 'bad.png')
