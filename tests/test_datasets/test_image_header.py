"""Formats, sizes and ends of files as they declare them, against the decoder."""

import struct
import zlib
from io import BytesIO

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmmask3d.datasets.image_header import (
    DeclaredImage,
    declared_image,
    file_format,
    jpeg_damage,
    png_damage,
)

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
        found = declared_image(content)
        assert (found.height, found.width) == (height, width)
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
    assert declared_image(content) == DeclaredImage('JPEG', 20, 30, 8, 'colour')


@pytest.mark.parametrize(
    'content',
    [b'', b'\xff\xd8\xff', JPEG[:50], b'\x89PNG\r\n\x1a\n', b'BM' + bytes(60), b'\xff\xd8\xff\xda']
    + [b'\xff\xd8\xff\xd9' + JPEG[2:]],
)
def test_no_size(content):
    assert declared_image(content) is None


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


def test_a_wrong_checksum_is_damage_where_it_is_asked_for():
    content = encoded((40, 50, 3), '.png')
    start = content.index(b'IDAT') - 4
    text = b'tEXtkey\0value'
    chunk = struct.pack('>I', len(text) - 4) + text + struct.pack('>I', zlib.crc32(text) ^ 1)
    wrong = content[:start] + chunk + content[start:]
    assert png_damage(wrong) == ''
    assert png_damage(wrong, checksums=True) == (
        f'the checksum of the chunk at byte {start} (9 bytes) is wrong'
    )
    assert png_damage(content, checksums=True) == ''
    assert png_damage(content[:-1] + b'\0', checksums=True).startswith('the checksum of')  # IEND's


# ---------------------------------------------------------------- the end of a JPEG


def exif_with_thumbnail(thumbnail):
    body = b'Exif\0\0' + thumbnail
    return b'\xff\xe1' + struct.pack('>H', len(body) + 2) + body


BIG = encoded((120, 160, 3), '.jpg')
PICTURES = {
    'baseline': BIG,
    'progressive': encoded((120, 160, 3), '.jpg', (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)),
    'restarts': encoded((120, 160, 3), '.jpg', (cv2.IMWRITE_JPEG_RST_INTERVAL, 2)),
    'thumbnail': BIG[:2] + exif_with_thumbnail(JPEG) + BIG[2:],
    'fill bytes': BIG[:-2] + b'\xff\xff' + BIG[-2:],
    'comment with markers': BIG[:2] + b'\xff\xfe\0\x08\xff\xda\xff\xd9xx' + BIG[2:],
}
TRAILERS = {
    'nothing': b'',
    'zeros': bytes(100),
    'start of scan': b'\0\0\0\x18ftypmp42' + bytes(50) + b'\xff\xda' + bytes(50),
    'end and start of scan': b'\xff\xd9' + bytes(9) + b'\xff\xda\0\x0c' + bytes(50),
    'a second picture': JPEG,
    'half a second picture': JPEG[: len(JPEG) // 2],
    'noise': np.random.default_rng(1).bytes(200_000),  # holds every pair of bytes
}


@pytest.mark.parametrize('picture', PICTURES)
def test_what_follows_a_jpeg_does_not_matter(picture):
    for name, trailer in TRAILERS.items():
        assert jpeg_damage(PICTURES[picture] + trailer) == '', name


@pytest.mark.parametrize('picture', PICTURES)
def test_a_jpeg_cut_anywhere_is_incomplete(picture):
    content = PICTURES[picture]
    step = max(1, len(content) // 400)
    for length in {*range(3, len(content), step), len(content) - 2, len(content) - 1}:
        assert jpeg_damage(content[:length]) != ''


def test_a_thumbnail_is_no_picture():
    assert jpeg_damage(b'\xff\xd8' + exif_with_thumbnail(JPEG) + b'\xff\xd9') == (
        'no picture before its end marker'
    )
    assert jpeg_damage(b'\xff\xd8' + exif_with_thumbnail(JPEG)) == 'no end-of-image marker'


# ---------------------------------------------------------------- formats and kinds


def with_pillow(format, mode='RGB', **options):
    stream = BytesIO()
    Image.new(mode, (5, 4)).save(stream, format, **options)
    return stream.getvalue()


@pytest.mark.parametrize(
    ('content', 'name'),
    [
        (JPEG, 'JPEG'),
        (with_pillow('PNG'), 'PNG'),
        (with_pillow('TIFF'), 'TIFF'),
        (b'MM\0*\0\0\0\x08', 'TIFF'),
        (b'II+\0\x08\0\0\0', 'TIFF'),
        (with_pillow('BMP'), 'BMP'),
        (with_pillow('GIF'), 'GIF'),
        (with_pillow('WEBP'), 'WebP'),
        (with_pillow('AVIF'), 'AVIF'),
        (with_pillow('JPEG2000'), 'JPEG 2000'),
        (with_pillow('PPM'), 'PNM'),
        (with_pillow('PPM', 'F'), 'PFM'),
        (b'\0\0\0\x18ftypheic\0\0\0\0mif1heic' + bytes(9), 'HEIC'),
        (b'\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf', 'AVIF'),
        (b'\0\0\0\x18ftypmif1\0\0\0\0mif1heic', 'HEIC'),
        (b'\0\0\0\x18ftypmp42\0\0\0\0isommp42', 'MP4 or MOV'),
        (b'\0\0\0\x18ftypcrx \0\0\0\1crx isom', 'camera RAW'),
        (b'II*\0\x10\0\0\0CR\2\0', 'camera RAW'),
        (b'\xff\n\xfa', 'JPEG XL'),
        (b'v/1\x01', 'OpenEXR'),
        (b'\x93NUMPY\1\0', 'NPY'),
        (b'PK\x03\x04', 'ZIP or NPZ'),
        (b'version https://git-lfs.github.com/spec/v1\n', 'Git LFS pointer'),
        (b'RIFF\0\0\0\0WAVE', ''),
        (b'P7\n', ''),
        (b'', ''),
    ],
)
def test_format_by_the_first_bytes(content, name):
    assert file_format(content) == name


@pytest.mark.parametrize(
    ('content', 'declared'),
    [
        (with_pillow('PNG'), ('PNG', 4, 5, 8, 'RGB')),
        (with_pillow('PNG', 'RGBA'), ('PNG', 4, 5, 8, 'RGBA')),
        (with_pillow('PNG', 'LA'), ('PNG', 4, 5, 8, 'grey with alpha')),
        (with_pillow('PNG', 'I;16'), ('PNG', 4, 5, 16, 'grey')),
        (with_pillow('PNG', '1'), ('PNG', 4, 5, 1, 'grey')),
        (with_pillow('PNG', 'P'), ('PNG', 4, 5, 1, 'palette')),
        (with_pillow('JPEG'), ('JPEG', 4, 5, 8, 'colour')),
        (with_pillow('JPEG', 'L'), ('JPEG', 4, 5, 8, 'grey')),
        (with_pillow('JPEG', 'CMYK'), ('JPEG', 4, 5, 8, 'CMYK')),
    ],
)
def test_kinds(content, declared):
    assert declared_image(content) == DeclaredImage(*declared)
