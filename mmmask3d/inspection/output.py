"""Write a report so that it is either complete or absent."""

import os
from pathlib import Path


def write_whole(path: str | os.PathLike, data: bytes) -> Path:
    """Write a file under a temporary name and rename it; folders are made as needed.

    Raises:
        OSError: It cannot be written; nothing is left behind.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
