"""Sizes read from image headers against images of known size, and headers that lie."""

import struct

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmmask3d.conversion.formats.image_header import ImageHeader, read_image_header
from mmmask3d.datasets.depth_io import FrameError


def encoded(suffix, width, height, dtype=np.uint8, channels=None, options=()):
    shape = (height, width, channels) if channels else (height, width)
    done, data = cv2.imencode(suffix, np.full(shape, 100, dtype), list(options))
    assert done
    return data.tobytes()


@pytest.mark.parametrize('size', [(1, 1), (7, 300), (4096, 2)])
def test_what_opencv_writes(size):
    cases = [
        (encoded('.png', *size), ('PNG', 8, 1)),
        (encoded('.png', *size, np.uint16), ('PNG', 16, 1)),
        (encoded('.png', *size, channels=3), ('PNG', 8, 3)),
        (encoded('.png', *size, channels=4), ('PNG', 8, 4)),
        (encoded('.jpg', *size), ('JPEG', 8, 1)),
        (encoded('.jpg', *size, channels=3), ('JPEG', 8, 3)),
        (
            encoded('.jpg', *size, channels=3, options=(cv2.IMWRITE_JPEG_PROGRESSIVE, 1)),
            ('JPEG', 8, 3),
        ),
    ]
    for content, (kind, bits, channels) in cases:
        assert read_image_header(content, 'a') == ImageHeader(kind, *size, bits, channels)


def test_a_thumbnail_does_not_count():
    """EXIF data may hold a whole JPEG; its size is not that of the image."""
    inner = encoded('.jpg', 5, 6, channels=3)
    outer = encoded('.jpg', 70, 80, channels=3)
    exif = b'\xff\xe1' + struct.pack('>H', len(inner) + 2) + inner
    filling = b'\xff\xff\xff'
    content = outer[:2] + exif + filling + outer[2:]
    header = read_image_header(content, 'a')
    assert (header.width, header.height) == (70, 80)
    assert cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR).shape == (80, 70, 3)


@pytest.mark.parametrize('size', [(0, 5), (5, 0), (4097, 5), (5, 2**31 - 1)])
def test_absurd_sizes_are_refused(size):
    content = bytearray(encoded('.png', 5, 5))
    struct.pack_into('>II', content, 16, *size)
    with pytest.raises(FrameError, match=rf'b\.png: declares {size[0]}x{size[1]}'):
        read_image_header(bytes(content), 'b.png')


@pytest.mark.parametrize('content', [b'', b'GIF89a' + bytes(99), b'\x89PNG'])
def test_other_formats(content):
    with pytest.raises(FrameError, match=r'c: expected a PNG or JPEG'):
        read_image_header(content, 'c')


@given(st.binary(max_size=60), st.sampled_from([b'\xff\xd8\xff', b'\x89PNG\r\n\x1a\n']))
def test_any_bytes(rest, start):
    try:
        header = read_image_header(start + rest, 'd')
    except FrameError as error:
        assert str(error).startswith('d: ')  # noqa: PT017
    else:
        assert 0 < header.width <= 4096
        assert 0 < header.height <= 4096
