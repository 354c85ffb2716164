"""What a PNG or JPEG file declares, read without decoding it.

A damaged or hostile file of a few bytes can declare billions of pixels, or a PNG chunk of two
gigabytes. A decoder may make room for either before it finds that they are not there (OpenCV 4.12
does for both), so this is looked at first.
"""

_PNG_SIGNATURE_BYTES = 8
_PNG_CHUNK_BYTES = 12  # of a chunk without its data: length, type, CRC
_PNG_START = b'\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR'
_JPEG_START = b'\xff\xd8\xff'
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # ITU-T T.81, table B.1
_JPEG_WITHOUT_LENGTH = frozenset({0x00, 0x01, *range(0xD0, 0xD9)})
_JPEG_ENDS = frozenset({0xD9, 0xDA})  # the size stands before the first scan


def declared_size(content: bytes) -> tuple[int, int] | None:
    """Size of a PNG (IHDR chunk) or JPEG (frame header, ITU-T T.81, B.2.2) image.

    Args:
        content: The bytes of a file.

    Returns:
        (height, width), as the file says; None for another format or a damaged header.
    """
    if content.startswith(_PNG_START) and len(content) >= 24:
        width, height = (int.from_bytes(content[i : i + 4], 'big') for i in (16, 20))
        return height, width
    return _jpeg_size(content) if content.startswith(_JPEG_START) else None


def _jpeg_size(content: bytes) -> tuple[int, int] | None:
    position = 2
    # What stands between segments is skipped, as libjpeg does, or it would hide the size.
    while (position := content.find(b'\xff', position)) >= 0 and position + 9 <= len(content):
        marker = content[position + 1]
        if marker in _JPEG_FRAMES:
            height, width = (
                int.from_bytes(content[i : i + 2], 'big') for i in (position + 5, position + 7)
            )
            return height, width
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
    position = _PNG_SIGNATURE_BYTES
    while (left := len(content) - position - _PNG_CHUNK_BYTES) >= 0:
        length = int.from_bytes(content[position : position + 4], 'big')
        if length > left:
            return f'the chunk at byte {position} declares {length} bytes, {left} are left'
        if content[position + 4 : position + 8] == b'IEND':
            return ''
        position += _PNG_CHUNK_BYTES + length
    return f'no IEND chunk from byte {position} on'
