"""Files inside a ZIP archive, read one at a time."""

import zipfile
import zlib
from pathlib import Path

from mmmask3d.conversion.paths import SourceError
from mmmask3d.datasets.depth_io import FrameError
from mmmask3d.datasets.frame_files import same_form

#: What the zipfile module raises on damaged, encrypted and unusually compressed archives.
_DAMAGE = (OSError, EOFError, RuntimeError, ValueError, zipfile.BadZipFile, zlib.error)


class Archive:
    """An open ZIP archive; a context manager. Nothing is extracted to disk, so names are harmless.

    Args:
        path: The archive.

    Raises:
        SourceError: It is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except _DAMAGE as error:
            raise SourceError(
                f'{path}: not a readable ZIP archive ({error}). It is damaged or truncated; copy '
                f'it again.'
            ) from error
        names = self._zip.namelist()
        self._members = {same_form(name): name for name in names}
        if len(self._members) < len(names):
            raise SourceError(f'{path}: holds a name twice, in the same or another Unicode form.')

    def __enter__(self) -> 'Archive':
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def __contains__(self, name: str) -> bool:
        return same_form(name) in self._members

    def read(self, name: str) -> bytes:
        """Read one member.

        Raises:
            FrameError: There is none of this name, or it is damaged.
        """
        if name not in self:
            raise FrameError(f'{self.path}, {name}: not in the archive.')
        try:
            return self._zip.read(self._members[same_form(name)])
        except _DAMAGE as error:
            raise FrameError(f'{self.path}, {name}: damaged ({error}).') from error
