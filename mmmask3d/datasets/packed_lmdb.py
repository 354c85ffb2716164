"""File backend that reads a data set packed into one LMDB file, for mmengine's `backend_args`.

Format: key = path of the file below the packed folder, UTF-8 in Unicode's composed form (NFC), '/'
between the parts; value = its content, then the CRC-32 of key and content (4 bytes,
little-endian). The key ``/manifest``, which no file can have, holds the manifest as JSON, likewise
with its checksum. It is written last.
"""

import json
import os
import posixpath
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from typing import Any
from weakref import WeakValueDictionary

from mmengine.fileio.backends import BaseStorageBackend, register_backend

from mmmask3d.datasets.frame_files import content_of, same_form

FORMAT = 'mmmask3d packed files'
FORMAT_VERSION = 1
MANIFEST_KEY = b'/manifest'
MAX_KEY = 511  # bytes; what LMDB is built with
CHECKSUM_SIZE = 4

_CURE = 'Pack the folder again (mmmask3d pack).'


class PackedDatabaseError(ValueError):
    """The database as a whole cannot be used, or is asked for files of another folder."""


class PackedFileError(OSError):
    """One file of a database is damaged."""


def checksum(key: bytes, content: bytes) -> int:
    """CRC-32 of both, so that a file under a damaged name is found out too."""
    return zlib.crc32(content, zlib.crc32(key))


def with_checksum(key: bytes, content: bytes) -> bytes:
    """The value that stands for a file."""
    return content + checksum(key, content).to_bytes(CHECKSUM_SIZE, 'little')


def without_checksum(key: bytes, value: memoryview | bytes, db_path: str) -> bytes:
    """The content of a file.

    Raises:
        PackedFileError: The checksum does not fit.
    """
    content = bytes(value[:-CHECKSUM_SIZE])
    stored = int.from_bytes(value[-CHECKSUM_SIZE:], 'little')
    found = checksum(key, content)
    if len(value) < CHECKSUM_SIZE or found != stored:
        raise PackedFileError(
            f'{key.decode(errors="replace")!r} in {db_path}: the checksum of its {len(content)} '
            f'bytes is {found:08x}, expected {stored:08x}: the file is damaged. {_CURE}'
        )
    return content


@register_backend('packed_lmdb')
class PackedLmdbBackend(BaseStorageBackend):
    """Read files from an LMDB made by ``mmmask3d pack``.

    Used through ``backend_args=dict(backend='packed_lmdb', db_path=..., data_root=...)`` alone;
    paths stay those of the folder, in any Unicode form. The database is opened read-only and
    without locks, once in each process.

    Args:
        db_path: The database, one file.
        data_root: Folder that the database stands for: the beginning of every path asked for. ''
            where paths are relative to the packed folder already.

    Raises:
        PackedDatabaseError: The database does not exist, is truncated or something else (when it
            is first used), or a path lies outside ``data_root``.
    """

    def __init__(self, db_path: str, data_root: str = '') -> None:
        self.db_path = str(db_path)
        self.data_root = str(data_root)
        self._environment: tuple[int, Any] = (0, None)  # the process it was opened in, and it
        root = posixpath.normpath(self.data_root) if self.data_root else '.'
        self._prefix = '' if root == '.' else root.rstrip('/') + '/'

    def __getstate__(self) -> dict:
        return self.__dict__ | dict(_environment=(0, None))

    # ---------------------------------------------------------------- reading

    def get(self, filepath: str | Path) -> bytes:
        """Content of a file.

        Raises:
            FileNotFoundError: The database does not hold it.
            PackedFileError: Its checksum does not fit.
            PackedDatabaseError: See the class.
        """
        key = self._key(filepath).encode(errors='surrogateescape')
        with self._reading() as transaction:
            value = transaction.get(key) if 0 < len(key) <= MAX_KEY else None
            if value is None:
                raise FileNotFoundError(
                    f'{filepath} does not exist: {self.db_path} has no {self._key(filepath)!r}.'
                )
            return without_checksum(key, value, self.db_path)

    def get_text(self, filepath: str | Path, encoding: str = 'utf-8') -> str:
        """Content of a file as text."""
        return self.get(filepath).decode(encoding)

    @contextmanager
    def get_local_path(self, filepath: str | Path) -> Iterator[str]:
        """A temporary copy of a file, for readers that want a path (COCO annotations)."""
        content = self.get(filepath)
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, posixpath.basename(self._key(filepath)))
            Path(path).write_bytes(content)
            yield path

    def manifest(self) -> dict[str, Any]:
        """What was written with the files: ``files`` (their number), ``bytes``, ``format``."""
        with self._reading() as transaction:
            return _read_manifest(transaction, self.db_path)

    # ---------------------------------------------------------------- names

    def keys(self, folder: str = '') -> Iterator[str]:
        """Keys of all files below a folder of the database, in the order of their bytes."""
        with self._reading() as transaction, transaction.cursor() as cursor:
            start = f'{folder}/'.encode() if folder else b''
            found = cursor.set_range(start) if start else cursor.first()
            while found:
                key = bytes(cursor.key())
                if not key.startswith(start):
                    return
                if key != MANIFEST_KEY:
                    yield key.decode(errors='replace')
                found = cursor.next()

    def isfile(self, filepath: str | Path) -> bool:
        """Whether the database holds a file."""
        key = self._key(filepath).encode(errors='surrogateescape')
        with self._reading() as transaction:
            return 0 < len(key) <= MAX_KEY and transaction.get(key) is not None

    def isdir(self, filepath: str | Path) -> bool:
        """Whether the database holds a file below a folder."""
        return next(self.keys(self._key(filepath)), None) is not None

    def exists(self, filepath: str | Path) -> bool:
        """Whether there is such a file or folder."""
        return self.isfile(filepath) or self.isdir(filepath)

    def join_path(self, filepath: str | Path, *filepaths: str | Path) -> str:
        """Join parts of a path."""
        return posixpath.join(str(filepath), *map(str, filepaths))

    def list_dir_or_file(
        self,
        dir_path: str | Path,
        list_dir: bool = True,
        list_file: bool = True,
        suffix: str | tuple[str, ...] | None = None,
        recursive: bool = False,
    ) -> Iterator[str]:
        """List a folder as :class:`mmengine.fileio.LocalBackend` does.

        Yields:
            Paths relative to ``dir_path``.

        Raises:
            FileNotFoundError: There is no such folder.
        """
        folder = self._key(dir_path)
        names = [key.removeprefix(f'{folder}/') for key in self.keys(folder)]
        if not names:
            top = content_of({key.split('/')[0] for key in self.keys()})
            raise FileNotFoundError(
                f'{dir_path} does not exist: {self.db_path} has no folder {folder!r}. At its top '
                f'level are: {top}.'
            )
        found = names if list_file else []
        if list_dir:
            parents = {parent for name in names for parent in map(str, PurePosixPath(name).parents)}
            found = sorted(parents - {'.'}) + found
        for name in found:
            if (recursive or '/' not in name) and (suffix is None or name.endswith(suffix)):
                yield name

    def _key(self, filepath: str | Path) -> str:
        """The key of a path: what follows ``data_root``."""
        path = posixpath.normpath(str(filepath))
        if path + '/' == self._prefix or (path == '.' and not self._prefix):
            return ''
        key = path.removeprefix(self._prefix)
        if not path.startswith(self._prefix) or key.startswith(('/', '../')) or key == '..':
            raise PackedDatabaseError(
                f'{filepath} does not lie below data_root={self.data_root!r}, the folder that '
                f'{self.db_path} stands for. Give the data_root of the data set in backend_args.'
            )
        return same_form(key)

    # ---------------------------------------------------------------- the database

    @contextmanager
    def _reading(self) -> Iterator[Any]:
        """A read transaction, whose values are views that end with it."""
        if self._environment[0] != os.getpid():
            self._environment = os.getpid(), _open(self.db_path)
        with _damage_named(self.db_path), self._environment[1].begin(buffers=True) as transaction:
            yield transaction


@contextmanager
def _damage_named(db_path: str) -> Iterator[None]:
    import lmdb

    try:
        yield
    except lmdb.Error as error:
        raise PackedDatabaseError(
            f'{db_path}: no LMDB database, or a damaged one ({error}). {_CURE}'
        ) from error


# LMDB forbids opening a file twice in one process and going on with one that fork copied.
# Keys: (process, device, inode).
_environments: WeakValueDictionary = WeakValueDictionary()


def _open(db_path: str) -> Any:
    """The open database of this process, after checking that it is whole and ours."""
    import lmdb

    if not os.path.isfile(db_path):
        found = 'a folder' if os.path.isdir(db_path) else 'nothing'
        raise PackedDatabaseError(
            f'{db_path}: expected the file that mmmask3d pack makes, found {found}. Check db_path '
            f'in backend_args.'
        )
    status = os.stat(db_path)
    key = os.getpid(), status.st_dev, status.st_ino
    for other, inherited in list(_environments.items()):
        if other[0] != key[0]:
            inherited.close()  # what fork copied into this process; the parent's stays open
            del _environments[other]
    environment = _environments.get(key)
    if environment is not None:
        return environment
    with _damage_named(db_path), ExitStack() as opened:
        environment = lmdb.open(
            db_path, subdir=False, readonly=True, lock=False, readahead=False, max_spare_txns=2
        )
        opened.callback(environment.close)
        # LMDB maps the file: touching a page beyond its end would kill the process.
        expected = (environment.info()['last_pgno'] + 1) * environment.stat()['psize']
        if status.st_size < expected:
            raise PackedDatabaseError(
                f'{db_path}: truncated, {status.st_size} bytes, expected {expected}. Copy it '
                f'again, or pack the folder again.'
            )
        with environment.begin(buffers=True) as transaction:
            _read_manifest(transaction, db_path)
        opened.pop_all()
    _environments[key] = environment
    return environment


def _read_manifest(transaction: Any, db_path: str) -> dict[str, Any]:
    value = transaction.get(MANIFEST_KEY)
    if value is None:
        raise PackedDatabaseError(
            f'{db_path}: has no manifest, so mmmask3d pack did not make it, or not finish. {_CURE}'
        )
    try:
        manifest = json.loads(without_checksum(MANIFEST_KEY, value, db_path))
        found = manifest['format'], manifest['version']
    except (PackedFileError, ValueError, KeyError, TypeError) as error:
        raise PackedDatabaseError(f'{db_path}: damaged manifest ({error}). {_CURE}') from error
    if found != (FORMAT, FORMAT_VERSION):
        raise PackedDatabaseError(
            f'{db_path}: format {found[0]!r} version {found[1]!r}, expected {FORMAT!r} version '
            f'{FORMAT_VERSION}. {_CURE}'
        )
    return manifest
