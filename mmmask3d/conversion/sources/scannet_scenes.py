"""Scans of ScanNet: which frames they have, and how to read them."""

import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmmask3d.conversion.converter import FrameRef, Plan
from mmmask3d.conversion.formats.archive import Archive
from mmmask3d.conversion.formats.matrix import read_matrix
from mmmask3d.conversion.formats.sens import SensEntry, SensReader
from mmmask3d.conversion.formats.source_image import decode_map
from mmmask3d.conversion.frame import Frame, store_depth
from mmmask3d.conversion.paths import SourceError
from mmmask3d.conversion.sources.scannet_labels import (
    LABEL20_OF_NYU40,
    categories_by_label,
    check_nyu40,
    nyu40_of_ids,
    split_joint_ids,
)
from mmmask3d.datasets.depth_io import FrameError, decode_depth, read_header
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

    def kinds(self) -> list[str]:
        """Kinds of archives that are read."""
        return ['label'] * self.labels + ['instance'] * self.instances

    def plan(self, every: int) -> Plan:
        """Every so-manieth frame, as far as the stream is whole."""
        plan = Plan()
        with SensReader(self.stream) as reader, self._archives() as archives:
            try:
                for entry in reader:
                    if entry.number % every == 0:
                        lacking = [
                            archive.path
                            for kind, archive in archives.items()
                            if member(kind, entry.number) not in archive
                        ]
                        if lacking:
                            name = self.ref(entry.number, None).name
                            where = ', '.join(map(str, lacking))
                            plan.problems.append(f'frame {name}: not in {where}')
                        else:
                            plan.frames.append(self.ref(entry.number, entry))
            except SourceError as error:
                plan.problems.append(str(error))
        return plan

    @contextmanager
    def _archives(self) -> Iterator[dict[str, Archive]]:
        with ExitStack() as stack:
            yield {kind: stack.enter_context(Archive(self.archive(kind))) for kind in self.kinds()}

    @contextmanager
    def open(self, label_map: np.ndarray | None) -> Iterator['_OpenSens']:
        """Open the files for reading."""
        with SensReader(self.stream) as reader, self._archives() as archives:
            yield _OpenSens(reader, archives, label_map)

    def camera(self, number: int) -> dict:
        """Calibration, with the image sizes it belongs to."""
        with SensReader(self.stream) as reader:
            header = reader.header
        return {
            'colour': {
                'size': header.colour_size,
                'intrinsic': _finite(header.colour_intrinsic),
                'extrinsic': _finite(header.colour_extrinsic),
            },
            'depth': {
                'size': header.depth_size,
                'intrinsic': _finite(header.depth_intrinsic),
                'extrinsic': _finite(header.depth_extrinsic),
            },
        }


def member(kind: str, number: int) -> str:
    """Name of a frame's image in the archive of labels or instances."""
    return f'{kind}-filt/{number}.png'


@dataclass
class _OpenSens:
    reader: SensReader
    archives: Mapping[str, Archive]
    label_map: Any

    def read(self, entry: SensEntry) -> Frame:
        reader = self.reader
        stored = reader.read(entry)
        depth = in_millimetres(reader.depth(stored), reader.header.depth_scale)
        frame = Frame({'rgb': stored.colour, 'depth': depth})
        frame.extra = {'time_us': [stored.colour_time, stored.depth_time]} | _pose(stored.pose)
        if 'label' in self.archives:
            labels = self._labels(frame, entry.number)
            if 'instance' in self.archives:
                self._instances(frame, entry.number, labels)
        return frame

    def _labels(self, frame: Frame, number: int) -> np.ndarray:
        ids, where = self._map('label', number, (8, 16))
        labels = nyu40_of_ids(ids, self.label_map, where)
        frame.images |= {'label20': LABEL20_OF_NYU40[labels], 'label40': labels}
        return labels

    def _instances(self, frame: Frame, number: int, labels: np.ndarray) -> None:
        instance, where = self._map('instance', number, (8,))
        frame.categories = categories_by_label(instance, labels, where)
        frame.images['instance'] = instance.astype(np.uint16)

    def _map(self, kind: str, number: int, bits: tuple[int, ...]) -> tuple[np.ndarray, str]:
        archive, name = self.archives[kind], member(kind, number)
        where = f'{archive.path}, {name}'
        return decode_map(archive.read(name), where, bits), where


@dataclass(frozen=True)
class FramesScene(Scene):
    """A scan as in ``scannet_frames_25k``: ``{color,depth,label,instance,pose}/<number>.*``.

    Attributes:
        scale: Stored units of depth per metre, which no file says.
    """

    scale: float = _MILLIMETRES

    def kinds(self) -> dict[str, str]:
        """Folders that are read, and the suffix of their files."""
        kinds = {'color': '.jpg', 'depth': '.png'}
        return (
            kinds
            | ({'label': '.png'} if self.labels else {})
            | ({'instance': '.png'} if self.instances else {})
        )

    def missing(self) -> list[Path]:
        """Folders that are wanted and not there."""
        return [path for path in map(self.folder.joinpath, self.kinds()) if not path.is_dir()]

    def _files(self) -> dict[str, dict[str, str]]:
        """Names of the files of each kind, by their stem."""
        return {
            kind: by_stem(files_in(self.folder / kind), suffix, self.folder / kind, SourceError)
            for kind, suffix in self.kinds().items()
        }

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
    def open(self, label_map: np.ndarray | None) -> Iterator['_OpenFrames']:
        """Nothing is kept open."""
        yield _OpenFrames(self)

    def _intrinsic(self, kind: str) -> np.ndarray | None:
        path = self.folder / f'intrinsics_{kind}.txt'
        return read_matrix(path) if path.exists() else None

    def camera(self, number: int) -> dict:
        """Calibration, with the image sizes it belongs to.

        Args:
            number: Of a frame that could be read.
        """
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


@dataclass
class _OpenFrames:
    scene: FramesScene

    def read(self, names: Mapping[str, str]) -> Frame:
        scene = self.scene
        colour, where = self._content('color', names)
        read_header(colour, where)
        content, where = self._content('depth', names)
        read_header(content, where)
        depth = decode_depth(content, where)
        if depth.dtype != np.uint16:
            raise FrameError(f'{where}: {depth.dtype}, expected depth in 16 bits.')
        frame = Frame({'rgb': colour, 'depth': in_millimetres(depth, scene.scale)})
        if scene.labels:
            content, where = self._content('label', names)
            labels = check_nyu40(decode_map(content, where, (8,)), where)
            frame.images |= {'label20': LABEL20_OF_NYU40[labels], 'label40': labels}
        if scene.instances:
            content, where = self._content('instance', names)
            joint = decode_map(content, where, (16,))
            frame.images['instance'], frame.categories = split_joint_ids(joint, where)
        pose = scene.folder / 'pose' / Path(names['color']).with_suffix('.txt')
        if pose.exists():
            frame.extra = _pose(read_matrix(pose))
        return frame

    def _content(self, kind: str, names: Mapping[str, str]) -> tuple[bytes, str]:
        path = self.scene.folder / kind / names[kind]
        return path.read_bytes(), str(path)


def _pose(matrix: np.ndarray) -> dict:
    """Pose for the record; frames that were lost in tracking have -inf and get none."""
    found = _finite(matrix)
    return {'camera_to_world': found} if found else {}


def _finite(matrix: np.ndarray) -> list[list[float]] | None:
    return matrix.tolist() if np.isfinite(matrix).all() else None


def in_millimetres(stored: np.ndarray, scale: float) -> np.ndarray:
    """Bring stored depth to millimetres.

    Args:
        stored: (H, W) uint16, 0 = no reading.
        scale: Stored units per metre.

    Returns:
        (H, W) uint16, 0 = no reading; the same array where it is in millimetres already.
    """
    if scale == _MILLIMETRES:
        return stored
    return store_depth(stored / scale, stored > 0, _MILLIMETRES)
