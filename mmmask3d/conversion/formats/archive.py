"""Files inside a ZIP archive, read one at a time without trusting the archive."""

import struct
import zipfile
import zlib
from pathlib import Path

from mmmask3d.conversion.paths import SourceError
from mmmask3d.datasets.depth_io import FrameError
from mmmask3d.datasets.frame_files import same_form

#: What the zipfile module raises on damaged archives.
_DAMAGE = (
    OSError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    OverflowError,
)
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class Archive:
    """An open ZIP archive; a context manager. Nothing is extracted to disk, so names are harmless.

    Args:
        path: The archive.
        largest: Largest member that is read, in bytes.

    Raises:
        SourceError: It is damaged.
    """

    def __init__(self, path: Path, largest: int) -> None:
        self.path, self.largest = path, largest
        try:
            self._zip = zipfile.ZipFile(path)
        except _DAMAGE as error:
            raise SourceError(
                f'{path}: not a readable ZIP archive ({error}). It is damaged or truncated; copy '
                f'it again.'
            ) from error
        self._members = {same_form(info.filename): info for info in self._zip.infolist()}
        if len(self._members) < len(self._zip.infolist()):
            raise SourceError(f'{path}: holds a name twice, in the same or another Unicode form.')

    def __enter__(self) -> 'Archive':
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._zip.close()

    def __contains__(self, name: str) -> bool:
        return same_form(name) in self._members

    def read(self, name: str) -> bytes:
        """Read one member.

        Raises:
            FrameError: There is none of this name, it is encrypted, damaged, larger than
                ``largest``, or not of the size the archive declares.
        """
        where = f'{self.path}, {name}'
        info = self._members.get(same_form(name))
        if info is None:
            raise FrameError(f'{where}: not in the archive.')
        where = f'{where} at byte {info.header_offset}'
        if info.file_size > self.largest:
            raise FrameError(
                f'{where}: declares {info.file_size} bytes, expected at most {self.largest}.'
            )
        if info.compress_type not in _METHODS:
            raise FrameError(
                f'{where}: compression method {info.compress_type}, expected deflate or none.'
            )
        try:
            with self._zip.open(info) as file:
                content = file.read(self.largest + 1)
        except _DAMAGE as error:
            raise FrameError(f'{where}: damaged ({error}).') from error
        if len(content) != info.file_size:
            raise FrameError(
                f'{where}: holds {len(content)} bytes and declares {info.file_size}. The archive '
                f'is damaged.'
            )
        return content
