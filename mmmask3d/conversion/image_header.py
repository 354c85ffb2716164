"""Size and type of an encoded image, read without decoding it.

A few bytes of a damaged or malicious file can declare billions of pixels, which a decoder would
make room for. What comes from an archive or a stream is therefore looked at here first.
"""

import struct
from dataclasses import dataclass

from mmmask3d.datasets.depth_io import FrameError

LARGEST_SIDE = 4096  # pixels; ScanNet has 1296
_PNG_START = b'\x89PNG\r\n\x1a\n'
_PNG_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}  # by colour type; 3 is a palette of RGB
_JPEG_START = b'\xff\xd8\xff'
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # ITU-T T.81, table B.1
_JPEG_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD8)})
_JPEG_ENDS = frozenset({0xD9, 0xDA})  # the size stands before the first scan


@dataclass(frozen=True)
class ImageHeader:
    """What a PNG or JPEG file says of itself.

    Attributes:
        kind: 'PNG' or 'JPEG'.
        width: In pixels.
        height: In pixels.
        bits: Per channel.
        channels: 1 for grey; a palette counts as the 3 channels it stands for.
    """

    kind: str
    width: int
    height: int
    bits: int
    channels: int


def read_image_header(content: bytes, where: str) -> ImageHeader:
    """Read the header of a PNG or JPEG file.

    Args:
        content: The file.
        where: Its name, for messages.

    Raises:
        FrameError: Another format, no size in it, or a side of 0 or more than
            :data:`LARGEST_SIDE` pixels.
    """
    if content.startswith(_PNG_START):
        header = _read_png(content)
    elif content.startswith(_JPEG_START):
        header = _read_jpeg(content)
    else:
        raise FrameError(
            f'{where}: expected a PNG or JPEG image, found {len(content)} bytes that start with '
            f'{content[:8]!r}.'
        )
    if header is None:
        raise FrameError(f'{where}: a damaged image, its header ends before the size is told.')
    if not (0 < header.width <= LARGEST_SIDE and 0 < header.height <= LARGEST_SIDE):
        raise FrameError(
            f'{where}: declares {header.width}x{header.height} pixels, expected 1 to '
            f'{LARGEST_SIDE} a side. The file is damaged.'
        )
    return header


def _read_png(content: bytes) -> ImageHeader | None:
    if len(content) < 26 or content[12:16] != b'IHDR' or content[25] not in _PNG_CHANNELS:
        return None
    width, height, bits, colour_type = struct.unpack_from('>IIBB', content, 16)
    return ImageHeader('PNG', width, height, bits, _PNG_CHANNELS[colour_type])


def _read_jpeg(content: bytes) -> ImageHeader | None:
    position = 2
    while position + 10 <= len(content) and content[position] == 0xFF:
        marker = content[position + 1]
        if marker == 0xFF:  # filling
            position += 1
        elif marker in _JPEG_WITHOUT_LENGTH:
            position += 2
        elif marker in _JPEG_FRAMES:
            bits, height, width, channels = struct.unpack_from('>BHHB', content, position + 4)
            return ImageHeader('JPEG', width, height, bits, channels)
        elif marker in _JPEG_ENDS:
            return None
        else:
            position += 2 + max(2, struct.unpack_from('>H', content, position + 2)[0])
    return None
