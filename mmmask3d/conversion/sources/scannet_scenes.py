"""Scans of ScanNet: which frames they have, and how to read them."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mmmask3d.conversion.converter import FrameRef, Plan
from mmmask3d.conversion.formats.archive import Archive
from mmmask3d.conversion.formats.matrix import read_matrix
from mmmask3d.conversion.formats.sens import SensEntry, SensReader
from mmmask3d.conversion.formats.source_image import decode_map, read_map
from mmmask3d.conversion.frame import Frame, store_depth
from mmmask3d.conversion.paths import SourceError
from mmmask3d.conversion.sources.scannet_labels import (
    LABEL20_OF_NYU40,
    categories_by_label,
    check_nyu40,
    nyu40_of_ids,
    split_joint_ids,
)
from mmmask3d.datasets.depth_io import FrameError, read_header
from mmmask3d.datasets.frame_files import by_stem, files_in

_NUMBER = re.compile(r'\d{1,9}')
_MILLIMETRES = 1000.0


@dataclass(frozen=True)
class Scene:
    """One scan.

    Attributes:
        name: ``scene<room>_<scan>``.
        folder: Its folder.
        split: 'train', 'val', 'test', or '' where it is in no list.
        labels: Whether labels are read.
        instances: Whether instances are read.
    """

    name: str
    folder: Path
    split: str = ''
    labels: bool = False
    instances: bool = False

    def __str__(self) -> str:
        return str(self.folder)

    def kinds(self) -> list[str]:
        """Kinds of labels that are read."""
        return ['label'] * self.labels + ['instance'] * self.instances

    def ref(self, number: int, locator: Any) -> FrameRef:
        """Reference to a frame."""
        return FrameRef(f'{self.name}/{number:06d}', locator, self.split)


@dataclass(frozen=True)
class SensScene(Scene):
    """A scan as ``<scene>.sens``, and ``<scene>_2d-{label,instance}-filt.zip``."""

    @property
    def stream(self) -> Path:
        """The stream of frames."""
        return self.folder / f'{self.name}.sens'

    def archive(self, kind: str) -> Path:
        """The archive of labels ('label') or instances ('instance')."""
        return self.folder / f'{self.name}_2d-{kind}-filt.zip'

    def missing(self) -> list[Path]:
        """Files of labels and instances that are wanted and not there."""
        return [path for path in map(self.archive, self.kinds()) if not path.is_file()]

    def plan(self, every: int) -> Plan:
        """Frames 0, ``every``, ..., as far as the stream is whole."""
        plan = Plan()
        with SensReader(self.stream) as reader, self._archives():
            try:
                for entry in reader:
                    if entry.number % every == 0:
                        plan.frames.append(self.ref(entry.number, entry))
            except SourceError as error:
                plan.problems.append(str(error))
        return plan

    @contextmanager
    def _archives(self) -> Iterator[dict[str, Archive]]:
        with ExitStack() as stack:
            yield {kind: stack.enter_context(Archive(self.archive(kind))) for kind in self.kinds()}

    @contextmanager
    def open(self, label_map: np.ndarray | None) -> Iterator[Callable[[SensEntry], Frame]]:
        """Open the files; gives what reads a frame."""
        with SensReader(self.stream) as reader, self._archives() as archives:
            yield partial(_read_stream, reader, archives, label_map)

    def camera(self, number: int) -> dict:
        """Calibration, with the image sizes it belongs to."""
        with SensReader(self.stream) as reader:
            cameras = {'colour': reader.colour, 'depth': reader.depth}
        return {
            kind: {
                'size': camera.size,
                'intrinsic': _finite(camera.intrinsic),
                'extrinsic': _finite(camera.extrinsic),
            }
            for kind, camera in cameras.items()
        }


def member(kind: str, number: int) -> str:
    """Name of a frame's image in the archive of labels or instances."""
    return f'{kind}-filt/{number}.png'


def _read_stream(
    reader: SensReader, archives: Mapping[str, Archive], label_map: Any, entry: SensEntry
) -> Frame:
    stored = reader.read(entry)
    depth = in_millimetres(reader.decode_depth(stored), reader.depth_scale)
    frame = Frame({'rgb': stored.colour, 'depth': depth})
    frame.extra = {'time_us': stored.times} | _pose(stored.pose)
    maps = {}
    for kind, bits in (('label', (8, 16)), ('instance', (8,))):
        if kind in archives:
            name = member(kind, entry.number)
            where = f'{archives[kind].path}, {name}'
            maps[kind] = decode_map(archives[kind].read(name), where, bits), where
    if 'label' in maps:
        labels = nyu40_of_ids(maps['label'][0], label_map, maps['label'][1])
        frame.images |= {'label20': LABEL20_OF_NYU40[labels], 'label40': labels}
    if 'instance' in maps:
        instance, where = maps['instance']
        frame.categories = categories_by_label(instance, labels, where)
        frame.images['instance'] = instance.astype(np.uint16)
    return frame


@dataclass(frozen=True)
class FramesScene(Scene):
    """A scan as in ``scannet_frames_25k``: ``{color,depth,label,instance,pose}/<number>.*``.

    Attributes:
        scale: Stored units of depth per metre, which no file says.
    """

    scale: float = _MILLIMETRES

    def missing(self) -> list[Path]:
        """Folders that are wanted and not there."""
        kinds = ['color', 'depth', *self.kinds()]
        return [path for path in map(self.folder.joinpath, kinds) if not path.is_dir()]

    def _files(self) -> dict[str, dict[str, str]]:
        """Names of the files of each kind, by their stem."""
        found = {}
        for kind in ('color', 'depth', *self.kinds()):
            folder, suffix = self.folder / kind, '.jpg' if kind == 'color' else '.png'
            found[kind] = by_stem(files_in(folder), suffix, folder, SourceError)
        return found

    def plan(self, every: int) -> Plan:
        """All frames: the set is thinned out as distributed."""
        plan = Plan()
        taken: dict[int, str] = {}
        files = self._files()
        for stem in sorted(set().union(*files.values())):
            lacking = [kind for kind, found in files.items() if stem not in found]
            where = f'{self.folder}, frame {stem}'
            if not _NUMBER.fullmatch(stem):
                plan.problems.append(f'{where}: expected a number as the name')
            elif lacking:
                plan.problems.append(f'{where}: not in {", ".join(lacking)}')
            elif int(stem) in taken:
                plan.problems.append(f'{where}: the same number as {taken[int(stem)]}')
            else:
                taken[int(stem)] = stem
                names = {kind: found[stem] for kind, found in files.items()}
                plan.frames.append(self.ref(int(stem), names))
        for kind in ('color', 'depth'):
            try:
                self._intrinsic(kind)
            except FrameError as error:
                plan.problems.append(str(error))
        return plan

    @contextmanager
    def open(self, label_map: np.ndarray | None) -> Iterator[Callable[[Mapping], Frame]]:
        """Gives what reads a frame; nothing is kept open."""
        yield self._read

    def _read(self, names: Mapping[str, str]) -> Frame:
        paths = {kind: self.folder / kind / name for kind, name in names.items()}
        colour = paths['color'].read_bytes()
        read_header(colour, str(paths['color']))
        depth = read_map(paths['depth'], 16)
        frame = Frame({'rgb': colour, 'depth': in_millimetres(depth, self.scale)})
        if self.labels:
            labels = check_nyu40(read_map(paths['label'], 8), str(paths['label']))
            frame.images |= {'label20': LABEL20_OF_NYU40[labels], 'label40': labels}
        if self.instances:
            joint = read_map(paths['instance'], 16)
            instance, frame.categories = split_joint_ids(joint, str(paths['instance']))
            frame.images['instance'] = instance
        pose = self.folder / 'pose' / Path(names['color']).with_suffix('.txt')
        if pose.exists():
            frame.extra = _pose(read_matrix(pose))
        return frame

    def _intrinsic(self, kind: str) -> np.ndarray | None:
        path = self.folder / f'intrinsics_{kind}.txt'
        return read_matrix(path) if path.exists() else None

    def camera(self, number: int) -> dict:
        """Calibration, with the image sizes it belongs to: those of a frame that could be read."""
        files = self._files()
        stem = next(s for s in files['color'] if int(s) == number)
        camera = {}
        for name, kind in (('colour', 'color'), ('depth', 'depth')):
            try:
                intrinsic = self._intrinsic(kind)
            except FrameError:
                intrinsic = None  # plan() has reported it
            path = self.folder / kind / files[kind][stem]
            header = read_header(path.read_bytes(), str(path))
            camera[name] = {
                'size': [header.width, header.height],
                'intrinsic': None if intrinsic is None else _finite(intrinsic),
            }
        return camera


def _pose(matrix: np.ndarray) -> dict:
    """Pose for the record; frames that were lost in tracking have -inf and get none."""
    found = _finite(matrix)
    return {'camera_to_world': found} if found else {}


def _finite(matrix: np.ndarray) -> list[list[float]] | None:
    return matrix.tolist() if np.isfinite(matrix).all() else None


def in_millimetres(stored: np.ndarray, scale: float) -> np.ndarray:
    """Bring depth, (H, W) uint16, 0 = no reading, from ``scale`` units per metre to millimetres."""
    if scale == _MILLIMETRES:
        return stored
    return store_depth(stored / scale, stored > 0, _MILLIMETRES)
