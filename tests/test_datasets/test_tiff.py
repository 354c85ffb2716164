"""TIFF files against the arrays that were written, and what is no plain image."""

import struct
from io import BytesIO

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from mmmask3d.datasets import FrameError
from mmmask3d.datasets.depth_io import decode_colour, decode_depth

Y, X = np.mgrid[:9, :13]
RAMP = 7 * Y + X
RGB = np.random.default_rng(0).integers(0, 256, (9, 13, 3), dtype=np.uint8)


def tiff(*arrays, **options):
    stream = BytesIO()
    of_file = {key: options.pop(key) for key in ('bigtiff', 'byteorder') if key in options}
    with tifffile.TiffWriter(stream, **of_file) as file:
        for array in arrays:
            file.write(array, **options)
    return stream.getvalue()


def orientation(value):
    return [(274, 'H', 1, value, True)]


def packed(bits):
    """A grey TIFF of values packed into a number of bits, which no library here writes."""
    values = (RAMP % 2**bits).astype('>u2')
    rows = np.unpackbits(values.view(np.uint8).reshape(9, 13, 2), axis=2)[..., 16 - bits :]
    pixels = np.packbits(rows.reshape(9, -1), axis=1).tobytes()
    tags = [(256, 13), (257, 9), (258, bits), (259, 1), (262, 1), (273, 0), (277, 1), (278, 9)]
    tags.append((279, len(pixels)))
    start = 8 + 2 + 12 * len(tags) + 4
    entries = b''.join(
        struct.pack('<HHII', tag, 4, 1, start if tag == 273 else value) for tag, value in tags
    )
    head = b'II*\0' + struct.pack('<IH', 8, len(tags))
    return head + entries + bytes(4) + pixels


@pytest.mark.parametrize(
    'options',
    [
        {},
        {'byteorder': '>'},
        {'bigtiff': True},
        {'compression': 'zlib'},
        {'tile': (16, 16)},
        {'rowsperstrip': 2},
        {'metadata': None},
        {'extratags': orientation(6)},
        {'compression': 'zlib', 'tile': (16, 16), 'extratags': orientation(3)},
    ],
    ids=str,
)
def test_depth_of_every_type_comes_as_it_was_written(options):
    for dtype in ('u1', 'i1', 'u2', 'i2', 'u4', 'i4', 'u8', 'i8', 'f2', 'f4', 'f8'):
        depth = RAMP.astype(dtype) if dtype[0] == 'u' else (RAMP - 5).astype(dtype)
        got = decode_depth(tiff(depth, **options), 'd.tif')
        assert got.dtype.newbyteorder('=') == depth.dtype
        np.testing.assert_array_equal(got, depth)


@pytest.mark.parametrize('dtype', ['u1', 'i1', 'u2', 'i2', 'i4', 'f4', 'f8'])
def test_as_opencv_writes_it(dtype):
    """LZW with a predictor for integers."""
    depth = (RAMP * 3).astype(dtype)
    got = decode_depth(cv2.imencode('.tiff', depth)[1].tobytes(), 'd.tif')
    assert got.dtype == depth.dtype
    np.testing.assert_array_equal(got, depth)


def lzw(array, compression='tiff_lzw', **options):
    stream = BytesIO()
    Image.fromarray(array).save(stream, 'TIFF', compression=compression, **options)
    return stream.getvalue()


@pytest.mark.parametrize('compression', ['tiff_lzw', 'packbits', 'tiff_deflate', 'lzma'])
@pytest.mark.parametrize('dtype', ['u1', 'u2', 'f4'])
def test_compressions_as_pillow_writes_them(dtype, compression):
    depth = RAMP.astype(dtype)
    coded = dtype == 'f4' and compression in ('tiff_lzw', 'tiff_deflate')
    predictors = [{}, {317: 3}] if coded else [{}]
    for tags in predictors:
        got = decode_depth(lzw(depth, compression, tiffinfo=tags), 'd.tif')
        assert got.dtype == depth.dtype
        np.testing.assert_array_equal(got, depth)


def pages():
    preview = (RAMP // 3).astype(np.uint8)
    return tiff(preview, RAMP.astype(np.uint16))


def with_sub_image():
    stream = BytesIO()
    with tifffile.TiffWriter(stream) as file:
        file.write((RAMP // 3).astype(np.uint8), subifds=1)
        file.write(RAMP.astype(np.uint16), subfiletype=1)
    return stream.getvalue()


def stack(**options):
    stream = BytesIO()
    tifffile.imwrite(stream, np.stack([RAMP, RAMP]).astype(np.uint16), **options)
    return stream.getvalue()


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (pages(), r'several images \(uint8 \(9, 13\), uint16 \(9, 13\)\).*key=NUMBER'),
        (with_sub_image(), 'several images'),
        (stack(), 'several images'),
        (stack(imagej=True), 'several images'),
        (stack(truncate=True, photometric='minisblack'), 'several images'),
        (tiff(RAMP.astype(np.uint8), photometric='miniswhite'), 'MINISWHITE'),
        (tiff(RAMP.astype(np.uint16), photometric='miniswhite'), 'MINISWHITE'),
        (
            tiff(
                RAMP.astype(np.uint8),
                photometric='palette',
                colormap=np.zeros((3, 256), np.uint16),
            ),
            'PALETTE',
        ),
        (tiff(RAMP > 40), '1 bits per value'),
        *((packed(bits), f'{bits} bits per value.*unchanged') for bits in (2, 4, 10, 12, 14)),
        (tiff(RAMP.astype(np.complex64)), '64 bits per value'),
        (tiff(RGB), '3 channels.*raw depth files'),
        (lzw(RAMP.astype(np.uint16), tiffinfo={274: 3}), "LZW.*compression='zlib'"),
        (lzw(RAMP.astype(np.uint16), tiffinfo={274: 6}), "LZW.*compression='zlib'"),
        (b'II*\0' + bytes(4), 'damaged or truncated'),
    ],
)
def test_refused_depth(content, message):
    with pytest.raises(FrameError, match=rf'(?s)^d\.tif: .*{message}'):
        decode_depth(content, 'd.tif')


def test_lossy_compression_is_refused():
    stream = BytesIO()
    Image.fromarray(RAMP.astype(np.uint8)).save(stream, 'TIFF', compression='jpeg')
    with pytest.raises(FrameError, match='JPEG compression, expected none, deflate'):
        decode_depth(stream.getvalue(), 'd.tif')


@pytest.mark.parametrize('value', range(1, 9))
@pytest.mark.parametrize('planes', ['contig', 'separate'])
def test_colour_comes_as_it_was_written(planes, value):
    image = RGB if planes == 'contig' else np.moveaxis(RGB, -1, 0).copy()
    content = tiff(image, photometric='rgb', planarconfig=planes, extratags=orientation(value))
    np.testing.assert_array_equal(decode_colour(content, 'c.tif'), RGB[..., ::-1])


@pytest.mark.parametrize(
    ('content', 'rgb'),
    [
        (tiff(RGB[..., 0]), np.repeat(RGB[..., :1], 3, axis=2)),
        (tiff(np.dstack([RGB, RGB[..., 0]]), photometric='rgb', extrasamples=['unassalpha']), RGB),
        (tiff(RGB * np.uint16(256) + np.uint16(255), photometric='rgb'), RGB),
        (lzw(RGB), RGB),
        (cv2.imencode('.tiff', RGB[..., ::-1])[1].tobytes(), RGB),
    ],
    ids=['grey', 'alpha', '16 bits', 'lzw', 'opencv'],
)
def test_kinds_of_colour(content, rgb):
    np.testing.assert_array_equal(decode_colour(content, 'c.tif')[..., ::-1], rgb)


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (tiff(RGB, RGB), 'several images'),
        (tiff(RAMP.astype(np.uint16)), 'grey of 16 bits, as depth is stored'),
        (tiff(RGB / np.float32(255), photometric='rgb'), '3 channels of float32'),
        (tiff(np.dstack([RGB, RGB[..., 0]]), photometric='separated'), 'SEPARATED'),
    ],
)
def test_refused_colour(content, message):
    with pytest.raises(FrameError, match=rf'^c\.tif: .*{message}'):
        decode_colour(content, 'c.tif')


@pytest.mark.parametrize('options', [{}, {'compression': 'zlib'}, {'tile': (16, 16)}], ids=str)
def test_a_file_cut_anywhere_is_refused(options):
    content = tiff(RAMP.astype(np.float32), metadata=None, **options)
    end = max(tifffile.TiffFile(BytesIO(content)).pages[0].dataoffsets) + 1
    for length in (*range(1, len(content) - 1, 7), end):
        with pytest.raises(FrameError, match=r'^d\.tif: '):
            decode_depth(content[:length], 'd.tif')


def test_a_small_file_that_declares_a_large_image():
    content = bytearray(tiff(RAMP.astype(np.uint8), metadata=None))
    for tag in (256, 257):
        at = bytes(content).index(struct.pack('<HH', tag, 4)) + 8
        content[at : at + 4] = struct.pack('<I', 100_000)
    with pytest.raises(FrameError, match='declares 100000x100000 pixels'):
        decode_depth(bytes(content), 'd.tif')
