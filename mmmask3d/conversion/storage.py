"""The output folder of a conversion: files complete or absent, a journal, one writer at a time."""

import fcntl
import json
import os
import shutil
import zlib
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from mmmask3d.atomic_file import replacing

_STATE = '.conversion'  # hidden, so that scans of the data set pass over it
_JOURNAL = f'{_STATE}/journal.jsonl'
_TEMPORARY = f'{_STATE}/tmp'
_LOCK = f'{_STATE}/lock'


class StorageError(RuntimeError):
    """The output folder cannot be used or written to."""


def write_file(root: Path, name: str, data: bytes) -> list[int]:
    """Write a file below an opened output folder so that it is either complete or absent.

    Returns size and CRC-32.

    Raises:
        StorageError: The file cannot be written (disk full, no permission).
    """
    target = root / name
    try:
        # In one folder, which the next call clears of what a killed process left.
        with replacing(target, flush=False, folder=root / _TEMPORARY) as temporary:
            temporary.write_bytes(data)
    except OSError as error:
        raise _not_writable(root, target, error) from error
    return [len(data), zlib.crc32(data)]


def remove_files(root: Path, names: Iterable[str]) -> None:
    """Remove files below an opened output folder, where they exist.

    Raises:
        StorageError: One cannot be removed.
    """
    for name in names:
        path = root / name
        try:
            path.unlink(missing_ok=True)
        except NotADirectoryError:
            continue  # a file lies where its folder would be, so it does not exist
        except OSError as error:
            raise StorageError(f'{path} cannot be removed ({error.strerror}).') from error


def _not_writable(root: Path, target: Path, error: OSError) -> StorageError:
    existing = next(p for p in (root, *root.absolute().parents) if p.exists())
    free = shutil.disk_usage(existing).free / 2**20
    return StorageError(
        f'{target} cannot be written ({error.strerror or error}; {free:.0f} MiB are free there). '
        f'No half-written file is left. Make room, allow writing, or choose another folder; the '
        f'same call goes on.'
    )


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
        index: Names of the index files that were written at any time.
    """

    def __init__(self, root: Path, records: dict[str, dict], index: set[str]) -> None:
        self.root, self.records, self.index = root, records, index

    def add(self, records: list[dict]) -> None:
        """Note frames as complete; their files are written already."""
        self._note(*records)
        self.records.update((r['name'], r) for r in records)

    def _note(self, *records: dict) -> None:
        try:
            with (self.root / _JOURNAL).open('ab') as file:
                file.write(b''.join(map(_line, records)))
        except OSError as error:
            raise _not_writable(self.root, self.root / _JOURNAL, error) from error

    def write(self, name: str, data: bytes) -> list[int]:
        """Write a file (see :func:`write_file`), unless it is there with this content."""
        noted = [len(data), zlib.crc32(data)]
        return noted if unchanged(self.root, {name: noted}) else write_file(self.root, name, data)

    def write_index(self, files: Mapping[str, bytes]) -> dict[str, list[int]]:
        """Write index files, and remove those that an earlier call made and that are no more."""
        if not self.index.issuperset(files):
            # Noted first, so that a file written before an interruption is known afterwards.
            self._note({'index': sorted(files)})
            self.index.update(files)
        remove_files(self.root, sorted(self.index.difference(files)))
        return {name: self.write(name, data) for name, data in files.items()}


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
    with ExitStack() as stack:
        try:
            _check_ours(root)
            (root / _TEMPORARY).mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context((root / _LOCK).open('wb'))
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _clear_temporary(root)
            if not (root / _JOURNAL).exists():
                write_file(root, _JOURNAL, _line(identity))
            output = OutputFolder(root, *_read_journal(root, identity))
        except BlockingIOError as error:
            raise StorageError(
                f'{root} is being written by another process. Wait for it, or choose another '
                f'folder.'
            ) from error
        except OSError as error:
            raise _not_writable(root, root, error) from error
        try:
            yield output
        finally:
            # Left by worker processes that were stopped. What cannot be removed now, for example
            # because the disk is gone, the next call removes.
            with suppress(OSError):
                _clear_temporary(root)


def _check_ours(root: Path) -> None:
    """Raise where the folder holds something else."""
    if not root.exists() or (root / _JOURNAL).is_file():
        return
    if not root.is_dir() or any(path.name != _STATE for path in root.iterdir()):
        raise StorageError(
            f'{root} exists and was not made by a converter of this project. Choose a new or '
            f'empty folder.'
        )


def _clear_temporary(root: Path) -> None:
    for leftover in (root / _TEMPORARY).iterdir():
        leftover.unlink()


# -------------------------------------------------------------------- journal
#
# Lines of CRC-32 of the rest in eight hexadecimal digits, a blank, JSON: first what decides the
# content of the folder, then a record a frame, and names of index files.


def _line(record: dict) -> bytes:
    content = json.dumps(record, separators=(',', ':')).encode()
    return b'%08x %s\n' % (zlib.crc32(content), content)


def _parsed(line: bytes) -> dict | None:
    """Content of a line, or None if it is damaged."""
    crc, _, content = line.partition(b' ')
    return json.loads(content) if crc == b'%08x' % zlib.crc32(content) else None


def _read_journal(root: Path, identity: dict) -> tuple[dict[str, dict], set[str]]:
    journal = root / _JOURNAL
    content = journal.read_bytes()
    end = content.rfind(b'\n') + 1
    if end < len(content):  # killed while a line was written
        os.truncate(journal, end)
    first, *lines = content[:end].split(b'\n')
    found = _parsed(first)
    if found is None:
        raise StorageError(
            f'{journal}: its first line, which says how {root} was made, is damaged. Remove '
            f'{root} and convert again.'
        )
    old, new = (d | d.get('options', {}) for d in (found, json.loads(json.dumps(identity))))
    differing = [
        f'{key} {old.get(key)!r} (asked for: {new.get(key)!r})'
        for key in sorted({*old, *new} - {'options'})
        if old.get(key) != new.get(key)
    ]
    if differing:
        raise StorageError(
            f'{root} was made with {"; ".join(differing)}. Give the same options to go on with '
            f'it, or another folder.'
        )
    # A damaged line costs its frame, which is converted again.
    noted = [record for record in map(_parsed, lines) if record is not None]
    index = {name for record in noted for name in record.get('index', ())}
    records = {record['name']: record for record in noted if 'name' in record}
    with ThreadPoolExecutor(8) as pool:
        kept = pool.map(lambda r: unchanged(root, r['files']), records.values())
        return {r['name']: r for r, k in zip(records.values(), kept, strict=True) if k}, index
