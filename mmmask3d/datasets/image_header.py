"""The properties of an image file, read from its header without decoding it.

A damaged or hostile file of a few bytes can declare billions of pixels, or a PNG chunk of two
gigabytes. A decoder may make room for either before it finds that they are not there (OpenCV 4.12
does for both), so this is looked at first. PNG chunks and JPEG segments are followed by their
lengths; bytes are never searched for, since a thumbnail or a video after the image holds any.
"""

import zlib
from collections.abc import Iterator
from typing import NamedTuple

PNG_SIGNATURE = b'\x89PNG\r\n\x1a\n'
JPEG_SIGNATURE = b'\xff\xd8\xff'
NPY_SIGNATURE = b'\x93NUMPY'
_PNG_START = PNG_SIGNATURE + b'\x00\x00\x00\rIHDR'
_PNG_CHUNK_BYTES = 12  # of a chunk without its data: length, type, CRC
_PNG_KINDS = {0: 'grey', 2: 'RGB', 3: 'palette', 4: 'grey with alpha', 6: 'RGBA'}
_JPEG_KINDS = {1: 'grey', 3: 'colour', 4: 'CMYK'}
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # ITU-T T.81, table B.1
_JPEG_WITHOUT_LENGTH = frozenset({0x00, 0x01, *range(0xD0, 0xD9)})
_JPEG_END, _JPEG_SCAN = 0xD9, 0xDA

#: First bytes of formats by name; what the project reads and what people give it.
_FIRST_BYTES = (
    (JPEG_SIGNATURE, 'JPEG'),
    (PNG_SIGNATURE, 'PNG'),
    (NPY_SIGNATURE, 'NPY'),
    (b'II*\0\x10\0\0\0CR', 'camera RAW'),
    ((b'II*\0', b'MM\0*', b'II+\0', b'MM\0+'), 'TIFF'),
    ((b'FUJIFILMCCD-RAW', b'IIRO', b'IIRS', b'IIU\0'), 'camera RAW'),
    (b'BM', 'BMP'),
    ((b'GIF87a', b'GIF89a'), 'GIF'),
    ((b'\0\0\0\x0cjP  \r\n\x87\n', b'\xffO\xffQ'), 'JPEG 2000'),
    ((b'\0\0\0\x0cJXL \r\n\x87\n', b'\xff\n'), 'JPEG XL'),
    (b'v/1\x01', 'OpenEXR'),
    (b'#?RADIANCE', 'Radiance HDR'),
    ((b'Pf', b'PF'), 'PFM'),
    ((b'P1', b'P2', b'P3', b'P4', b'P5', b'P6'), 'PNM'),
    (b'8BPS', 'Photoshop'),
    (b'PK\x03\x04', 'ZIP or NPZ'),
    (b'\x89HDF\r\n\x1a\n', 'HDF5'),
    (b'\x1f\x8b', 'gzip'),
    (b'%PDF', 'PDF'),
    (b'version https://git-lfs', 'Git LFS pointer'),
    ((b'<!DOCTYPE', b'<!doctype', b'<html'), 'HTML page'),
)
_BRANDS = (  # of ISO base media files, in the order in which they are asked for
    ((b'avif', b'avis'), 'AVIF'),
    ((b'heic', b'heix', b'heim', b'heis', b'hevc', b'hevx', b'mif1', b'msf1'), 'HEIC'),
    ((b'crx ',), 'camera RAW'),
)


class DeclaredImage(NamedTuple):
    """What a file says of itself."""

    format: str  # 'PNG' or 'JPEG'
    height: int  # in pixels
    width: int  # in pixels
    bits: int  # per channel
    # 'grey', 'RGB', 'RGBA', 'palette', 'grey with alpha' (PNG); 'grey', 'colour', 'CMYK' (JPEG);
    # another number in words
    kind: str


def file_format(content: bytes) -> str:
    """Name of a file's format by its first bytes; '' where it is none that is known here."""
    for start, name in _FIRST_BYTES:
        if content.startswith(start):
            return name
    if content[:4] == b'RIFF' and content[8:12] == b'WEBP':
        return 'WebP'
    if content[4:8] == b'ftyp':
        length = int.from_bytes(content[:4], 'big')
        brands = {content[i : i + 4] for i in (8, *range(16, min(length, 256), 4))}
        return next((name for known, name in _BRANDS if brands & set(known)), 'MP4 or MOV')
    return ''


def describe(content: bytes) -> str:
    """What a file is, as part of a message: its format, or how it begins."""
    name = file_format(content)
    return f'the format {name}' if name else f'{len(content)} bytes that start with {content[:8]!r}'


def declared_image(content: bytes) -> DeclaredImage | None:
    """Read the header of a PNG (IHDR chunk) or JPEG (frame header, ITU-T T.81, B.2.2) image.

    Args:
        content: The bytes of a file.

    Returns:
        What the file says, however absurd; None for another format or a damaged header.
    """
    if content.startswith(_PNG_START) and len(content) >= 26:
        width, height = (int.from_bytes(content[i : i + 4], 'big') for i in (16, 20))
        kind = _PNG_KINDS.get(content[25], f'colour type {content[25]}')
        return DeclaredImage('PNG', height, width, content[24], kind)
    if not content.startswith(JPEG_SIGNATURE):
        return None
    for marker, at in _jpeg_segments(content):
        if marker in _JPEG_FRAMES and at + 10 <= len(content):
            height, width = (int.from_bytes(content[i : i + 2], 'big') for i in (at + 5, at + 7))
            kind = _JPEG_KINDS.get(content[at + 9], f'{content[at + 9]} components')
            return DeclaredImage('JPEG', height, width, content[at + 4], kind)
    return None


def _jpeg_segments(content: bytes) -> Iterator[tuple[int, int]]:
    """Markers of a JPEG image up to its first scan, and where they stand.

    What stands between segments is skipped, as libjpeg does.
    """
    position = 2
    while (position := content.find(b'\xff', position)) >= 0 and position + 1 < len(content):
        marker = content[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        yield marker, position
        if marker in (_JPEG_END, _JPEG_SCAN):
            return
        position += 2
        if marker not in _JPEG_WITHOUT_LENGTH:
            position += max(2, int.from_bytes(content[position : position + 2], 'big'))


def jpeg_damage(content: bytes) -> str:
    """Follow the segments of a JPEG file to its first scan, and look for the end marker from there.

    Args:
        content: The bytes of the file.

    Returns:
        What is missing; '' if nothing is. What follows the end marker (the video of a motion
        photo, further pictures) is not looked at.
    """
    for marker, at in _jpeg_segments(content):
        if marker == _JPEG_END:
            return 'no picture before its end marker'
        # In a scan, FF stands before 00, a restart marker or a fill byte only (B.1.1.5).
        if marker == _JPEG_SCAN and content.find(b'\xff\xd9', at) >= 0:
            return ''
    return 'no end-of-image marker'


def png_damage(content: bytes, checksums: bool = False) -> str:
    """Follow the chunks of a PNG file from its signature to IEND.

    Args:
        content: The bytes of the file.
        checksums: Whether to verify that of every chunk. Decoders verify those of the chunks they
            need, and differ in what they make of a wrong one.

    Returns:
        What is wrong and at which byte; '' if nothing is. What follows IEND is not looked at.
    """
    position = len(PNG_SIGNATURE)
    while (left := len(content) - position - _PNG_CHUNK_BYTES) >= 0:
        length = int.from_bytes(content[position : position + 4], 'big')
        if length > left:
            return f'the chunk at byte {position} declares {length} bytes, {left} are left'
        after = position + _PNG_CHUNK_BYTES + length
        if checksums:
            stored = int.from_bytes(content[after - 4 : after], 'big')
            if zlib.crc32(memoryview(content)[position + 4 : after - 4]) != stored:
                return f'the checksum of the chunk at byte {position} ({length} bytes) is wrong'
        if content[position + 4 : position + 8] == b'IEND':
            return ''
        position = after
    return f'no IEND chunk from byte {position} on'
