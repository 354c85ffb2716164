"""TUM RGB-D: colour and depth files listed with time stamps, paired by time."""

import argparse
import math
import re
from pathlib import Path
from typing import Any, NamedTuple

from mmmask3d.conversion.association import associate
from mmmask3d.conversion.converter import Converter, FrameRef, Plan
from mmmask3d.conversion.formats.source_image import check_size, read_colour, read_map
from mmmask3d.conversion.frame import Frame
from mmmask3d.conversion.options import above_zero, add_every, add_unit
from mmmask3d.conversion.paths import SourceError, path_inside, safe_name
from mmmask3d.datasets.frame_files import walk
from mmmask3d.datasets.text_lists import read_lines

_STORED_PER_METRE = 5000.0
_DEPTH_OF_SEARCH = 2  # folders below the source in which sequences are looked for


class Line(NamedTuple):
    """A line of a list: a time in seconds, the further fields, and its number from 1."""

    time: float
    fields: tuple[str, ...]
    number: int


def read_list(path: Path, fields: int) -> tuple[list[Line], list[str]]:
    """Read ``rgb.txt``, ``depth.txt`` or ``groundtruth.txt``.

    Each line holds a time stamp and further fields, separated by blanks, tabs or commas; lines
    that begin with ``#`` are comments.

    Args:
        path: The list.
        fields: Number of fields after the time stamp.

    Returns:
        The lines by rising time, and what is wrong with others, each with file and line.

    Raises:
        SourceError: The file is no text.
        OSError: The file cannot be read.
    """
    lines: dict[float, Line] = {}
    problems = []
    for number, raw in read_lines(path, SourceError):
        parts = re.split(r'[\s,]+', raw)
        if parts[0].startswith('#'):
            continue
        where = f'{path}:{number}'
        time = _number(parts[0])
        if math.isnan(time):
            problems.append(f'{where}: expected a time stamp in seconds, found {parts[0][:40]!r}.')
        elif len(parts) != 1 + fields:
            problems.append(
                f'{where}: expected {1 + fields} fields, found {len(parts)}: {raw[:80]!r}.'
            )
        elif time in lines:
            problems.append(
                f'{where}: the time stamp {parts[0]} is that of line {lines[time].number} already.'
            )
        else:
            lines[time] = Line(time, tuple(parts[1:]), number)
    return sorted(lines.values(), key=lambda line: line.time), problems


class TUMConverter(Converter):
    """Convert sequences of the TUM RGB-D benchmark, or recorded in its format.

    Depth stays as stored, at 5000 units per metre or what ``--unit`` says. Colour files stay as
    they are.
    """

    name = 'tum'
    title = 'TUM RGB-D'
    content_options = ('unit', 'max_difference', 'offset', 'every', 'jpeg')

    def __init__(self, args: argparse.Namespace) -> None:
        super().__init__(args)
        self.depth_scale: float = args.unit
        self.suffixes = {'rgb': '.jpg' if args.jpeg else '.png', 'depth': '.png'}

    @classmethod
    def add_arguments(cls, parser: argparse._ActionsContainer) -> None:
        add_unit(parser, default=_STORED_PER_METRE)
        parser.add_argument(
            '--max-difference',
            type=above_zero,
            default=0.02,
            metavar='S',
            help='colour and depth of a frame are closer in time than this, in seconds',
        )
        parser.add_argument(
            '--offset',
            type=float,
            default=0.0,
            metavar='S',
            help='seconds added to the time stamps of depth',
        )
        add_every(parser, 1, 'a sequence')
        parser.add_argument(
            '--val',
            nargs='+',
            default=[],
            metavar='SEQUENCE',
            help='folders of the sequences that are for validation; the others are for training',
        )
        parser.add_argument(
            '--jpeg', action='store_true', help='store colour as JPEG, which is much smaller'
        )

    def options(self) -> dict:
        return {**super().options(), 'val': sorted(self.args.val)}

    def sources(self) -> list[str]:
        """Folders of the sequences, relative to the source."""
        folders = walk(self.source, _DEPTH_OF_SEARCH) if self.source.is_dir() else ()
        found = sorted(folder or '.' for folder, files in folders if 'rgb.txt' in files)
        if not found:
            raise SourceError(
                f'{self.source}: no rgb.txt is there or up to {_DEPTH_OF_SEARCH} folders below. '
                f'Give the folder of a sequence, or the one that holds the unpacked sequences.'
            )
        unknown = sorted(set(self.args.val) - {self._title_of(name) for name in found})
        if unknown:
            known = ', '.join(self._title_of(name) for name in found[:8])
            raise SourceError(
                f'--val: {unknown} are no sequences of {self.source}; it has {known}.'
            )
        return found

    def _title_of(self, sequence: str) -> str:
        """Name of a sequence in the output."""
        return self.source.resolve().name if sequence == '.' else sequence

    def plan(self, source: str) -> Plan:
        """Pair the files of a sequence."""
        folder = self.source / source
        title = safe_name(self._title_of(source))
        split = 'val' if self._title_of(source) in self.args.val else 'train'
        colour, problems = self._files(folder, 'rgb.txt')
        depth, more = self._files(folder, 'depth.txt')
        problems += more
        poses, more = _read_poses(folder / 'groundtruth.txt')
        problems += more
        limit = self.args.max_difference
        times = [line.time for line in colour]
        pairs = associate(times, [line.time for line in depth], limit, self.args.offset)
        pose_of = dict(associate(times, [line.time for line in poses], limit))
        if not pairs:
            problems.append(
                f'{folder}: none of the {len(colour)} colour and {len(depth)} depth files are '
                f'closer in time than {limit:g} s. Check --offset and the lists.'
            )
        frames = []
        for i, j in pairs[:: self.args.every]:
            extra: dict[str, Any] = {'time': colour[i].time, 'depth_time': depth[j].time}
            if i in pose_of:
                pose = poses[pose_of[i]]
                # Position in metres, then the quaternion x, y, z, w: camera to world.
                extra['pose_time'] = pose.time
                extra['pose'] = [float(field) for field in pose.fields]
            name = f'{title}/{safe_name(Path(colour[i].fields[0]).stem)}'
            locator = (colour[i].fields[0], depth[j].fields[0], extra)
            frames.append(FrameRef(name, locator, split))
        return Plan(frames, problems)

    def _files(self, folder: Path, name: str) -> tuple[list[Line], list[str]]:
        """Lines of a list whose files exist, and what is wrong with the others."""
        path = folder / name
        if not path.is_file():
            raise SourceError(f'{path} does not exist; a sequence has rgb.txt and depth.txt.')
        lines, problems = read_list(path, 1)
        usable = []
        for line in lines:
            try:
                file = path_inside(folder, line.fields[0], f'{path}:{line.number}')
            except SourceError as error:
                problems.append(str(error))
                continue
            if file.is_file():
                usable.append(line._replace(fields=(file.relative_to(folder).as_posix(),)))
            else:
                problems.append(
                    f'{path}:{line.number}: {file} does not exist or is no file. Unpack the '
                    f'sequence again.'
                )
        return usable, problems

    def read(self, opened: str, locator: tuple[str, str, dict]) -> Frame:
        """Read the two files of a pair."""
        colour_name, depth_name, extra = locator
        folder = self.source / opened
        image, size = read_colour(folder / colour_name, self.suffixes['rgb'])
        depth_path = folder / depth_name
        depth = read_map(depth_path, 16)
        why = 'Depth of this format is registered to colour pixel for pixel; these two are not.'
        check_size(depth_path, depth.shape[::-1], size, folder / colour_name, why)
        return Frame({'rgb': image, 'depth': depth}, extra=extra)


def _read_poses(path: Path) -> tuple[list[Line], list[str]]:
    if not path.is_file():
        return [], []
    lines, problems = read_list(path, 7)
    good = []
    for line in lines:
        if any(map(math.isnan, map(_number, line.fields))):
            found = ' '.join(line.fields)[:80]
            problems.append(f'{path}:{line.number}: expected numbers, found {found!r}.')
        else:
            good.append(line)
    return good, problems


def _number(text: str) -> float:
    """NaN where a text is no finite number."""
    try:
        value = float(text)
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan
