"""Image files of a data set as distributed, looked at before they are decoded."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmmask3d.conversion.frame import SIGNATURES
from mmmask3d.datasets.depth_io import FrameError, decode_colour, decode_depth, read_header
from mmmask3d.datasets.orientation import as_shown, exif_orientation


def decode_map(content: bytes, where: str, bits: Sequence[int]) -> np.ndarray:
    """Decode a map of one channel, such as depth or labels: (H, W) uint8 or uint16, as stored.

    Raises:
        FrameError: It is damaged, or not a grey PNG of these bits.
    """
    header = read_header(content, where, ('PNG',))
    if header.kind != 'grey' or header.bits not in bits:
        raise FrameError(
            f'{where}: expected a grey PNG of {" or ".join(map(str, bits))} bits, found '
            f'{header.kind} of {header.bits} bits. This is another kind of file, or was saved '
            f'again by a program that changed it.'
        )
    return decode_depth(content, where)


def read_map(path: Path, bits: int) -> np.ndarray:
    """Read a file as :func:`decode_map`.

    Raises:
        FrameError: See there.
        OSError: It cannot be read.
    """
    return decode_map(path.read_bytes(), str(path), (bits,))


def read_colour(
    path: Path, suffix: str, shown: bool = False
) -> tuple[bytes | np.ndarray, tuple[int, int]]:
    """Read a colour file for storing it under a suffix, '.jpg' or '.png'.

    Args:
        path: The file.
        suffix: The suffix.
        shown: Whether to turn it the way that its EXIF orientation has it shown.

    Returns:
        Its bytes if they can be stored as they are, else (H, W, 3) uint8 BGR; and its
        (width, height).

    Raises:
        FrameError: It cannot be decoded, or claims an absurd size.
        OSError: It cannot be read.
    """
    content = path.read_bytes()
    orientation = exif_orientation(content) if shown else 1
    if content.startswith(SIGNATURES[suffix]) and orientation == 1:
        header = read_header(content, str(path))
        return content, (header.width, header.height)
    image = as_shown(decode_colour(content, str(path)), orientation)
    return image, (image.shape[1], image.shape[0])


def check_size(
    path: Path, found: tuple[int, int], expected: tuple[int, int], other: object, why: str
) -> None:
    """Raise FrameError where two files of a frame differ in (width, height); ``why`` ends it."""
    if found != expected:
        raise FrameError(
            f'{path}: {found[0]}x{found[1]} pixels, {other} has {expected[0]}x{expected[1]}. {why}'
        )
