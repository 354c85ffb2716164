"""Writes a file so that its path never holds half of it, also when the process is killed."""

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_numbers = itertools.count()


@contextmanager
def replacing(
    path: str | os.PathLike, flush: bool = True, folder: Path | None = None
) -> Iterator[Path]:
    """Give a temporary path, which takes the name ``path`` at the end.

    After an error the temporary file is removed, and an older file at ``path`` is as it was.

    Args:
        path: The file to write; its folders are made as needed.
        flush: Wait until the content is on the disk before the file is renamed. Without it a power
            failure, but no kill, can leave an empty file.
        folder: Where the temporary file lies, on the same file system; that of ``path`` by default.

    Raises:
        OSError: The file cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = (folder or path.parent) / f'.{path.name}.{os.getpid()}-{next(_numbers)}.part'
    try:
        yield temporary
        if flush:
            with temporary.open('rb+') as file:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_file(path: str | os.PathLike, data: bytes) -> Path:
    """Write ``data`` to ``path``, complete or not at all; see :func:`replacing`.

    Returns:
        The path.

    Raises:
        OSError: The file cannot be written; nothing is left behind.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(data)
    return Path(path)
