"""The output folder of a conversion: files complete or absent, a journal, one writer at a time."""

import fcntl
import json
import os
import shutil
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path

_STATE = '.conversion'  # hidden, so that scans of the data set pass over it
_JOURNAL = f'{_STATE}/journal.jsonl'
_TEMPORARY = f'{_STATE}/tmp'
_LOCK = f'{_STATE}/lock'
_numbers = count()


class StorageError(RuntimeError):
    """The output folder cannot be used or written to."""


def write_file(root: Path, name: str, data: bytes) -> list[int]:
    """Write a file below an opened output folder so that it is either complete or absent.

    The bytes are read back before they take their name.

    Args:
        root: The output folder.
        name: Relative name, with '/' between the parts.
        data: The content.

    Returns:
        Size and CRC-32.

    Raises:
        StorageError: The file cannot be written (disk full, no permission, a symbolic link in the
            way), or does not read back as written.
    """
    target = root / name
    temporary = root / _TEMPORARY / f'{os.getpid()}-{next(_numbers)}'
    try:
        _make_folder(root, target.parent)
        try:
            temporary.write_bytes(data)
            if temporary.read_bytes() != data:
                raise StorageError(f'{target}: what was written does not read back the same.')
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        free = shutil.disk_usage(root).free / 2**20
        raise StorageError(
            f'{target}: {len(data)} bytes cannot be written ({error.strerror or error}; '
            f'{free:.0f} MiB are free there). Nothing half-written is left; make room or choose '
            f'another folder, and the same call goes on.'
        ) from error
    return [len(data), zlib.crc32(data)]


def _make_folder(root: Path, folder: Path) -> None:
    """Create a folder below ``root``, none of whose parts may be a symbolic link."""
    current = root
    for part in folder.relative_to(root).parts:
        current = current / part
        if current.is_symlink():
            raise StorageError(
                f'{current} is a symbolic link, which would lead the output out of {root}. '
                f'Remove it, or choose another output folder.'
            )
    folder.mkdir(parents=True, exist_ok=True)


def unchanged(root: Path, files: Mapping[str, list[int]]) -> bool:
    """Whether all files are there with the size and CRC-32 that :func:`write_file` returned."""
    for name, (size, crc) in files.items():
        try:
            path = root / name
            if path.stat().st_size != size or zlib.crc32(path.read_bytes()) != crc:
                return False
        except OSError:
            return False
    return True


class OutputFolder:
    """An output folder that this process alone writes to; made by :func:`open_output`.

    Attributes:
        root: The folder.
        records: Records of the frames that are complete and unchanged, by name.
    """

    def __init__(self, root: Path, records: dict[str, dict]) -> None:
        self.root = root
        self.records = records

    def add(self, records: list[dict]) -> None:
        """Note frames as complete; their files are written already."""
        lines = ''.join(json.dumps(r, separators=(',', ':')) + '\n' for r in records)
        try:
            with (self.root / _JOURNAL).open('a', encoding='utf-8') as file:
                file.write(lines)
        except OSError as error:
            raise StorageError(f'{self.root / _JOURNAL}: cannot be written ({error}).') from error
        self.records.update((r['name'], r) for r in records)

    def write(self, name: str, data: bytes) -> list[int]:
        """See :func:`write_file`."""
        return write_file(self.root, name, data)


@contextmanager
def open_output(root: Path, identity: dict) -> Iterator[OutputFolder]:
    """Open a new or empty folder, or one that the same conversion was interrupted in.

    Frames noted in the journal are kept if their files still have the noted checksums.

    Args:
        root: The folder.
        identity: What decides the content: converter and options, as JSON.

    Raises:
        StorageError: The folder holds something else, was made with other options, or is being
            written by another process.
    """
    journal = root / _JOURNAL
    foreign = root.is_dir() and any(p.name != _STATE for p in root.iterdir())
    if not journal.exists() and (foreign or (root.exists() and not root.is_dir())):
        raise StorageError(
            f'{root} exists and was not made by a converter of this project. Choose a new or '
            f'empty folder.'
        )
    try:
        (root / _TEMPORARY).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f'{root} cannot be created ({error}).') from error
    with (root / _LOCK).open('w') as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StorageError(
                f'{root} is being written by another process. Wait for it, or choose another '
                f'folder.'
            ) from error
        for leftover in (root / _TEMPORARY).iterdir():
            leftover.unlink()
        if not journal.exists():
            write_file(root, _JOURNAL, (json.dumps(identity) + '\n').encode())
        yield OutputFolder(root, _read_journal(root, identity))


def _read_journal(root: Path, identity: dict) -> dict[str, dict]:
    journal = root / _JOURNAL
    content = journal.read_bytes()
    end = content.rfind(b'\n') + 1
    if end < len(content):  # killed while a line was written
        os.truncate(journal, end)
    lines = content[:end].splitlines()
    try:
        found = json.loads(lines[0])
    except (IndexError, ValueError) as error:
        raise StorageError(
            f'{journal}: its first line is damaged ({error}). Remove {root} and convert again.'
        ) from error
    differing = _differences(found, json.loads(json.dumps(identity)))
    if differing:
        raise StorageError(
            f'{root} was made with {"; ".join(differing)}. Give the same options to go on with '
            f'it, or another folder.'
        )
    records = {}
    for line in lines[1:]:
        try:
            record = json.loads(line)
            records[record['name']] = record
        except (ValueError, KeyError, TypeError):
            continue  # a damaged line costs its frame, which is converted again
    with ThreadPoolExecutor(8) as pool:
        kept = pool.map(lambda r: unchanged(root, r['files']), records.values())
        return {n: r for (n, r), k in zip(list(records.items()), kept, strict=True) if k}


def _differences(found: dict, wanted: dict, prefix: str = '') -> list[str]:
    result = []
    for key in sorted({*found, *wanted}):
        old, new = found.get(key), wanted.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            result += _differences(old, new, f'{prefix}{key}.')
        elif old != new:
            result.append(f'{prefix}{key} {old!r} (asked for: {new!r})')
    return result
