"""Files of frames below a folder, and names that mean the same: one rule for all readers.

Hidden files and folders are left out. Links are followed, and each folder is listed once: under
its own name where it lies below the root, else under that of the first link to it. Names are the
same whatever their Unicode form (a folder copied from a Mac comes in NFD) and the case of their
suffix.
"""

import os
import posixpath
import unicodedata
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence, Set
from pathlib import Path

#: Suffixes of files that may well be meant as frames, in lower case.
PICTURE_SUFFIXES = (
    *('.jpg', '.jpeg', '.jpe', '.png', '.bmp', '.gif', '.tif', '.tiff', '.webp', '.heic', '.heif'),
    *('.avif', '.jp2', '.jxl', '.pgm', '.ppm', '.pnm', '.pfm', '.exr', '.hdr', '.npy', '.npz'),
    *('.raw', '.dpt'),
)


# ---------------------------------------------------------------- folders


def walk(
    root: str | Path,
    levels: int | None = None,
    hidden: Path | None = None,
    again: list[str] | None = None,
) -> Iterator[tuple[str, list[str]]]:
    """Folders below a folder, each once, and their files.

    Args:
        root: The folder.
        levels: Folders below it to go down; all by default.
        hidden: A folder to pass over.
        again: Takes the links that are passed over, because the folder they lead to is listed
            already, or holds them.

    Yields:
        A folder, relative to the root ('' is the root itself) with '/' between the parts, and the
        sorted names of its files. A link without target counts as a file.

    Raises:
        OSError: A folder does not exist or cannot be listed.
    """
    root = os.path.join(os.fspath(root) or '.', '')
    passed_over = [] if again is None else again
    seen: set[tuple[int, int]] = set()
    # Links wait until the real folders are done: those keep their own names.
    links = deque([''])
    while links:
        link = links.popleft()
        if link and _leads_back(root, link):
            passed_over.append(link)
            continue
        for path, below, files in os.walk(root + link, onerror=_raise):
            folder = path[len(root) :]
            status = os.stat(path)
            names = sorted(name for name in below if not name.startswith('.'))
            below.clear()  # what stays empty is not descended into
            if (status.st_dev, status.st_ino) in seen:
                passed_over.append(folder)
                continue
            seen.add((status.st_dev, status.st_ino))
            level = folder.count('/') + bool(folder)
            for name in names if level != levels else ():
                found = os.path.join(path, name)
                if hidden and Path(found).absolute() == hidden:
                    continue
                if os.path.islink(found):
                    links.append(found[len(root) :])
                else:
                    below.append(name)
            yield folder, sorted(name for name in files if not name.startswith('.'))


def _raise(error: OSError) -> None:
    raise error


def _leads_back(root: str, link: str) -> bool:
    """Whether a link leads to a folder that holds the link, or the root."""
    path = os.path.join(root, link)
    target = os.path.realpath(path)
    holders = os.path.realpath(os.path.dirname(path)), os.path.realpath(root)
    return any(os.path.commonpath([target, holder]) == target for holder in holders)


def files_below(
    root: str | Path, hidden: Path | None = None, again: list[str] | None = None
) -> Iterator[str]:
    """All files below a folder, relative to it; see :func:`walk`."""
    for folder, files in walk(root, hidden=hidden, again=again):
        prefix = f'{folder}/' if folder else ''
        yield from (prefix + name for name in files)


def files_in(folder: str | Path) -> list[str]:
    """Sorted names of the files in a folder; see :func:`walk`."""
    return next(walk(folder, levels=0))[1]


def folders_in(folder: str | Path) -> list[str]:
    """Sorted names of the folders in a folder; see :func:`walk`."""
    return sorted(name for name, _ in walk(folder, levels=1) if name)


# ---------------------------------------------------------------- names


def same_form(name: str) -> str:
    """A name in Unicode's composed form (NFC), in which names are compared and written."""
    return name if name.isascii() else unicodedata.normalize('NFC', name)


def without_suffix(name: str, suffix: str) -> str | None:
    """The name before a suffix of any case; None where it ends otherwise or is nothing else."""
    cut = len(name) - len(suffix)
    if cut <= 0 or name[cut - 1] == '/' or name[cut:].lower() != suffix.lower():
        return None
    return name[:cut]


def by_stem(
    names: Iterable[str], suffix: str, where: object, error: type[Exception] = ValueError
) -> dict[str, str]:
    """Files that end in a suffix, by what stands before it (NFC).

    Args:
        names: File names.
        suffix: The suffix, whose case does not matter.
        where: The folder, for the message.
        error: What is raised.

    Raises:
        ValueError: Or ``error``: two files have one stem.
    """
    found: dict[str, str] = {}
    for name in names:
        stem = without_suffix(name, suffix)
        if stem is None:
            continue
        stem = same_form(stem)
        if stem in found:
            raise error(
                f'{where}: two files are the same frame {stem!r}: {found[stem]!a} and {name!a}. '
                f'Remove or rename one of them.'
            )
        found[stem] = name
    return found


def match_names(
    wanted: Collection[str],
    files: Iterable[str],
    where: object,
    error: type[Exception] = ValueError,
) -> dict[str, str]:
    """Files that are meant by names of another Unicode form or case of the suffix.

    Args:
        wanted: The names.
        files: The files there are.
        where: The folder, for the message.
        error: What is raised.

    Returns:
        The file of each name that has one.

    Raises:
        ValueError: Or ``error``: two files could be meant.
    """
    keys = {_key(name) for name in wanted}
    found: dict[str, str] = {}
    for file in files:
        key = _key(file)
        if key not in keys:
            continue
        if key in found:
            raise error(
                f'{where}: the name {key!r} fits two files: {found[key]!a} and {file!a}. Remove or '
                f'rename one of them.'
            )
        found[key] = file
    return {name: found[_key(name)] for name in wanted if _key(name) in found}


def find_named(folder: str, names: Set[str]) -> dict[str, str]:
    """Files below a folder by the names that mean them.

    It takes one listing per folder of the names, and one of everything where some are not there
    as they are spelled.

    Args:
        folder: An existing local folder.
        names: Relative to it, with '/' between the parts.

    Raises:
        ValueError: Two files could be meant.
    """
    there: set[str] = set()
    for below in {posixpath.dirname(name) for name in names}:
        try:
            entries = os.listdir(posixpath.join(folder, below) or '.')
        except (FileNotFoundError, NotADirectoryError):
            continue  # then none of its files exists under this name
        there.update(posixpath.join(below, entry) for entry in entries)
    found = {name: name for name in names & there}
    if len(found) < len(names):
        found |= match_names(names - there, files_below(folder), folder)
    return found


def _key(name: str) -> str:
    stem, suffix = os.path.splitext(same_form(name))
    return stem + suffix.lower()


def existing(path: str) -> str:
    """A path in the one Unicode form in which it exists; the same where there is none, or two."""
    if path.isascii() or os.path.lexists(path):
        return path
    found = _spellings(path)
    return found[0] if len(found) == 1 else path


def _spellings(path: str) -> list[str]:
    if path.isascii():
        return [path] if os.path.isdir(path or '.') else []
    parent, name = os.path.split(path)
    if not name:
        return _spellings(parent)
    return [
        os.path.join(folder, entry)
        for folder in _spellings(parent)
        if os.path.isdir(folder or '.')
        for entry in os.listdir(folder or '.')
        if same_form(entry) == same_form(name)
    ]


# ---------------------------------------------------------------- messages


def examples(names: Sequence[str], count: int = 3) -> str:
    """The first of some names, for a message."""
    return ', '.join(names[:count]) + (', ...' if len(names) > count else '')


def content_of(names: Iterable[str]) -> str:
    """What a folder holds, for a message: the first names by alphabet."""
    ordered = sorted(name for name in names if not name.startswith('.'))
    more = f' ({len(ordered)} in all)' if len(ordered) > 8 else ''
    return (examples(ordered, 8) or 'nothing') + more
