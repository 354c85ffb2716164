"""Pack a folder into one LMDB file and back, file by file and checked."""

import json
import mmap
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mmmask3d.conversion.storage import StorageError
from mmmask3d.datasets.frame_files import files_below, same_form
from mmmask3d.datasets.packed_lmdb import (
    FORMAT,
    FORMAT_VERSION,
    MANIFEST_KEY,
    MAX_KEY,
    PackedDatabaseError,
    PackedLmdbBackend,
    with_checksum,
)

_BATCH = 64  # files held in memory and written in one transaction


class PackingError(RuntimeError):
    """A folder cannot be packed, or a database not be unpacked."""


def pack(root: Path, out: Path, workers: int = 4) -> dict:
    """Pack the files below a folder, as :func:`~mmmask3d.datasets.frame_files.walk` lists them.

    The database takes its name when every file of it has been read back and compared.

    Args:
        root: The folder.
        out: The database, a new file.
        workers: Threads that read files, which helps on network file systems.

    Returns:
        The manifest.

    Raises:
        PackingError: Nothing to pack, a name that cannot be a key, two files of one name in
            Unicode's composed form, ``out`` exists.
        StorageError: The database cannot be written (disk full).
    """
    if out.exists():
        raise PackingError(f'{out} exists. Remove it, or choose another name.')
    if not root.is_dir():
        raise PackingError(f'{root}: there is no such folder.')
    again: list[str] = []
    try:
        names = list(files_below(root, again=again))
    except OSError as error:
        raise PackingError(f'{error.filename}: cannot be listed ({error.strerror}).') from error
    files: dict[str, Path] = {}
    for name in names:
        key = same_form(name)
        _check_key(key, root)
        if key in files:
            raise PackingError(f'{root}: {files[key].name!a} is there twice. Rename one of them.')
        files[key] = root / name
        if not files[key].is_file():
            raise PackingError(f'{root / name}: neither a file nor a folder (a broken link?).')
    if not files:
        raise PackingError(f'{root}: no file to pack in it.')
    if again:
        print(
            f'warning: links to folders that hold them or are packed under another name, which is '
            f'packed once: {", ".join(sorted(again))}',
            file=sys.stderr,
        )
    temporary = out.with_name(f'.{out.name}.partial')
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)  # what a call left that was killed
        _write(files, temporary, workers)
        manifest = check(temporary)
        os.rename(temporary, out)
    finally:
        temporary.unlink(missing_ok=True)
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
    if out.is_symlink() or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
        raise PackingError(f'{out} exists and is not an empty folder. Choose another one.')
    backend = PackedLmdbBackend(str(database))
    manifest, keys = backend.manifest(), _keys(backend)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f'.{out.name}.') as folder:
            temporary = Path(folder, out.name)
            temporary.mkdir()
            for key in tqdm(keys, unit='file', desc='unpacking', disable=None):
                path = temporary / key
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(backend.get(key))
            os.replace(temporary, out)
    except OSError as error:
        if error.errno is None:
            raise  # a damaged file, which names itself
        raise StorageError(
            f'{out}: cannot be written ({error}). Nothing is left; make room or choose another '
            f'folder, and call again.'
        ) from error
    return manifest


def check(database: Path) -> dict:
    """Verify a database: the number of its files and all checksums.

    Returns:
        The manifest.

    Raises:
        PackedDatabaseError: It is damaged, or the number of files differs.
        PackedFileError: A file is damaged.
    """
    backend = PackedLmdbBackend(str(database))
    manifest = backend.manifest()
    keys = tqdm(_keys(backend), unit='file', desc='checking', disable=None)
    for key in keys:
        backend.get(key)
    return manifest


# -------------------------------------------------------------------- names


def _keys(backend: PackedLmdbBackend) -> list[str]:
    """Keys of all files of a database, as many as its manifest says."""
    keys, expected = list(backend.keys()), backend.manifest()['files']
    for key in keys:
        _check_key(key, Path(backend.db_path))
    if len(keys) != expected:
        raise PackedDatabaseError(
            f'{backend.db_path}: holds {len(keys)} files, expected {expected} after its manifest. '
            f'Pack the folder again.'
        )
    return keys


def _check_key(key: str, where: Path) -> None:
    if {'', '.', '..'} & set(key.split('/')) or '\\' in key or not key.isprintable():
        raise PackingError(
            f'{where}: {key!r} cannot name a packed file: expected parts separated by "/", none '
            f'empty, "." or "..", of Unicode text without backslash and control characters.'
        )
    size = len(key.encode())
    if size > MAX_KEY:
        raise PackingError(f'{where}: {key!r} has {size} bytes; LMDB keys have {MAX_KEY} at most.')


# -------------------------------------------------------------------- writing


def _write(files: Mapping[str, Path], path: Path, workers: int) -> None:
    """Write all files, in the order of their keys, and the manifest."""
    import lmdb

    names = sorted(files, key=str.encode)
    # Address space, not disk: the values in whole pages, and pages of keys.
    room = sum(file.stat().st_size for file in files.values())
    room += 4 * mmap.PAGESIZE * len(files) + 2**26
    total = 0
    try:
        environment = lmdb.open(
            str(path), subdir=False, map_size=room, lock=False, sync=False, meminit=False
        )
        with (
            environment,
            ThreadPoolExecutor(workers) as pool,
            tqdm(total=len(files), unit='file', desc='packing', disable=None) as bar,
        ):
            for start in range(0, len(names), _BATCH):
                some = names[start : start + _BATCH]
                contents = list(pool.map(lambda name: files[name].read_bytes(), some))
                with environment.begin(write=True) as transaction:
                    for name, content in zip(some, contents, strict=True):
                        _put(transaction, name.encode(), content)
                        total += len(content)
                bar.update(len(some))
            manifest = dict(
                format=FORMAT,
                version=FORMAT_VERSION,
                files=len(files),
                bytes=total,
                checksum='crc32',
            )
            with environment.begin(write=True) as transaction:
                _put(transaction, MANIFEST_KEY, json.dumps(manifest).encode())
            environment.sync(True)
            size = (environment.info()['last_pgno'] + 1) * environment.stat()['psize']
    except (lmdb.Error, OSError) as error:
        free = shutil.disk_usage(path.parent).free / 2**20
        raise StorageError(
            f'{path}: cannot be written ({error}; {free:.0f} MiB are free there). Nothing is '
            f'left; make room or choose another folder, and call again.'
        ) from error
    if path.stat().st_size < size:  # pages at the end that were given back need not be written
        os.truncate(path, size)


def _put(transaction: Any, key: bytes, content: bytes) -> None:
    transaction.put(key, with_checksum(key, content))
