"""Colour and depth files that belong together, found by patterns or named in a list."""

import argparse
import os
import re
import zlib
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path

from mmmask3d.conversion.association import associate
from mmmask3d.conversion.converter import FrameRef, Plan
from mmmask3d.conversion.options import above_zero
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


def natural_order(name: str) -> list:
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
        SourceError: It is absolute, climbs, has no star or more than four, or does not end in a
            suffix.
    """

    def __init__(self, text: str, option: str) -> None:
        self.text, self.option = text, option
        self.suffix = os.path.splitext(text)[1].lower()
        stars = _STARS.findall(text)
        outside = {'', '.', '..'} & set(text.split('/')) or '\\' in text
        if outside or not 0 < len(stars) <= 4 or '*' in self.suffix or not self.suffix:
            raise SourceError(
                f'{option} {text!r}: expected a pattern relative to the source, with one to four '
                f"stars for the name of the frame and a suffix at its end, such as 'rgb/**.jpg'. "
                f'Quote it, or the shell replaces it.'
            )
        #: The folder that holds all files, '' for the source itself.
        self.folder = text.split('*')[0].rpartition('/')[0]
        pieces = _STARS.split(same_form(text[: -len(self.suffix)]))
        groups = [_GROUPS[star] for star in stars] + ['']
        self._expression = re.compile(
            ''.join(re.escape(piece) + group for piece, group in zip(pieces, groups, strict=True)),
            re.DOTALL,
        )

    def frame(self, path: str, any_suffix: bool = False) -> str | None:
        """Name of the frame a path belongs to; None if the pattern does not match.

        Args:
            path: Relative to the source.
            any_suffix: Whether that of any picture will do.
        """
        suffix = os.path.splitext(path)[1]
        if suffix.lower() not in (PICTURE_SUFFIXES if any_suffix else (self.suffix,)):
            return None
        match = self._expression.fullmatch(same_form(path.removesuffix(suffix)))
        return '/'.join(g for g in match.groups() if g) if match else None


class PairFinder:
    """Finds the pairs of a source.

    Args:
        args: Parsed options of :meth:`add_arguments`, with ``source`` and ``out``, which is passed
            over where it lies inside the source.

    Raises:
        SourceError: The source is no folder, the list cannot be read, or an option lacks or
            excludes another.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self.source: Path = args.source
        self.hidden = args.out.absolute()
        self.max_difference: float | None = args.max_difference
        self.with_confidence = args.min_confidence is not None
        self.confidence = Pattern(args.confidence, '--confidence') if args.confidence else None
        self.list: Path | None = args.pairs
        if self.list and (self.confidence or self.max_difference):
            raise SourceError(
                '--pairs says which files belong together (confidence maps are its third field): '
                'no --confidence, no --max-difference.'
            )
        named = self.confidence is not None or self.list is not None
        if self.with_confidence > named or (self.confidence and not self.with_confidence):
            raise SourceError(
                '--confidence says where the maps are, and --min-confidence what counts: give both '
                '(with --pairs, --min-confidence and a third field).'
            )
        if not self.source.is_dir():
            found = 'a file' if self.source.exists() else 'nothing'
            raise SourceError(f'{self.source}: expected a folder, found {found}')
        if self.list is None:
            self.colour, self.depth = Pattern(args.rgb, '--rgb'), Pattern(args.depth, '--depth')
            return
        try:
            self._content = self.list.read_bytes()
        except OSError as error:
            raise SourceError(f'{self.list}: cannot be read ({error.strerror}).') from error

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
        return {'pairs_crc32': zlib.crc32(self._content)}

    def colour_suffixes(self) -> set[str]:
        """Suffixes of colour files, in lower case."""
        if self.list is None:
            return {self.colour.suffix}
        return {os.path.splitext(ref.locator[0])[1].lower() for ref in self.find().frames}

    def find(self) -> Plan:
        """Find the pairs, without opening any of their files.

        Returns:
            Frames by natural order of their names, each located by its paths below the source
            (colour, depth and, if asked for, confidence); and files without partner.

        Raises:
            SourceError: No file, or two of one name, match a pattern; or a line of the list
                does not name two files inside the source.
        """
        plan = self._listed(self.list) if self.list else self._matched()
        plan.frames.sort(key=lambda ref: natural_order(ref.name))
        return plan

    def _matched(self) -> Plan:
        colour, depth = self._matching(self.colour), self._matching(self.depth)
        confidence = self._matching(self.confidence) if self.confidence else None
        plan = Plan()
        if self.max_difference is None:
            together = {name: name for name in colour.keys() & depth.keys()}
            for what, mine, pattern in (
                ('colour', colour, self.depth),
                ('depth', depth, self.colour),
            ):
                alone = sorted(mine[name] for name in mine.keys() - together.keys())
                if alone:
                    plan.problems.append(
                        f'{len(alone)} {what} files have no partner of the same name in '
                        f'{pattern.option} {pattern.text!r}: {examples(alone)}'
                    )
        else:
            # The faster camera has more files: those that are left over are no problem.
            together = by_time(colour, depth, self.max_difference)
        for name, partner in together.items():
            files = [colour[name], depth[partner]]
            try:
                if confidence is not None:
                    files.append(confidence[partner])
                plan.frames.append(FrameRef(safe_name(name), tuple(files)))
            except KeyError:
                plan.problems.append(f'{files[1]}: --confidence matches no map of this name')
            except SourceError as error:
                plan.problems.append(f'{files[0]}: {error}')
        if not plan.frames:
            raise SourceError(
                f'{self.source}: no pair of files. '
                + ('; '.join(plan.problems[:3]) or 'None are as close as --max-difference.')
            )
        plan.problems.sort()
        return plan

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
                        if pattern.frame(path, any_suffix=True) is not None:
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

    def _listed(self, path: Path) -> Plan:
        frames: dict[str, FrameRef] = {}
        fields_of_a_line = ['a colour file', 'a depth file', 'a confidence map'][
            : 2 + self.with_confidence
        ]
        for number, line in numbered_lines(self._content, path, SourceError):
            where = f'{path}:{number}'
            fields = index_fields(line)
            if not fields:
                continue
            if len(fields) != len(fields_of_a_line):
                raise SourceError(
                    f'{where}: expected {", ".join(fields_of_a_line)}, found {len(fields)} fields: '
                    f'{line[:200]!r}. Separate names that hold blanks with a tab.'
                )
            paths = [path_inside(self.source, field, where) for field in fields]
            files = tuple(p.relative_to(self.source).as_posix() for p in paths)
            name = safe_name(os.path.splitext(files[0])[0])
            if name in frames:
                raise SourceError(f'{where}: names a second frame {name!r}.')
            frames[name] = FrameRef(name, files)
        if not frames:
            raise SourceError(f'{path}: names no pair of files.')
        return Plan(list(frames.values()))


def by_time(
    colour: Collection[str], depth: Collection[str], max_difference: float
) -> dict[str, str]:
    """Names that are closest in time, which they end in; what stands before it must be the same.

    Returns:
        Depth by colour, see :func:`~mmmask3d.conversion.association.associate`.

    Raises:
        SourceError: A name does not end in a number, or two names are of one time.
    """
    found: dict[str, str] = {}
    starts = _times(colour), _times(depth)
    for start in starts[0].keys() & starts[1].keys():
        first, second = (list(of[start].items()) for of in starts)
        times = [[time for time, _ in of] for of in (first, second)]
        for i, j in associate(times[0], times[1], max_difference):
            found[first[i][1]] = second[j][1]
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
