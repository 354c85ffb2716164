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
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mmmask3d.conversion.paths import SourceError
from mmmask3d.datasets.depth_io import FrameError

VERSION = 4
COLOUR_FORMATS = {0: 'raw', 1: 'png', 2: 'jpeg'}
DEPTH_FORMATS = {0: 'raw_ushort', 1: 'zlib_ushort', 2: 'occi_ushort'}
_READ = 'jpeg', 'zlib_ushort'
_START = np.dtype([('version', '<u4'), ('name', '<u8')])
_AFTER_NAME = np.dtype(
    [
        ('matrices', '<f4', (4, 4, 4)),
        ('formats', '<i4', 2),
        ('sizes', '<u4', (2, 2)),
        ('depth_scale', '<f4'),
        ('num_frames', '<u8'),
    ]
)
_FRAME = np.dtype([('pose', '<f4', (4, 4)), ('times', '<u8', 2), ('lengths', '<u8', 2)])


class SensCamera(NamedTuple):
    """One of the two cameras: (width, height), and (4, 4) float32 matrices, in pixels or metres."""

    size: tuple[int, int]
    intrinsic: np.ndarray
    extrinsic: np.ndarray


class SensEntry(NamedTuple):
    """A frame's number, from 0, where its header lies, and the lengths of its two images."""

    number: int
    offset: int
    colour_bytes: int
    depth_bytes: int

    @property
    def end(self) -> int:
        """Where the next frame lies."""
        return self.offset + _FRAME.itemsize + self.colour_bytes + self.depth_bytes


class SensFrame(NamedTuple):
    """One frame as stored.

    Attributes:
        where: File, number and offset, for messages.
        pose: (4, 4) float32, camera to world; -inf where tracking was lost.
        times: Of colour and of depth, in microseconds.
        colour: A JPEG file.
        depth: The depth map, compressed by zlib.
    """

    where: str
    pose: np.ndarray
    times: list[int]
    colour: bytes
    depth: bytes


class SensReader:
    """An open ``.sens`` file; a context manager.

    Args:
        path: The file.

    Attributes:
        colour: The camera of the colour images.
        depth: The camera of the depth maps.
        depth_scale: Stored units of depth per metre; 0 stands for "no reading".
        num_frames: As declared; a truncated file holds fewer.

    Raises:
        SourceError: It is no ``.sens`` file of version 4, its header is damaged, or images are
            stored in other formats than ScanNet's.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._file = self.path.open('rb')
        self.size = os.fstat(self._file.fileno()).st_size
        try:
            self._read_header()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> 'SensReader':
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _bytes(self, offset: int, length: int, what: str) -> bytes:
        self._file.seek(min(offset, self.size))
        data = self._file.read(min(length, self.size))
        if len(data) < length:
            raise SourceError(
                f'{self.path}: {what} at byte {offset} misses {length - len(data)} of {length} '
                f'bytes, the file ends at byte {self.size}. It is truncated; copy it again.'
            )
        return data

    def _read_header(self) -> None:
        start = self._bytes(0, _START.itemsize, 'the header')
        version, length = np.frombuffer(start, _START)[0].tolist()
        if version != VERSION:
            raise SourceError(
                f'{self.path}: starts with {start[:4]!r}, expected version {VERSION} of the .sens '
                f'format as a little-endian number. Is it another file, or damaged?'
            )
        offset = _START.itemsize + length
        header = self._bytes(offset, _AFTER_NAME.itemsize, 'the header')
        found = np.frombuffer(header, _AFTER_NAME)[0]
        colour, depth = found['formats'].tolist()
        formats = COLOUR_FORMATS.get(colour, colour), DEPTH_FORMATS.get(depth, depth)
        if formats != _READ:
            raise SourceError(
                f'{self.path}: colour and depth are stored as {formats[0]} and {formats[1]}, '
                f'expected {_READ[0]} and {_READ[1]} as in ScanNet. Export the frames with the '
                f'tool that wrote the file, or copy it again if it is damaged.'
            )
        self.depth_scale = float(found['depth_scale'])
        if not 0 < self.depth_scale < 1e9:  # False for NaN
            raise SourceError(
                f'{self.path}: {self.depth_scale} stored units of depth per metre, expected a '
                f'positive number, as a rule 1000. The file is damaged.'
            )
        sizes, matrices = found['sizes'].tolist(), found['matrices']
        self.colour = SensCamera(tuple(sizes[0]), *matrices[:2])
        self.depth = SensCamera(tuple(sizes[1]), *matrices[2:])
        self.num_frames = int(found['num_frames'])
        self._first = offset + _AFTER_NAME.itemsize

    def __iter__(self) -> Iterator[SensEntry]:
        """Walk over the frames by their headers alone.

        Yields:
            The frames that lie in the file completely, in order.

        Raises:
            SourceError: After the last of them, where more were declared: the file is truncated, or
                a length is wrong.
        """
        offset = self._first
        for number in range(self.num_frames):
            what = f'frame {number} of {self.num_frames}'
            head = np.frombuffer(self._bytes(offset, _FRAME.itemsize, what), _FRAME)[0]
            entry = SensEntry(number, offset, *head['lengths'].tolist())
            if entry.end > self.size:
                raise SourceError(
                    f'{self.path}: {what} at byte {offset} reaches to byte {entry.end}, the file '
                    f'ends at byte {self.size}. It is truncated or damaged there; copy it again.'
                )
            yield entry
            offset = entry.end

    def read(self, entry: SensEntry) -> SensFrame:
        """Read one frame.

        Raises:
            SourceError: The file is shorter than when ``entry`` was found.
        """
        where = f'{self.path}, frame {entry.number} at byte {entry.offset}'
        data = self._bytes(entry.offset, entry.end - entry.offset, where)
        head = np.frombuffer(data, _FRAME, 1)[0]
        images = data[_FRAME.itemsize :]
        colour, depth = images[: entry.colour_bytes], images[entry.colour_bytes :]
        return SensFrame(where, head['pose'].copy(), head['times'].tolist(), colour, depth)

    def decode_depth(self, frame: SensFrame) -> np.ndarray:
        """Decompress a depth map.

        Returns:
            (H, W) uint16 in stored units, 0 = no reading, of the camera's size; read-only.

        Raises:
            FrameError: It is damaged, or more or less than the header says.
        """
        width, height = self.depth.size
        where = f'{frame.where}, depth'
        try:
            data = zlib.decompress(frame.depth)
        except zlib.error as error:
            raise FrameError(f'{where}: damaged zlib data ({error}).') from error
        if len(data) != width * height * 2:
            raise FrameError(
                f'{where}: {len(data)} bytes, expected {width * height * 2} for {width}x{height} '
                f'pixels of 16 bits.'
            )
        return np.frombuffer(data, '<u2').reshape(height, width)
