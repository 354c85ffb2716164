"""Sizes and chunks as files declare them, against the decoder."""

import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmmask3d.datasets.image_header import declared_size, png_damage

RNG = np.random.default_rng(0)


def encoded(shape, suffix, options=()):
    image = RNG.integers(0, 256, shape, dtype=np.uint8)
    return cv2.imencode(suffix, image, list(options))[1].tobytes()


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 70), st.integers(1, 70), st.sampled_from([(), (3,)]), st.booleans())
def test_the_size_is_that_of_the_decoded_image(height, width, channels, progressive):
    for suffix, options in (
        ('.png', ()),
        ('.jpg', (cv2.IMWRITE_JPEG_PROGRESSIVE, int(progressive))),
    ):
        content = encoded((height, width, *channels), suffix, options)
        assert declared_size(content) == (height, width)
    assert png_damage(encoded((height, width, *channels), '.png')) == ''


JPEG = encoded((20, 30, 3), '.jpg')


@pytest.mark.parametrize(
    'inserted',
    [
        b'\xff\xfe\x00\x06size',  # a comment
        b'\xff\xff\xff\xff',  # fill bytes
        b'\xff\xfe\x00\x02rubbish',  # skipped by libjpeg, with a warning
        b'\xff\x01',  # a marker without length
        b'\xff\xe1\x00\x0a' + b'\xff\xc0\x00\x11\x08\x00\x01\x00',  # a frame header in EXIF data
    ],
)
def test_what_stands_before_the_frame_header_is_passed_over(inserted):
    content = JPEG[:2] + inserted + JPEG[2:]
    assert cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR).shape == (20, 30, 3)
    assert declared_size(content) == (20, 30)


@pytest.mark.parametrize(
    'content',
    [b'', b'\xff\xd8\xff', JPEG[:50], b'\x89PNG\r\n\x1a\n', b'BM' + bytes(60), b'\xff\xd8\xff\xda']
    + [b'\xff\xd8\xff\xd9' + JPEG[2:]],
)
def test_no_size(content):
    assert declared_size(content) is None


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=60), st.sampled_from([b'\xff\xd8\xff', b'\x89PNG\r\n\x1a\n']))
def test_any_bytes_have_an_end(content, start):
    declared_size(start + content)
    png_damage(start + content)


def test_damage_of_a_png_names_the_byte():
    content = encoded((40, 50, 3), '.png')
    start = content.index(b'IDAT') - 4
    (length,) = struct.unpack('>I', content[start : start + 4])
    lying = content[:start] + struct.pack('>I', 2**31 - 1) + content[start + 4 :]
    left = len(content) - start - 12
    assert png_damage(lying) == (
        f'the chunk at byte {start} declares 2147483647 bytes, {left} are left'
    )
    assert png_damage(content[:-1]).startswith('no IEND chunk from byte')
    assert png_damage(content[: start + 20]) == (
        f'the chunk at byte {start} declares {length} bytes, 8 are left'
    )
    assert png_damage(content + b'what follows') == ''
    comment = b'tEXtIEND\xaeB`\x82'  # an end marker inside a chunk is none
    chunk = struct.pack('>I', len(comment) - 4) + comment + struct.pack('>I', zlib.crc32(comment))
    assert png_damage(content[:start] + chunk + content[start:-12]).startswith('no IEND')
