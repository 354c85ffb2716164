"""Size and type of an encoded image, read without decoding it.

A few bytes of a damaged or malicious file can declare billions of pixels, which a decoder would
make room for. What comes from an archive or a stream is therefore looked at here first.
"""

from dataclasses import dataclass

from mmmask3d.datasets.depth_io import FrameError
from mmmask3d.datasets.image_header import JPEG_SIGNATURE, PNG_SIGNATURE, declared_image

LARGEST_SIDE = 4096  # pixels; ScanNet has 1296
_PNG_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}  # by colour type; 3 is a palette of RGB


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
    if not content.startswith((PNG_SIGNATURE, JPEG_SIGNATURE)):
        raise FrameError(
            f'{where}: expected a PNG or JPEG image, found {len(content)} bytes that start with '
            f'{content[:8]!r}.'
        )
    found = declared_image(content)
    channels = None
    if found is not None:
        channels = _PNG_CHANNELS.get(found.code) if found.kind == 'PNG' else found.code
    if channels is None:
        raise FrameError(f'{where}: a damaged image, its header ends before the size is told.')
    header = ImageHeader(found.kind, found.width, found.height, found.bits, channels)
    if not (0 < header.width <= LARGEST_SIDE and 0 < header.height <= LARGEST_SIDE):
        raise FrameError(
            f'{where}: declares {header.width}x{header.height} pixels, expected 1 to '
            f'{LARGEST_SIDE} a side. The file is damaged.'
        )
    return header
