"""What a PNG or JPEG file declares, read without decoding it.

A damaged or hostile file of a few bytes can declare billions of pixels, or a PNG chunk of two
gigabytes. A decoder may make room for either before it finds that they are not there (OpenCV 4.12
does for both), so this is looked at first.
"""

from typing import NamedTuple

PNG_SIGNATURE = b'\x89PNG\r\n\x1a\n'
JPEG_SIGNATURE = b'\xff\xd8\xff'
_PNG_START = PNG_SIGNATURE + b'\x00\x00\x00\rIHDR'
_PNG_CHUNK_BYTES = 12  # of a chunk without its data: length, type, CRC
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # ITU-T T.81, table B.1
_JPEG_WITHOUT_LENGTH = frozenset({0x00, 0x01, *range(0xD0, 0xD9)})
_JPEG_ENDS = frozenset({0xD9, 0xDA})  # the size stands before the first scan


class DeclaredImage(NamedTuple):
    """What a file says of itself.

    Attributes:
        kind: 'PNG' or 'JPEG'.
        height: In pixels.
        width: In pixels.
        bits: Per channel; None where the file ends before.
        code: Colour type of a PNG, number of components of a JPEG; None where the file ends before.
    """

    kind: str
    height: int
    width: int
    bits: int | None
    code: int | None


def declared_size(content: bytes) -> tuple[int, int] | None:
    """(height, width) as :func:`declared_image` finds them; None where it finds none."""
    found = declared_image(content)
    return None if found is None else (found.height, found.width)


def declared_image(content: bytes) -> DeclaredImage | None:
    """Read the header of a PNG (IHDR chunk) or JPEG (frame header, ITU-T T.81, B.2.2) image.

    Args:
        content: The bytes of a file.

    Returns:
        What the file says, however absurd; None for another format or a damaged header.
    """
    if content.startswith(_PNG_START) and len(content) >= 24:
        width, height = (int.from_bytes(content[i : i + 4], 'big') for i in (16, 20))
        return DeclaredImage('PNG', height, width, _byte(content, 24), _byte(content, 25))
    return _jpeg_image(content) if content.startswith(JPEG_SIGNATURE) else None


def _byte(content: bytes, position: int) -> int | None:
    return content[position] if position < len(content) else None


def _jpeg_image(content: bytes) -> DeclaredImage | None:
    position = 2
    # What stands between segments is skipped, as libjpeg does, or it would hide the size.
    while (position := content.find(b'\xff', position)) >= 0 and position + 9 <= len(content):
        marker = content[position + 1]
        if marker in _JPEG_FRAMES:
            height, width = (
                int.from_bytes(content[i : i + 2], 'big') for i in (position + 5, position + 7)
            )
            bits, components = content[position + 4], _byte(content, position + 9)
            return DeclaredImage('JPEG', height, width, bits, components)
        if marker in _JPEG_ENDS:
            return None
        if marker == 0xFF:  # a fill byte
            position += 1
        elif marker in _JPEG_WITHOUT_LENGTH:
            position += 2
        else:
            position += 2 + max(2, int.from_bytes(content[position + 2 : position + 4], 'big'))
    return None


def png_damage(content: bytes) -> str:
    """Follow the chunks of a PNG file from its signature to IEND.

    Args:
        content: The bytes of the file.

    Returns:
        What is wrong and at which byte; '' if nothing is. What follows IEND is not looked at.
    """
    position = len(PNG_SIGNATURE)
    while (left := len(content) - position - _PNG_CHUNK_BYTES) >= 0:
        length = int.from_bytes(content[position : position + 4], 'big')
        if length > left:
            return f'the chunk at byte {position} declares {length} bytes, {left} are left'
        if content[position + 4 : position + 8] == b'IEND':
            return ''
        position += _PNG_CHUNK_BYTES + length
    return f'no IEND chunk from byte {position} on'
