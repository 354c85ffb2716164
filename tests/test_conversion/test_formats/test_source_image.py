"""What is refused before an image is decoded, and that values and bytes come through."""

import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from mmmask3d.conversion.formats.source_image import (
    decode_map,
    read_colour,
    read_map,
)
from mmmask3d.datasets.depth_io import FrameError

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)
MAP16 = RNG.integers(0, 65536, (20, 30), dtype=np.uint16)
MAP8 = RNG.integers(0, 256, (20, 30), dtype=np.uint8)


def png(array):
    return cv2.imencode('.png', array)[1].tobytes()


def jpeg(array):
    return cv2.imencode('.jpg', array)[1].tobytes()


def claimed(width, height):
    """A PNG of some bytes whose header claims any size, with a right checksum."""
    body = b'IHDR' + struct.pack('>IIBBBBB', width, height, 16, 0, 0, 0, 0)
    content = png(MAP16)
    return content[:12] + body + struct.pack('>I', zlib.crc32(body)) + content[33:]


@pytest.mark.parametrize('array', [MAP16, MAP8])
def test_maps_come_back_as_stored(array, tmp_path):
    (tmp_path / 'a.png').write_bytes(png(array))
    got = read_map(tmp_path / 'a.png', 8 * array.itemsize)
    assert got.dtype == array.dtype
    np.testing.assert_array_equal(got, array)


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'', 'expected a PNG image, found 0 bytes'),
        (jpeg(COLOUR), 'expected a PNG image, found the format JPEG. Convert it'),
        (b'GIF89a', 'found the format GIF'),
        (png(MAP16)[:200], 'truncated PNG'),
        (png(MAP16)[:30], 'truncated PNG'),
        (b'\x89PNG\r\n\x1a\n' + bytes(4) + b'IEND\xaeB`\x82', 'a damaged PNG file, no header'),
        (png(MAP8), 'grey PNG of 16 bits, found grey of 8 bits'),
        (png(COLOUR), 'found RGB of 8 bits'),
        (png(np.dstack([COLOUR, MAP8])), 'found RGBA'),
        (claimed(0, 20), 'declares 0x20'),
        (claimed(30, 2**31), 'declares 30x2147483648'),
    ],
)
def test_refused_maps(content, message):
    with pytest.raises(FrameError, match=rf'^bad\.png: .*{message}'):
        decode_map(content, 'bad.png', (16,))


@pytest.mark.parametrize(
    ('content', 'suffix'), [(png(COLOUR), '.png'), (jpeg(COLOUR), '.jpg')], ids=['png', 'jpg']
)
def test_colour_that_can_be_stored_is_not_touched(content, suffix, tmp_path):
    path = tmp_path / 'a'
    path.write_bytes(content)
    assert read_colour(path, suffix) == (content, (30, 20))
    other = {'.png': '.jpg', '.jpg': '.png'}[suffix]
    image, size = read_colour(path, other)
    np.testing.assert_array_equal(image, cv2.imdecode(np.frombuffer(content, np.uint8), 1))
    assert size == (30, 20)


@pytest.mark.parametrize('content', [b'', b'GIF89a', png(COLOUR)[:100], claimed(0, 10)])
def test_refused_colour(content, tmp_path):
    (tmp_path / 'bad.png').write_bytes(content)
    with pytest.raises(FrameError, match=r'bad\.png: '):
        read_colour(tmp_path / 'bad.png', '.png')


@pytest.mark.parametrize('orientation', range(1, 9))
def test_colour_as_shown(orientation, tmp_path):
    path = tmp_path / 'phone.png'
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(COLOUR[..., ::-1]).save(path, exif=exif)
    assert read_colour(path, '.png') == (path.read_bytes(), (30, 20))  # stored, by default
    got, size = read_colour(path, '.png', shown=True)
    if orientation == 1:
        assert (got, size) == (path.read_bytes(), (30, 20))
        return
    with Image.open(path) as image:
        shown = np.asarray(ImageOps.exif_transpose(image))[..., ::-1]
    np.testing.assert_array_equal(got, shown)
    assert size == (shown.shape[1], shown.shape[0])
