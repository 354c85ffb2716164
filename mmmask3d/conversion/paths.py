"""Names read from foreign files, kept inside the folder they belong to."""

import os
import re
from pathlib import Path

from mmmask3d.datasets.frame_files import existing, same_form

_UNWANTED = re.compile(r'[\s#,]+')
_CONTROL = re.compile(r'[\x00-\x1f\x7f]')
_SURROGATE = re.compile(r'[\ud800-\udfff]')  # how Python holds names that are not UTF-8
_MAX_PART = 200  # bytes; file systems allow 255, and suffixes need some
_MAX_NAME = 1000  # bytes; systems allow 1024 (macOS) or 4096 with the output folder in front


class SourceError(ValueError):
    """A data set as distributed is damaged, incomplete or not what it is said to be."""


def safe_name(name: str) -> str:
    """Make the stem of an output file out of a name found in a data set.

    Blanks, commas and ``#`` become ``_``, since index files are split at blanks and ``#`` begins
    a comment there. Unicode is composed (NFC), whatever system the name comes from.

    Args:
        name: Parts separated by '/', for example ``scene0000_00/000025``.

    Returns:
        A relative stem.

    Raises:
        SourceError: The name is empty or absolute, climbs with ``..``, has a hidden part, a
            backslash, a control character or one that UTF-8 does not have, or is too long.
    """
    encoded = [part.encode(errors='surrogatepass') for part in name.split('/')]
    if (
        any(not 1 <= len(part) <= _MAX_PART or part.startswith(b'.') for part in encoded)
        or len(b'/'.join(encoded)) > _MAX_NAME
        or '\\' in name
        or _CONTROL.search(name)
        or _SURROGATE.search(name)
    ):
        raise SourceError(
            f'{_shortened(name)} cannot name a frame: expected parts of 1 to {_MAX_PART} bytes '
            f"separated by '/', {_MAX_NAME} in all, none of them hidden or '..', in UTF-8, "
            'without backslashes and control characters. Rename it.'
        )
    return _UNWANTED.sub('_', same_form(name))


def _shortened(name: str) -> str:
    return repr(name) if len(name) <= 100 else f'{name[:100]!r}... ({len(name)} characters)'


def path_inside(root: Path, name: str, listed_in: str | Path) -> Path:
    """Path of a source file that a list or archive names, if it lies below ``root``.

    Symbolic links inside ``root`` are the user's own and are followed. Where the file exists in
    another Unicode form of the name only, that one is meant.

    Args:
        root: The folder.
        name: Relative name, with '/' between the parts.
        listed_in: Where the name was found, for the message.

    Raises:
        SourceError: The name is empty, absolute, too long, climbs out of ``root``, or has
            characters that no file of a data set has.
    """
    normal = os.path.normpath(name) if name else '..'
    if (
        os.path.isabs(name)
        or normal in ('.', '..')
        or normal.startswith('../')
        or '\\' in name
        or _CONTROL.search(name)
        or _SURROGATE.search(name)
        or any(len(part.encode()) > 255 for part in normal.split('/'))
        or len(normal) > 4 * _MAX_NAME
    ):
        raise SourceError(
            f'{listed_in}: names the file {_shortened(name)}, which cannot lie inside {root}. '
            f'The list is damaged, or not one of this data set.'
        )
    return Path(existing(str(root / normal)))


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
