"""Stored depth into readings, and what is refused."""

import struct
import zlib
from io import BytesIO

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmmask3d.datasets import FrameError
from mmmask3d.datasets.depth_io import (
    decode_colour,
    decode_depth,
    to_readings,
    zero_where_invalid,
)


def png(array):
    return cv2.imencode('.png', array)[1].tobytes()


def npy(array):
    buffer = BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def grey_png(bits, row):
    """A one-line grey PNG of any bit depth, which OpenCV cannot write."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack('>I', len(data)) + body + struct.pack('>I', zlib.crc32(body))

    header = struct.pack('>IIBBBBB', 8, 1, bits, 0, 0, 0, 0)
    data = zlib.compress(b'\0' + row)
    return (
        b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', data) + chunk(b'IEND', b'')
    )


@pytest.mark.parametrize(
    'raw',
    [
        np.array([[0, 1, 255]], np.uint8),
        np.array([[0, 1, 65535]], np.uint16),
    ],
)
@pytest.mark.parametrize('encode', [png, npy])
def test_integers_come_back_as_stored(raw, encode):
    got = decode_depth(encode(raw), 'depth')
    assert got.dtype == raw.dtype
    np.testing.assert_array_equal(got, raw)


@pytest.mark.parametrize('dtype', ['<f2', '<f4', '>f4', '<f8', '<i2', '>u2', '<u4', '<i8'])
@pytest.mark.parametrize('order', ['C', 'F'])
def test_npy_of_any_number_type_and_order_gives_float32(dtype, order):
    stored = np.array([[0, 1, 2], [3, 400, 2000]], dtype=dtype, order=order)
    depth, valid = to_readings(decode_depth(npy(stored), 'depth.npy'), depth_scale=4.0)
    assert (depth.dtype, valid.dtype) == (np.dtype('float32'), np.dtype('bool'))
    np.testing.assert_array_equal(depth, [[0, 0.25, 0.5], [0.75, 100, 500]])
    np.testing.assert_array_equal(valid, stored > 0)


def test_float64_is_rounded_after_scaling():
    raw = np.array([[16777217.0]])  # 2**24 + 1, not a float32
    assert to_readings(raw, 2.0)[0] == np.float32(16777217.0 / 2)


def test_no_reading():
    raw = np.array([[np.nan, np.inf, -np.inf, -1.0, 0.0, 0.05, 0.1, 5.0, 5.1, 99.0]], np.float32)
    depth, valid = to_readings(raw, 1.0, depth_invalid=(0, 99.0), min_depth=0.1, max_depth=5.0)
    np.testing.assert_array_equal(valid, [[0, 0, 0, 0, 0, 0, 1, 1, 0, 0]])
    np.testing.assert_array_equal(depth, np.where(valid, raw, 0))
    unlimited = to_readings(raw, 1.0, depth_invalid=(99.0,))[1]
    np.testing.assert_array_equal(unlimited, [[0, 0, 0, 0, 0, 1, 1, 1, 1, 0]])


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
def test_invalid_codes_are_compared_as_stored(dtype):
    raw = np.array([[0, 1, 254, 255]], dtype)
    depth, valid = to_readings(raw, 2.0, depth_invalid=(0, 255, 65535))
    np.testing.assert_array_equal(valid, [[False, True, True, False]])
    np.testing.assert_array_equal(depth, [[0, 0.5, 127, 0]])


def test_zero_is_a_reading_of_relative_depth_unless_it_is_named():
    raw = np.array([[0, 51, 255]], np.uint8)
    depth, valid = to_readings(raw, 255.0, depth_invalid=(), depth_kind='relative')
    assert valid.all()
    np.testing.assert_allclose(depth, [[0, 0.2, 1]], rtol=1e-6)
    valid = to_readings(raw, 255.0, depth_invalid=(0,), depth_kind='relative')[1]
    np.testing.assert_array_equal(valid, [[False, True, True]])


@settings(deadline=None, max_examples=120)
@given(
    dtype=st.sampled_from([np.uint8, np.uint16]),
    scale=st.one_of(st.sampled_from([1.0, 255.0, 1000.0, 5000.0]), st.floats(0.01, 1e5)),
    invalid=st.lists(st.sampled_from([0, 1, 7, 254, 255, 65534, 65535, 0.5, -1]), max_size=3),
    low=st.one_of(st.just(0.0), st.floats(0, 20)),
    span=st.one_of(st.none(), st.floats(0.001, 100)),
    kind=st.sampled_from(['metric', 'relative']),
)
def test_every_integer_against_the_definition(dtype, scale, invalid, low, span, kind):
    """Float64 arithmetic says what must come out."""
    raw = np.arange(np.iinfo(dtype).max + 1).astype(dtype).reshape(16, -1)
    high = None if span is None else low + span
    depth, valid = to_readings(raw, scale, invalid, low, high, kind)
    metres = (raw.astype(np.float32) / np.float32(scale)).astype(np.float64)
    expected = ~np.isin(raw, invalid) & (metres >= np.float32(low))
    if kind == 'metric':
        expected &= metres > 0
    if high is not None:
        expected &= metres <= np.float32(high)
    np.testing.assert_array_equal(valid, expected)
    np.testing.assert_array_equal(depth, np.where(expected, metres, 0))
    assert (depth.dtype, valid.dtype) == (np.float32, bool)


def test_zero_where_invalid_copies():
    depth = np.array([[1.0, np.nan, np.inf, 1e6]], np.float32)
    valid = np.array([[True, False, False, False]])
    got = zero_where_invalid(depth, valid)
    np.testing.assert_array_equal(got, [[1, 0, 0, 0]])
    assert not np.shares_memory(got, depth)


GREY = np.arange(1, 65 * 64 + 1, dtype=np.uint16).reshape(65, 64)
COLOUR = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
JPEG = cv2.imencode('.jpg', COLOUR)[1].tobytes()


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'', 'empty'),
        (png(COLOUR), r'found RGB\. .*raw depth files'),
        (png(np.dstack([COLOUR, COLOUR[..., 0]])), 'RGBA'),
        (grey_png(1, b'\x55'), '8 or 16 bits per depth value, found 1'),
        (grey_png(4, b'\x12\x34\x56\x78'), 'found 4'),
        (png(GREY)[:200], 'truncated PNG.*Copy or convert the file again'),
        (b'\x89PNG\r\n\x1a\n\0\0\0\0IEND\xaeB`\x82', 'no header says its size'),
        (npy(GREY)[:200], r'unreadable \.npy'),
        (npy(GREY)[:9], r'unreadable \.npy'),
        (npy(GREY[None]), r'shape \(H, W\), found \(1, 65, 64\)'),
        (npy(GREY[:0]), 'shape'),
        (npy(GREY > 3), 'found bool'),
        (npy(GREY.astype(complex)), 'complex'),
        (npy(np.array([['a']], object)), 'Object arrays cannot be loaded'),
    ],
)
def test_refused_depth(content, message):
    with pytest.raises(FrameError, match=rf'(?s)scene/7\.bin: .*{message}'):
        decode_depth(content, 'scene/7.bin')


@settings(deadline=None, max_examples=60)
@given(position=st.integers(8, len(png(GREY)) - 1), flip=st.integers(1, 255))
def test_a_damaged_png_gives_an_error_or_the_depth_it_held(position, flip):
    content = bytearray(png(GREY))
    content[position] ^= flip
    try:
        raw = decode_depth(bytes(content), 'damaged')
    except FrameError:
        return
    np.testing.assert_array_equal(raw, GREY)


def test_colour_is_bgr_uint8_whatever_the_file_holds():
    np.testing.assert_array_equal(decode_colour(png(COLOUR), 'img'), COLOUR)
    grey = decode_colour(png(COLOUR[..., 0]), 'img')
    np.testing.assert_array_equal(grey, COLOUR[..., :1].repeat(3, axis=2))


def test_exif_orientation_is_ignored():
    """Depth carries none, so turning colour alone would tear the pair apart."""
    exif = b'Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0'
    turned = JPEG[:2] + b'\xff\xe1' + struct.pack('>H', len(exif) + 2) + exif + JPEG[2:]
    # The tag is understood where it is not ignored:
    assert cv2.imdecode(np.frombuffer(turned, np.uint8), cv2.IMREAD_COLOR).shape == (50, 40, 3)
    assert decode_colour(turned, 'img').shape == (40, 50, 3)


# ---------------------------------------------------------------- what decoders do on their own


def with_pillow(image, format, **options):
    stream = BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def with_chunk(content, kind, data):
    """A PNG with a chunk after its header."""
    body = kind + data
    chunk = struct.pack('>I', len(data)) + body + struct.pack('>I', zlib.crc32(body))
    return content[:33] + chunk + content[33:]


RGB = COLOUR[..., ::-1]
PICTURE = Image.fromarray(RGB)
ALPHA = Image.fromarray(np.dstack([RGB, COLOUR[..., 0]]))  # 0 to 255, not premultiplied
TURNED = Image.Exif()
TURNED[0x0112] = 6
PALETTE = PICTURE.quantize(200)
OF_PALETTE = np.asarray(PALETTE.convert('RGB'))
WIDE = RGB * np.uint16(256) + np.uint16(255)
RGB_PNG = with_pillow(PICTURE, 'PNG')


def png_16(array):
    return cv2.imencode('.png', array[..., ::-1] if array.ndim == 3 else array)[1].tobytes()


@pytest.mark.parametrize(
    ('content', 'rgb'),
    [
        pytest.param(with_pillow(ALPHA, 'PNG'), RGB, id='png alpha'),
        pytest.param(with_pillow(PICTURE, 'PNG', exif=TURNED), RGB, id='png orientation'),
        pytest.param(with_chunk(RGB_PNG, b'gAMA', struct.pack('>I', 30000)), RGB, id='png gamma'),
        pytest.param(with_chunk(RGB_PNG, b'sBIT', b'\5\5\5'), RGB, id='png sBIT'),
        pytest.param(with_chunk(RGB_PNG, b'bKGD', bytes(6)), RGB, id='png background'),
        pytest.param(
            with_chunk(RGB_PNG, b'tRNS', RGB[0, 0].astype('>u2').tobytes()), RGB, id='png tRNS'
        ),
        pytest.param(png_16(WIDE), RGB, id='png 16 bits'),
        pytest.param(with_pillow(PALETTE, 'PNG'), OF_PALETTE, id='png palette'),
        pytest.param(
            with_pillow(PALETTE, 'PNG', transparency=3), OF_PALETTE, id='png palette tRNS'
        ),
        pytest.param(
            grey_png(1, b'\x55'), np.tile([[[0] * 3, [255] * 3]], (1, 4, 1)), id='png 1 bit'
        ),
        pytest.param(with_pillow(PICTURE, 'BMP'), RGB, id='bmp'),
        pytest.param(with_pillow(PALETTE, 'BMP'), OF_PALETTE, id='bmp palette'),
        pytest.param(with_pillow(PALETTE, 'GIF'), OF_PALETTE, id='gif'),
        pytest.param(
            with_pillow(ALPHA, 'WEBP', lossless=True, exact=True, exif=TURNED), RGB, id='webp'
        ),
        pytest.param(with_pillow(ALPHA, 'JPEG2000'), RGB, id='jpeg 2000'),
        pytest.param(with_pillow(PICTURE, 'PPM'), RGB, id='ppm'),
        pytest.param(
            b'P6 50 40 127\n' + (RGB // 2).tobytes(),
            np.round(RGB // 2 * (255 / 127)).astype(np.uint8),
            id='ppm of 7 bits',
        ),
    ],
)
def test_colour_comes_as_it_is_stored(content, rgb):
    np.testing.assert_array_equal(decode_colour(content, 'img')[..., ::-1], rgb)


@pytest.mark.parametrize(
    ('format', 'options'),
    [
        ('JPEG', dict(subsampling=0)),
        ('JPEG', dict(subsampling=0, progressive=True)),
        ('JPEG', dict(keep_rgb=True)),
        ('MPO', dict(save_all=True, append_images=[PICTURE.rotate(180)], subsampling=0)),
        ('AVIF', dict(subsampling='4:4:4', exif=TURNED)),
    ],
)
def test_lossy_colour_is_near_what_was_stored(format, options):
    got = decode_colour(with_pillow(PICTURE, format, quality=100, **options), 'img')
    assert np.abs(got[..., ::-1].astype(int) - RGB).max() < 9


def marked_12_bits(content):
    at = content.index(b'\xff\xc0')
    return content[: at + 4] + b'\x0c' + content[at + 5 :]


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (with_pillow(PICTURE.convert('CMYK'), 'JPEG'), 'JPEG of CMYK with 8 bits.*RGB first'),
        (marked_12_bits(JPEG), 'JPEG of colour with 12 bits'),
        (png(GREY), 'grey of 16 bits, as depth is stored.*img_path'),
        (
            with_pillow(PICTURE, 'GIF', save_all=True, append_images=[ALPHA]),
            r'a GIF file of 2 image\(s\)',
        ),
        (with_pillow(PICTURE, 'WEBP', save_all=True, append_images=[ALPHA]), 'WebP file of 2'),
        (with_pillow(PICTURE, 'AVIF', save_all=True, append_images=[PICTURE]), 'AVIF file of 2'),
        (b'P5 2 1 65535\n' + bytes(4), 'PNM file of 1 .* of mode I'),
        (with_pillow(Image.fromarray(GREY), 'JPEG2000'), 'JPEG 2000 file of 1 .* of mode I;16'),
        (with_pillow(PICTURE, 'BMP')[:-9], 'as a BMP image.*truncated'),
        (b'\0\0\0\x18ftypheic\0\0\0\0mif1heic' + bytes(99), 'the format HEIC, which is not read'),
        (b'\xff\n' + bytes(99), 'the format JPEG XL.*JPEG or PNG first'),
        (b'II*\0\x10\0\0\0CR\2\0' + bytes(99), 'the format camera RAW.*JPEG or PNG first'),
        (b'v/1\x01' + bytes(99), 'the format OpenEXR'),
        (npy(GREY), 'the format NPY'),
        (b'', 'empty'),
        (b'no image at all', "15 bytes that start with b'no image'"),
        (JPEG[:100], 'truncated JPEG'),
        (png(COLOUR)[:100], 'truncated PNG'),
    ],
)
def test_refused_colour(content, message):
    with pytest.raises(FrameError, match=rf'(?s)^scene/7\.jpg: .*{message}') as caught:
        decode_colour(content, 'scene/7.jpg')
    sound = not any(word in message for word in ('truncated', 'empty'))
    assert not (sound and 'damaged' in str(caught.value))


@pytest.mark.parametrize('stored', [GREY, (GREY >> 4).astype(np.uint8)], ids=['16', '8'])
@pytest.mark.parametrize(
    ('kind', 'data'),
    [
        (b'gAMA', struct.pack('>I', 100_000)),
        (b'sBIT', b'\x05'),
        (b'sRGB', b'\0'),
        (b'tRNS', b'\0\1'),
        (b'bKGD', b'\0\1'),
        (b'eXIf', TURNED.tobytes()[6:]),
    ],
)
def test_png_depth_comes_as_it_is_stored(stored, kind, data):
    got = decode_depth(with_chunk(png(stored), kind, data), 'depth')
    assert got.dtype == stored.dtype
    np.testing.assert_array_equal(got, stored)


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (JPEG, r'the format JPEG \(JPEG is lossy.*holes\)\. Save depth'),
        (b'PK\3\4' + bytes(30), r'the format ZIP or NPZ \(an archive does not say'),
        (
            b'Pf\n2 2\n-1.0\n' + bytes(16),
            r'the format PFM \(PFM files differ in their order',
        ),
        (b'v/1\1' + bytes(30), 'the format OpenEXR'),
        (b'P5 2 1 65535\n' + bytes(4), 'the format PNM'),
        (with_pillow(PICTURE, 'WEBP'), 'the format WebP'),
        (with_pillow(PICTURE, 'GIF'), 'the format GIF'),
        (with_pillow(PALETTE, 'PNG'), 'found palette'),
        (with_pillow(PICTURE.convert('LA'), 'PNG'), 'found grey with alpha'),
        (b'version https://git-lfs.github.com/spec/v1\n', 'the format Git LFS pointer'),
        (b'\x89HDF\r\n\x1a\n', 'the format HDF5'),
    ],
)
def test_depth_of_other_formats_is_named_with_a_way_out(content, message):
    with pytest.raises(FrameError, match=rf'^d: .*{message}') as caught:
        decode_depth(content, 'd')
    assert 'damaged' not in str(caught.value)


def test_sizes_that_cannot_be_are_an_error_of_the_file():
    """Headers that claim more than any frame has, or than there is memory."""

    def chunk(kind, data):
        crc = zlib.crc32(kind + data).to_bytes(4, 'big')
        return len(data).to_bytes(4, 'big') + kind + data + crc

    side = (100_000).to_bytes(4, 'big')
    png = b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', side + side + bytes([16, 0, 0, 0, 0]))
    png += chunk(b'IDAT', zlib.compress(b'x')) + chunk(b'IEND', b'')
    npy = BytesIO()
    header = {'descr': '<f8', 'fortran_order': False, 'shape': (10**6, 10**6)}
    np.lib.format.write_array_header_1_0(npy, header)
    for content, message in ((png, 'declares 100000x100000'), (npy.getvalue(), 'unreadable .npy')):
        with pytest.raises(FrameError, match=f'^frames/1: {message}'):
            decode_depth(content, 'frames/1')
