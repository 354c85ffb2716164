"""Names read from foreign files, kept inside the folder they belong to."""

import os
import re
from pathlib import Path

from mmmask3d.datasets.frame_files import content_of, existing, same_form

_UNWANTED = re.compile(r'[\s#,]+')
#: Control characters, backslashes, and how Python holds names that are not UTF-8.
_UNUSABLE = re.compile(r'[\x00-\x1f\x7f\\\ud800-\udfff]')


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
            backslash, a control character or one that UTF-8 does not have.
    """
    if any(not part or part.startswith('.') for part in name.split('/')) or _UNUSABLE.search(name):
        raise SourceError(
            f'{name!r} cannot name a frame: expected parts separated by "/", none of them empty, '
            f"hidden or '..', in UTF-8, without backslashes and control characters. Rename it."
        )
    return _UNWANTED.sub('_', same_form(name))


def path_inside(root: Path, name: str, listed_in: str | Path) -> Path:
    """Path of a source file that a list or archive names, if it lies below ``root``.

    Symbolic links inside ``root`` are the user's own and are followed. Where the file exists in
    another Unicode form of the name only, that one is meant.

    Args:
        root: The folder.
        name: Relative name, with '/' between the parts.
        listed_in: Where the name was found, for the message.

    Raises:
        SourceError: The name is empty, absolute, climbs out of ``root``, or has characters that no
            file of a data set has.
    """
    normal = os.path.normpath(name) if name else '..'
    outside = normal in ('.', '..') or normal.startswith('../') or os.path.isabs(name)
    if outside or _UNUSABLE.search(name):
        raise SourceError(
            f'{listed_in}: names the file {name!r}, which cannot lie inside {root}. The list is '
            f'damaged, or not one of this data set.'
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
    found = content_of(p.name for p in parent.iterdir()) if parent.is_dir() else 'nothing'
    raise SourceError(f'{path} does not exist, expected {what}; {parent} holds: {found}. {cure}')
