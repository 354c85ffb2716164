"""Reader of ScanNet's ``.sens`` streams of compressed RGB-D frames.

The format (version 4, little endian, no padding) is that of ``SensReader`` in
https://github.com/ScanNet/ScanNet (``c++/src/sensorData.h``, commit 3830fce):

- header: uint32 version; uint64 length of the sensor's name, and the name; four 4 x 4 float32
  matrices, row by row (intrinsics and extrinsics of colour, intrinsics and extrinsics of depth);
  int32 formats of colour and of depth; uint32 width and height of colour, width and height of
  depth; float32 stored units of depth per metre; uint64 number of frames
- each frame: 4 x 4 float32 camera to world; uint64 time stamps of colour and of depth
  (microseconds); uint64 lengths of the colour image and of the depth map; the two
- inertial readings, which are not read here and which some files lack: uint64 number, 128 bytes
  each

There is neither an index nor a checksum. The reader walks from frame header to frame header
without touching what lies between, and holds one frame at a time. Of the formats, those of ScanNet
are read: JPEG colour and zlib depth.
"""

import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mmmask3d.conversion.paths import SourceError
from mmmask3d.datasets.depth_io import FrameError

VERSION = 4
COLOUR_FORMATS = {0: 'raw', 1: 'png', 2: 'jpeg'}
DEPTH_FORMATS = {0: 'raw_ushort', 1: 'zlib_ushort', 2: 'occi_ushort'}
_READ = 'jpeg', 'zlib_ushort'
_AFTER_NAME = struct.Struct('<64f2i4IfQ')
_FRAME_BYTES = 96  # of a frame before its images
_AFTER_POSE = struct.Struct('<4Q')
_POSE_BYTES = 64


@dataclass(frozen=True)
class SensHeader:
    """What holds for all frames of a stream.

    Attributes:
        sensor: Name of the sensor.
        colour_intrinsic: (4, 4) float32, pixels.
        colour_extrinsic: (4, 4) float32.
        depth_intrinsic: (4, 4) float32, pixels.
        depth_extrinsic: (4, 4) float32.
        colour_size: (width, height).
        depth_size: (width, height).
        depth_scale: Stored units of depth per metre; 0 stands for "no reading".
        num_frames: As declared; a truncated file holds fewer.
    """

    sensor: str
    colour_intrinsic: np.ndarray
    colour_extrinsic: np.ndarray
    depth_intrinsic: np.ndarray
    depth_extrinsic: np.ndarray
    colour_size: tuple[int, int]
    depth_size: tuple[int, int]
    depth_scale: float
    num_frames: int


class SensEntry(NamedTuple):
    """Where a frame lies.

    Attributes:
        number: Of the frame, from 0.
        offset: Of its header in the file.
        colour_bytes: Length of the stored colour image.
        depth_bytes: Length of the stored depth map.
    """

    number: int
    offset: int
    colour_bytes: int
    depth_bytes: int


@dataclass(frozen=True)
class SensFrame:
    """One frame as stored.

    Attributes:
        where: File, number and offset, for messages.
        pose: (4, 4) float32, camera to world; -inf where tracking was lost.
        colour_time: Microseconds.
        depth_time: Microseconds.
        colour: A JPEG file.
        depth: The depth map, compressed by zlib.
    """

    where: str
    pose: np.ndarray
    colour_time: int
    depth_time: int
    colour: bytes
    depth: bytes


class SensReader:
    """An open ``.sens`` file; a context manager.

    Args:
        path: The file.

    Raises:
        SourceError: It is no ``.sens`` file of version 4, its header is damaged, or images are
            stored in other formats than ScanNet's.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._file = self.path.open('rb')
        self.size = os.fstat(self._file.fileno()).st_size
        try:
            self.header, self._first = self._read_header()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> 'SensReader':
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _bytes(self, offset: int, length: int, what: str) -> bytes:
        self._file.seek(offset)
        data = self._file.read(min(length, self.size))
        if len(data) < length:
            raise SourceError(
                f'{self.path}: {what} at byte {offset} misses {length - len(data)} of {length} '
                f'bytes, the file ends at byte {self.size}. It is truncated; copy it again.'
            )
        return data

    def _read_header(self) -> tuple[SensHeader, int]:
        start = self._bytes(0, 12, 'the header')
        version, length = struct.unpack('<IQ', start)
        if version != VERSION:
            raise SourceError(
                f'{self.path}: starts with {start[:4]!r}, expected version {VERSION} of the .sens '
                f'format as a little-endian number. Is it another file, or damaged?'
            )
        name = self._bytes(12, length, 'the name of the sensor')
        offset = 12 + length
        fields = _AFTER_NAME.unpack(self._bytes(offset, _AFTER_NAME.size, 'the header'))
        matrices = np.array(fields[:64], np.float32).reshape(4, 4, 4)
        colour, depth, *sides, scale, num_frames = fields[64:]
        formats = COLOUR_FORMATS.get(colour, colour), DEPTH_FORMATS.get(depth, depth)
        if formats != _READ:
            raise SourceError(
                f'{self.path}: colour and depth are stored as {formats[0]} and {formats[1]}, '
                f'expected {_READ[0]} and {_READ[1]} as in ScanNet. Export the frames with the '
                f'tool that wrote the file, or copy it again if it is damaged.'
            )
        if not 0 < scale < 1e9:  # False for NaN
            raise SourceError(
                f'{self.path}: {scale} stored units of depth per metre (byte {offset + 280}), '
                f'expected a positive number, as a rule 1000. The file is damaged.'
            )
        header = SensHeader(
            name.decode('ascii', 'backslashreplace').rstrip('\0'),
            matrices[0],
            matrices[1],
            matrices[2],
            matrices[3],
            (sides[0], sides[1]),
            (sides[2], sides[3]),
            scale,
            num_frames,
        )
        return header, offset + _AFTER_NAME.size

    def __iter__(self) -> Iterator[SensEntry]:
        """Walk over the frames by their headers alone.

        Yields:
            The frames that lie in the file completely, in order.

        Raises:
            SourceError: After the last of them, where more were declared: the file is truncated, or
                a length is wrong.
        """
        offset = self._first
        for number in range(self.header.num_frames):
            entry = self._entry(number, offset)
            yield entry
            offset += _FRAME_BYTES + entry.colour_bytes + entry.depth_bytes

    def _entry(self, number: int, offset: int) -> SensEntry:
        what = f'frame {number} of {self.header.num_frames}'
        head = self._bytes(offset, _FRAME_BYTES, what)
        entry = SensEntry(number, offset, *_AFTER_POSE.unpack_from(head, _POSE_BYTES)[2:])
        end = offset + _FRAME_BYTES + entry.colour_bytes + entry.depth_bytes
        if end > self.size:
            raise SourceError(
                f'{self.path}: {what} at byte {offset} reaches to byte {end}, the file ends at '
                f'byte {self.size}. It is truncated or damaged there; copy it again.'
            )
        return entry

    def read(self, entry: SensEntry) -> SensFrame:
        """Read one frame.

        Raises:
            SourceError: The file is shorter than when ``entry`` was found.
        """
        where = f'{self.path}, frame {entry.number} at byte {entry.offset}'
        data = self._bytes(
            entry.offset, _FRAME_BYTES + entry.colour_bytes + entry.depth_bytes, where
        )
        colour_time, depth_time, _, _ = _AFTER_POSE.unpack_from(data, _POSE_BYTES)
        pose = np.frombuffer(data, '<f4', 16).reshape(4, 4).copy()
        middle = _FRAME_BYTES + entry.colour_bytes
        images = data[_FRAME_BYTES:middle], data[middle:]
        return SensFrame(where, pose, colour_time, depth_time, *images)

    def depth(self, frame: SensFrame) -> np.ndarray:
        """Decompress the depth map.

        Returns:
            (H, W) uint16 in stored units, 0 = no reading, of the header's ``depth_size``. The
            array is read-only.

        Raises:
            FrameError: It is damaged, or more or less than the header says.
        """
        width, height = self.header.depth_size
        expected = width * height * 2
        where = f'{frame.where}, depth'
        try:
            data = zlib.decompress(frame.depth)
        except zlib.error as error:
            raise FrameError(f'{where}: damaged zlib data ({error}).') from error
        if len(data) != expected:
            raise FrameError(
                f'{where}: {len(data)} bytes, expected {expected} for {width}x{height} pixels of '
                f'16 bits.'
            )
        return np.frombuffer(data, '<u2').reshape(height, width)
