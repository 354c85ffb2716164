"""Names that come from somebody else's file, kept inside the folder they belong to."""

import os
import re
from pathlib import Path

_UNWANTED = re.compile(r'[\s#,]+')
_CONTROL = re.compile(r'[\x00-\x1f\x7f]')
_MAX_PART = 200  # file systems allow 255 bytes; suffixes and temporary names need some


class SourceError(ValueError):
    """A data set as distributed is damaged, incomplete or not what it is said to be."""


def safe_name(name: str) -> str:
    """Make the stem of an output file out of a name found in a data set.

    Blanks, commas and ``#`` become ``_``, since index files are split at blanks and ``#`` begins
    a comment there.

    Args:
        name: Parts separated by '/', for example ``scene0000_00/000025``.

    Returns:
        A relative stem.

    Raises:
        SourceError: The name is empty or absolute, climbs with ``..``, has a hidden part, a
            backslash or a control character, or is too long.
    """
    parts = name.split('/')
    for part in parts:
        if (
            not part
            or part.startswith('.')
            or '\\' in part
            or _CONTROL.search(part)
            or len(part.encode(errors='surrogatepass')) > _MAX_PART
        ):
            raise SourceError(
                f'{name!r} cannot name a frame: expected parts of 1 to {_MAX_PART} bytes separated '
                "by '/', none of them hidden, '..', or with a backslash or control character."
            )
    return _UNWANTED.sub('_', name)


def path_inside(root: Path, name: str, listed_in: str | Path) -> Path:
    """Path of a source file that a list or archive names, if it lies below ``root``.

    Symbolic links inside ``root`` are the user's own and are followed.

    Args:
        root: The folder.
        name: Relative name, with '/' between the parts.
        listed_in: Where the name was found, for the message.

    Raises:
        SourceError: The name is empty, absolute, or climbs out of ``root``.
    """
    normal = os.path.normpath(name) if name else '..'
    if (
        os.path.isabs(name)
        or normal == '..'
        or normal.startswith('../')
        or '\\' in name
        or _CONTROL.search(name)
    ):
        raise SourceError(
            f'{listed_in}: names the file {name!r}, which does not lie inside {root}. '
            f'The list is damaged, or not one of this data set.'
        )
    return root / normal


def require(path: Path, what: str, cure: str) -> Path:
    """Return ``path`` if it exists.

    Raises:
        SourceError: It does not exist; the message says what is there instead.
    """
    if path.exists():
        return path
    parent = path.parent
    while not parent.is_dir() and parent != parent.parent:
        parent = parent.parent
    names = sorted(p.name for p in parent.iterdir()) if parent.is_dir() else []
    found = ', '.join(names[:8]) + (f', ... ({len(names)} in all)' if len(names) > 8 else '')
    raise SourceError(
        f'{path} does not exist, expected {what}; {parent} holds: {found or "nothing"}. {cure}'
    )
