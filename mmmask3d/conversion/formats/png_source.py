"""PNG files of a data set as distributed, looked at before they are decoded."""

from pathlib import Path

import numpy as np

from mmmask3d.datasets.depth_io import FrameError, check_complete, decode_depth
from mmmask3d.datasets.image_header import PNG_SIGNATURE, DeclaredImage, declared_image

_COLOUR_TYPES = {0: 'grey', 2: 'RGB', 3: 'palette', 4: 'grey with alpha', 6: 'RGBA'}
_GREY = 0
_LARGEST_SIDE = 8192


def read_colour_png(path: Path) -> tuple[bytes, tuple[int, int]]:
    """Read a colour image without decoding it.

    Returns:
        The content of the file, and the (width, height) that its header gives.

    Raises:
        FrameError: The file is no PNG, is truncated, or claims an absurd size.
        OSError: The file cannot be read.
    """
    content = path.read_bytes()
    header = _header(content, path)
    return content, (header.width, header.height)


def read_png_map(path: Path, dtype: type[np.unsignedinteger]) -> np.ndarray:
    """Read a map of one channel: depth, disparity, labels, instances.

    Args:
        path: The file.
        dtype: ``np.uint8`` or ``np.uint16``.

    Returns:
        (H, W) of ``dtype``, the values as stored.

    Raises:
        FrameError: The file is no PNG, is truncated or damaged, claims an absurd size, or is not
            grey with the bits of ``dtype``.
        OSError: The file cannot be read.
    """
    content = path.read_bytes()
    header = _header(content, path)
    bits, colour_type = header.bits, header.code
    expected = 8 * np.dtype(dtype).itemsize
    if (bits, colour_type) != (expected, _GREY):
        kind = _COLOUR_TYPES.get(colour_type, f'colour type {colour_type}')
        raise FrameError(
            f'{path}: expected a grey PNG of {expected} bits, found {kind} of {bits} bits. This is '
            f'another kind of file, or was saved again by a program that changed it.'
        )
    return decode_depth(content, str(path))


def _header(content: bytes, path: Path) -> DeclaredImage:
    if not content.startswith(PNG_SIGNATURE):
        raise FrameError(
            f'{path}: expected a PNG file, found {len(content)} bytes that start with '
            f'{content[:8]!r}. Copy or unpack it again.'
        )
    check_complete(content, str(path))
    header = declared_image(content)
    if header is None or len(content) < 33:
        raise FrameError(f'{path}: damaged PNG file (no IHDR chunk at byte 8). Copy it again.')
    width, height = header.width, header.height
    # Before decoding: a few bytes can claim gigabytes.
    if not (0 < width <= _LARGEST_SIDE and 0 < height <= _LARGEST_SIDE):
        raise FrameError(
            f'{path}: claims {width} x {height} pixels (byte 16), expected 1 to {_LARGEST_SIDE} '
            f'each way. The file is damaged or not of this data set.'
        )
    return header
