"""Colour and depth files that belong together, found by patterns or named in a list."""

import argparse
import os
import re
import zlib
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmmask3d.conversion.association import associate
from mmmask3d.conversion.numbers import above_zero
from mmmask3d.conversion.paths import SourceError, path_inside, safe_name
from mmmask3d.datasets.frame_files import (
    PICTURE_SUFFIXES,
    examples,
    existing,
    files_below,
    same_form,
)
from mmmask3d.datasets.text_lists import index_fields, numbered_lines

_STARS = re.compile(r'\*\*/|\*\*|\*')
_GROUPS = {'**/': r'(?:(.*)/)?', '**': r'(.*)', '*': r'([^/]*)'}
_TIME = re.compile(r'\d+(\.\d+)?$')


@dataclass(frozen=True)
class Pair:
    """Two files of one frame.

    Attributes:
        name: Of the frame.
        colour: Path below the source, with '/'.
        depth: Path of the depth file, in the same form.
        confidence: Path of the confidence map; '' without such maps.
    """

    name: str
    colour: str
    depth: str
    confidence: str = ''


@dataclass
class Found:
    """Pairs of a source, and what is left over.

    Attributes:
        pairs: By natural order of their names.
        problems: Files without partner, lines that cannot be used.
    """

    pairs: list[Pair]
    problems: list[str]


def natural(name: str) -> list:
    """Sort key that puts ``frame_9`` before ``frame_10``."""
    return [(0, int(p), p) if p.isdecimal() else (1, 0, p) for p in re.split(r'(\d+)', name) if p]


class Pattern:
    """A path pattern such as ``**/color/*.jpg``.

    ``*`` stands for any characters but '/', ``**`` for any characters, ``**/`` for any folders or
    none. What the stars stand for, joined by '/', is the name of the frame. The case of the suffix
    does not matter.

    Args:
        text: The pattern, relative to the source.
        option: Which one it is, for messages.

    Raises:
        SourceError: It is absolute, climbs, has no star, or does not end in a suffix.
    """

    def __init__(self, text: str, option: str) -> None:
        self.text, self.option = text, option
        self.suffix = os.path.splitext(text)[1].lower()
        parts = text.split('/')
        if {'', '.', '..'} & set(parts) or '\\' in text:
            raise SourceError(f'{option} {text!r}: expected a pattern relative to the source.')
        if '*' not in text or '*' in self.suffix or not self.suffix:
            raise SourceError(
                f'{option} {text!r}: expected a pattern with a star for the name of the frame and '
                f"a suffix at its end, such as 'rgb/**.jpg'. Quote it, or the shell replaces it."
            )
        if len(_STARS.findall(text)) > 4:
            raise SourceError(f'{option} {text!r}: expected at most four stars.')
        #: The folder that holds all files, '' for the source itself.
        self.folder = text.split('*')[0].rpartition('/')[0]
        pieces = _STARS.split(same_form(text))
        groups = [_GROUPS[star] for star in _STARS.findall(text)] + ['']
        pieces[-1] = pieces[-1][: -len(self.suffix)]
        self._expression = re.compile(
            ''.join(re.escape(piece) + group for piece, group in zip(pieces, groups, strict=True)),
            re.DOTALL,
        )

    def frame(self, path: str) -> str | None:
        """Name of the frame a path belongs to; None if the pattern does not match."""
        return self._name(path, self.suffix) if path.lower().endswith(self.suffix) else None

    def matches_but_for_suffix(self, path: str) -> bool:
        """Whether a path is a picture that the pattern matches without looking at the suffix."""
        suffix = os.path.splitext(path)[1]
        return suffix.lower() in PICTURE_SUFFIXES and self._name(path, suffix) is not None

    def _name(self, path: str, suffix: str) -> str | None:
        match = self._expression.fullmatch(same_form(path[: len(path) - len(suffix)]))
        return '/'.join(g for g in match.groups() if g) if match else None


class PairFinder:
    """Finds the pairs of a source.

    Args:
        source: The folder.
        args: Parsed options of :meth:`add_arguments`.
        hidden: A folder to pass over, where the output lies inside the source.

    Raises:
        SourceError: The source is no folder, or an option lacks or excludes another.
    """

    def __init__(self, source: Path, args: argparse.Namespace, hidden: Path) -> None:
        self.source, self.hidden = source, hidden.absolute()
        self.max_difference: float | None = args.max_difference
        self.with_confidence = args.min_confidence is not None
        self.confidence = Pattern(args.confidence, '--confidence') if args.confidence else None
        if args.pairs is not None and (self.confidence or self.max_difference):
            raise SourceError(
                '--pairs says which files belong together (confidence maps are its third field): '
                'no --confidence, no --max-difference.'
            )
        named = self.confidence is not None or args.pairs is not None
        if self.with_confidence > named or (self.confidence and not self.with_confidence):
            raise SourceError(
                '--confidence says where the maps are, and --min-confidence what counts: give both '
                '(with --pairs, --min-confidence and a third field).'
            )
        if not source.is_dir():
            found = 'a file' if source.exists() else 'nothing'
            raise SourceError(f'{source}: expected a folder, found {found}')
        self.list: Path | None = args.pairs
        if self.list is None:
            self.colour = Pattern(args.rgb, '--rgb')
            self.depth = Pattern(args.depth, '--depth')

    @staticmethod
    def add_arguments(parser: argparse._ActionsContainer) -> None:
        """Add the options that say which files belong together."""
        parser.add_argument(
            '--rgb',
            default='rgb/**.jpg',
            metavar='PATTERN',
            help='colour files: * any characters but /, ** any; what the stars stand for is the '
            'name of the frame, and files of one name belong together. Quote it',
        )
        parser.add_argument(
            '--depth',
            default='depth/**.png',
            metavar='PATTERN',
            help='depth files, by the same rules',
        )
        parser.add_argument(
            '--confidence',
            metavar='PATTERN',
            help='confidence maps of depth, by the names of depth files',
        )
        parser.add_argument(
            '--min-confidence',
            type=above_zero,
            metavar='V',
            help='readings of less confidence are none; in the values as stored: 1 or 2 for ARKit '
            '(0, 1, 2), up to 100 or 255 for other apps',
        )
        parser.add_argument(
            '--max-difference',
            type=above_zero,
            metavar='S',
            help='names end in a time, and colour and depth have rates of their own: pair what is '
            'closest in time and closer than this, in the unit of the names (mostly seconds)',
        )
        parser.add_argument(
            '--pairs',
            type=Path,
            metavar='FILE',
            help='a list instead of patterns: a colour and a depth file a line (and a confidence '
            'map), relative to the source, with a blank or, where names hold blanks, a tab between '
            'them',
        )

    def options(self) -> dict:
        """What decides which files make a frame, for the identity of a conversion."""
        if self.list is None:
            return {
                'rgb': self.colour.text,
                'depth': self.depth.text,
                'max_difference': self.max_difference,
                'confidence': self.confidence.text if self.confidence else None,
            }
        return {'pairs_crc32': zlib.crc32(_read(self.list))}

    def colour_suffixes(self) -> set[str]:
        """Suffixes of colour files, in lower case."""
        if self.list is None:
            return {self.colour.suffix}
        return {os.path.splitext(pair.colour)[1].lower() for pair in self.find().pairs}

    def find(self) -> Found:
        """Find the pairs, without opening any of their files.

        Raises:
            SourceError: No file, or two of one name, match a pattern; or a line of the list
                does not name two files inside the source.
        """
        found = self._listed(self.list) if self.list else self._matched()
        found.pairs.sort(key=lambda pair: natural(pair.name))
        return found

    def _matched(self) -> Found:
        colour = self._matching(self.colour)
        depth = self._matching(self.depth)
        confidence = self._matching(self.confidence) if self.confidence else None
        if self.max_difference is None:
            together = {name: name for name in colour.keys() & depth.keys()}
        else:
            together = by_time(colour, depth, self.max_difference)
            # The faster camera has more files: those that are left over are no problem.
            colour = {name: colour[name] for name in together}
            depth = {name: depth[name] for name in together.values()}
        pairs, problems = [], []
        for name, partner in together.items():
            sure = '' if confidence is None else confidence.get(partner)
            if sure is None:
                problems.append(f'{depth[partner]}: --confidence matches no map of this name')
                continue
            try:
                pairs.append(Pair(safe_name(name), colour[name], depth[partner], sure))
            except SourceError as error:
                problems.append(f'{colour[name]}: {error}')
        if self.max_difference is not None:
            return self._complete(pairs, problems)
        for what, mine, other, pattern in (
            ('colour', colour, depth, self.depth),
            ('depth', depth, colour, self.colour),
        ):
            alone = sorted(mine[name] for name in mine.keys() - other.keys())
            if alone:
                problems.append(
                    f'{len(alone)} {what} files have no partner of the same name in '
                    f'{pattern.option} {pattern.text!r}: {examples(alone)}'
                )
        return self._complete(pairs, problems)

    def _complete(self, pairs: list[Pair], problems: list[str]) -> Found:
        if not pairs:
            raise SourceError(
                f'{self.source}: no pair of files. '
                + ('; '.join(problems[:3]) or 'None are as close as --max-difference.')
            )
        return Found(pairs, sorted(problems))

    def _matching(self, pattern: Pattern) -> dict[str, str]:
        """Paths below the source by name of the frame."""
        result: dict[str, str] = {}
        suffixes: Counter[str] = Counter()
        for path in self._files(pattern.folder):
            name = pattern.frame(path)
            if name is None:
                suffixes[os.path.splitext(path)[1]] += 1
            elif name in result:
                raise SourceError(
                    f'{self.source}: {pattern.option} {pattern.text!r} gives two files the name '
                    f'{name!r}: {result[name]}, {path}. Make it more specific.'
                )
            else:
                result[name] = path
        if not result:
            there = ', '.join(f'{n} {s or "without suffix"}' for s, n in suffixes.most_common(5))
            raise SourceError(
                f'{self.source / pattern.folder}: no file matches {pattern.option} '
                f'{pattern.text!r}; found: {there or "no file"}.'
            )
        return result

    def left_over(self) -> list[str]:
        """Says how many pictures a pattern would match with another suffix, and which."""
        if self.list is not None:
            return []
        patterns = [p for p in (self.colour, self.depth, self.confidence) if p]
        left: dict[str, list[str]] = {}
        for folder in sorted({pattern.folder for pattern in patterns}):
            for path in self._files(folder):
                if not any(pattern.frame(path) for pattern in patterns):
                    for pattern in patterns:
                        if pattern.matches_but_for_suffix(path):
                            left.setdefault(pattern.option, []).append(path)
        return [
            f'{len(paths)} files are left out, which {option} matches but for their suffix: '
            f'{examples(paths)}'
            for option, paths in left.items()
        ]

    def _files(self, folder: str) -> Iterator[str]:
        """Files below a folder of the source, relative to the source."""
        root = Path(existing(str(self.source / folder)))
        if not root.is_dir():
            return
        prefix = f'{root.relative_to(self.source).as_posix()}/' if folder else ''
        try:
            for path in files_below(root, self.hidden):
                yield prefix + path
        except OSError as error:
            raise SourceError(f'{error.filename}: cannot be listed ({error.strerror}).') from error

    def _listed(self, path: Path) -> Found:
        pairs: list[Pair] = []
        names: dict[str, int] = {}
        for number, line in numbered_lines(_read(path), path, SourceError):
            where = f'{path}:{number}'
            fields = index_fields(line)
            if not fields:
                continue
            if len(fields) != 2 + self.with_confidence:
                expected = 'a colour file, a depth file and, for --min-confidence, a confidence map'
                raise SourceError(
                    f'{where}: expected '
                    + (expected if self.with_confidence else 'a colour and a depth file')
                    + f', found {len(fields)} fields: {line[:200]!r}. Separate names that hold '
                    f'blanks with a tab.'
                )
            paths = [path_inside(self.source, field, where) for field in fields]
            colour, *others = (p.relative_to(self.source).as_posix() for p in paths)
            name = safe_name(os.path.splitext(colour)[0])
            if name in names:
                raise SourceError(
                    f'{where}: names a second frame {name!r}, the first is in line {names[name]}.'
                )
            names[name] = number
            pairs.append(Pair(name, colour, *others))
        if not pairs:
            raise SourceError(f'{path}: names no pair of files.')
        return Found(pairs, [])


def by_time(
    colour: Collection[str], depth: Collection[str], max_difference: float
) -> dict[str, str]:
    """Names that are closest in time, which they end in; what stands before it must be the same.

    Args:
        colour: Names.
        depth: Names.
        max_difference: Pairs are closer than this.

    Returns:
        Depth by colour, see :func:`~mmmask3d.conversion.association.associate`.

    Raises:
        SourceError: A name does not end in a number, or two names are of one time.
    """
    found: dict[str, str] = {}
    recordings = [_times(names) for names in (colour, depth)]
    for start in recordings[0].keys() & recordings[1].keys():
        first, second = (recording[start] for recording in recordings)
        times = list(first), list(second)
        for i, j in associate(*times, max_difference):
            found[first[times[0][i]]] = second[times[1][j]]
    return found


def _times(names: Collection[str]) -> dict[str, dict[float, str]]:
    """Names by time, by what stands before it."""
    found: dict[str, dict[float, str]] = {}
    for name in sorted(names):
        match = _TIME.search(name)
        if match is None:
            raise SourceError(
                f'--max-difference: the name {name!r} does not end in a time. Make the patterns '
                f'such that the last star stands for it.'
            )
        recording = found.setdefault(name[: match.start()], {})
        other = recording.setdefault(float(match[0]), name)
        if other != name:
            raise SourceError(f'--max-difference: {other!r} and {name!r} have the same time.')
    return found


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SourceError(f'{path}: cannot be read ({error.strerror}).') from error


def spread(pairs: Sequence[Pair], count: int) -> list[Pair]:
    """Some pairs from all parts of a source."""
    step = max(1, len(pairs) // count)
    return list(pairs[::step][:count])
