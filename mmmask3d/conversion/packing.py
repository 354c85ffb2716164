"""Pack a folder into one LMDB file and back, file by file and checked."""

import array
import fcntl
import json
import os
import posixpath
import shutil
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from mmmask3d.conversion.storage import StorageError
from mmmask3d.datasets.frame_files import existing, files_below
from mmmask3d.datasets.packed_lmdb import (
    FORMAT,
    FORMAT_VERSION,
    MANIFEST_KEY,
    MAX_KEY,
    PackedDatabaseError,
    PackedLmdbBackend,
    with_checksum,
)

_BATCH = 64 * 2**20  # bytes held in memory and written in one transaction
_FIRST_MAP = 2**30  # bytes; address space, not disk
_MARKER = '.unpacking'


class PackingError(RuntimeError):
    """A folder cannot be packed, or a database not be unpacked."""


def pack(
    root: Path,
    out: Path,
    parts: Sequence[str] = (),
    workers: int = 4,
    map_size: int = _FIRST_MAP,
    batch: int = _BATCH,
) -> dict:
    """Pack the files below a folder, as :func:`~mmmask3d.datasets.frame_files.walk` lists them.

    The database takes its name when every file of it has been read back and compared.

    Args:
        root: The folder.
        out: The database, a new file.
        parts: Files and folders below ``root`` to pack; all by default.
        workers: Threads that read files, which helps on network file systems.
        map_size: First size of LMDB's map in bytes; doubled as often as needed.
        batch: Bytes read before they are written.

    Returns:
        The manifest.

    Raises:
        PackingError: Nothing to pack, a name that cannot be a key, ``out`` exists.
        StorageError: The database cannot be written (disk full).
    """
    if out.exists():
        raise PackingError(f'{out} exists. Remove it, or choose another name.')
    again: list[str] = []
    keys = list(_files(root, parts, again))
    if not keys:
        raise PackingError(f'{root}: no file to pack in {", ".join(parts) or "it"}.')
    for key in keys:
        _check_key(key, root)
        if not (root / key).is_file():
            raise PackingError(f'{root / key}: neither a file nor a folder (a broken link?).')
    if again:
        print(
            f'warning: links to folders that hold them or are packed under another name, which is '
            f'packed once: {", ".join(sorted(again))}',
            file=sys.stderr,
        )
    keys.sort(key=str.encode)
    with _temporary_file(out) as temporary:
        manifest, checksums = _write(root, keys, temporary, workers, map_size, batch)
        _compare(temporary, keys, checksums, manifest)
        os.rename(temporary, out)
    _sync_folder(out.parent)
    return manifest


def unpack(database: Path, out: Path) -> dict:
    """Write the files of a database into a new or empty folder.

    The folder takes its name when all files are written, each with its checksum verified.

    Returns:
        The manifest.

    Raises:
        PackingError: ``out`` holds something, or a key would leave the folder.
        PackedDatabaseError: The database is damaged.
        PackedFileError: A file of it is.
        StorageError: A file cannot be written (disk full).
    """
    backend = PackedLmdbBackend(str(database))
    manifest = backend.manifest()
    if out.is_symlink() or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
        raise PackingError(f'{out} exists and is not an empty folder. Choose another one.')
    _check_keys(backend.keys(), database)
    temporary = out.with_name(f'.{out.name}.partial')
    if (temporary / _MARKER).exists():
        shutil.rmtree(temporary)  # of a call that was killed
    written = 0
    try:
        temporary.mkdir(parents=True)
        (temporary / _MARKER).touch()
        for key in tqdm(
            backend.keys(), total=manifest['files'], unit='file', desc='unpacking', disable=None
        ):
            path = temporary / key
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open('xb') as file:
                file.write(_content(backend, key))
            written += 1
        if written != manifest['files']:
            raise PackedDatabaseError(
                f'{database}: holds {written} files, expected {manifest["files"]} after its '
                f'manifest. Pack the folder again.'
            )
        (temporary / _MARKER).unlink()
        os.replace(temporary, out)
    except OSError as error:
        if error.errno is None:
            raise  # a damaged file, which names itself
        raise StorageError(
            f'{temporary}: cannot be written ({error}). Nothing is left; make room or choose '
            f'another folder, and call again.'
        ) from error
    finally:
        if (temporary / _MARKER).exists():
            shutil.rmtree(temporary)
    return manifest


def check(database: Path) -> dict:
    """Verify a database: its structure where the installed lmdb can, then all checksums.

    Returns:
        The manifest.

    Raises:
        PackedDatabaseError: The structure is damaged, or the number of files differs.
        PackedFileError: A file is damaged.
    """
    _check_structure(database)
    backend = PackedLmdbBackend(str(database))
    manifest = backend.manifest()
    keys = list(backend.keys())
    _check_keys(keys, database)
    size = sum(
        len(_content(backend, key))
        for key in tqdm(keys, unit='file', desc='checking', disable=None)
    )
    if (len(keys), size) != (manifest['files'], manifest['bytes']):
        raise PackedDatabaseError(
            f'{database}: holds {len(keys)} files of {size} bytes, expected {manifest["files"]} '
            f'of {manifest["bytes"]} after its manifest. Pack the folder again.'
        )
    return manifest


def _content(backend: PackedLmdbBackend, key: str) -> bytes:
    """Content of a file whose key was listed."""
    try:
        return backend.get(key)
    except FileNotFoundError as error:
        raise PackedDatabaseError(
            f'{backend.db_path}: lists {key!r} and does not find it: the order of its keys is '
            f'damaged. Pack the folder again.'
        ) from error


# -------------------------------------------------------------------- names


def _files(root: Path, parts: Sequence[str], again: list[str]) -> Iterator[str]:
    """Files below a folder, relative to it, with '/' between the parts."""
    if not root.is_dir():
        raise PackingError(f'{root}: there is no such folder.')
    for part in parts or ['']:
        start = Path(existing(str(root / part)))
        if part and (os.path.isabs(part) or '..' in Path(part).parts or not start.exists()):
            raise PackingError(f'{part}: no file or folder of {root}.')
        if start.is_file():
            yield start.relative_to(root).as_posix()
        else:
            prefix = start.relative_to(root).as_posix()
            links: list[str] = []
            try:
                for name in files_below(start, again=links):
                    yield posixpath.normpath(f'{prefix}/{name}')
                again += [posixpath.normpath(f'{prefix}/{link}') for link in links]
            except OSError as error:
                raise PackingError(
                    f'{error.filename}: cannot be listed ({error.strerror}).'
                ) from error


def _check_key(key: str, where: Path) -> None:
    try:
        size = len(key.encode())
    except UnicodeEncodeError as error:
        raise PackingError(f'{where}: the file name {key!r} is no Unicode text.') from error
    parts = key.split('/')
    if any(part in ('', '.', '..') for part in parts) or '\\' in key or not key.isprintable():
        raise PackingError(
            f'{where}: {key!r} cannot name a packed file: expected parts separated by "/", none '
            f'empty, "." or "..", without backslash and control characters.'
        )
    if size > MAX_KEY:
        raise PackingError(f'{where}: {key!r} has {size} bytes; LMDB keys have {MAX_KEY} at most.')


def _check_keys(keys: Iterable[str], where: Path) -> None:
    """Refuse keys that leave the folder, or of which one is a folder of another."""
    folders, files = set(), set()
    for key in keys:
        _check_key(key, where)
        files.add(key)
        folders.update(str(parent) for parent in Path(key).parents)
    both = sorted(files & folders)
    if both:
        raise PackingError(f'{where}: {both[0]!r} is both a file and a folder.')


# -------------------------------------------------------------------- writing


@contextmanager
def _temporary_file(out: Path) -> Iterator[Path]:
    """A hidden file in the folder of ``out``, written by one process; removed at the end."""
    temporary = out.with_name(f'.{out.name}.partial')
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        file = temporary.open('ab')
    except OSError as error:
        raise StorageError(f'{temporary}: cannot be written ({error.strerror}).') from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StorageError(f'{out} is being written by another process.') from error
        try:
            file.truncate(0)  # what a call left that was killed
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)


def _write(
    root: Path, keys: Sequence[str], path: Path, workers: int, map_size: int, batch: int
) -> tuple[dict, array.array]:
    """Write all files and the manifest; returns it and the checksums."""
    import lmdb

    total, checksums = 0, array.array('I')
    environment = lmdb.open(
        str(path), subdir=False, map_size=map_size, lock=False, sync=False, meminit=False
    )
    try:
        with (
            ThreadPoolExecutor(workers) as pool,
            tqdm(total=len(keys), unit='file', desc='packing', disable=None) as bar,
        ):
            for some in _batches(root, keys, batch):
                contents = list(pool.map(lambda key: (root / key).read_bytes(), some))
                _put(environment, [(k.encode(), c) for k, c in zip(some, contents, strict=True)])
                checksums.extend(zlib.crc32(content) for content in contents)
                total += sum(map(len, contents))
                bar.update(len(some))
        manifest = dict(
            format=FORMAT,
            version=FORMAT_VERSION,
            files=len(keys),
            bytes=total,
            checksum='crc32',
        )
        _put(environment, [(MANIFEST_KEY, json.dumps(manifest).encode())], append=False)
        environment.sync(True)
        size = (environment.info()['last_pgno'] + 1) * environment.stat()['psize']
    except (lmdb.Error, OSError) as error:
        free = shutil.disk_usage(path.parent).free / 2**20
        raise StorageError(
            f'{path}: cannot be written ({error}; {free:.0f} MiB are free there). Nothing is '
            f'left; make room or choose another folder, and call again.'
        ) from error
    finally:
        environment.close()
    if path.stat().st_size < size:  # pages at the end that were given back need not be written
        os.truncate(path, size)
    return manifest, checksums


def _batches(root: Path, keys: Sequence[str], limit: int) -> Iterator[list[str]]:
    some, size = [], 0
    for key in keys:
        some.append(key)
        size += (root / key).stat().st_size
        if size >= limit:
            yield some
            some, size = [], 0
    if some:
        yield some


def _put(
    environment: 'lmdb.Environment',  # noqa: F821
    files: Sequence[tuple[bytes, bytes]],
    append: bool = True,
) -> None:
    """Write files in one transaction, with a larger map as often as it is full."""
    import lmdb

    while True:
        try:
            with environment.begin(write=True) as transaction:
                for key, content in files:
                    transaction.put(key, with_checksum(key, content), append=append)
            return
        except lmdb.MapFullError:
            environment.set_mapsize(2 * environment.info()['map_size'])


def _compare(path: Path, keys: Sequence[str], checksums: array.array, manifest: dict) -> None:
    """Read everything back."""
    backend = PackedLmdbBackend(str(path))
    if backend.manifest() != manifest or list(backend.keys()) != list(keys):
        raise StorageError(f'{path}: what was written does not read back the same.')
    for key, checksum in zip(keys, checksums, strict=True):
        if zlib.crc32(backend.get(key)) != checksum:
            raise StorageError(f'{path}: {key!r} does not read back as it was written.')


def _check_structure(database: Path) -> None:
    """Walk over LMDB's pages without LMDB, which a damaged file could crash."""
    try:
        from lmdb.verify import VerifyError, verify
    except ImportError:  # before 3.0
        return
    try:
        problems = verify(str(database), subdir=False)
    except (VerifyError, OSError) as error:
        raise PackedDatabaseError(f'{database}: no LMDB database, or damaged ({error}).') from error
    if problems:
        raise PackedDatabaseError(f'{database}: damaged structure: {problems[0]}')


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
