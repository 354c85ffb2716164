"""7-Scenes: Kinect sequences, whose depth is registered to colour here."""

import argparse
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mmmask3d.conversion.converter import Converter, FrameRef, Plan, json_file
from mmmask3d.conversion.formats.matrix import read_matrix
from mmmask3d.conversion.formats.registration import Camera, register_depth
from mmmask3d.conversion.formats.source_image import check_size, read_colour, read_map
from mmmask3d.conversion.frame import Frame, store_depth
from mmmask3d.conversion.options import add_every, add_unit
from mmmask3d.conversion.paths import SourceError, require, safe_name
from mmmask3d.datasets.depth_io import FrameError
from mmmask3d.datasets.frame_files import by_stem, files_in, folders_in
from mmmask3d.datasets.text_lists import read_lines

# The data set comes without a calibration; its authors say that the cameras were not calibrated,
# and name the intrinsics of the depth camera that their reconstruction used. Everything here is
# therefore APPROXIMATE: the depth camera is theirs, the focal length of the colour camera is that
# which work on this data set commonly assumes, and the pose of one camera to the other is that of
# another Kinect, https://projet.liris.cnrs.fr/voir/activities-dataset/kinect-calibration.html,
# as used for 7-Scenes by ACE (Brachmann et al., CVPR 2023, nianticlabs/ace, setup_7scenes.py).
SIZE = (640, 480)
DEPTH_CAMERA = Camera(fx=585.0, fy=585.0, cx=320.0, cy=240.0)
COLOUR_CAMERA = Camera(fx=525.0, fy=525.0, cx=320.0, cy=240.0)
#: From the axes of the depth camera to those of the colour camera.
ROTATION = np.array(
    [
        [9.9996518012567637e-01, 2.6765126468950343e-03, -7.9041012313000904e-03],
        [-2.7409311281316700e-03, 9.9996302803027592e-01, -8.1504520778013286e-03],
        [7.8819942130445332e-03, 8.1718328771890631e-03, 9.9993554558014031e-01],
    ]
)
#: Metres.
TRANSLATION = np.array([-2.5558943178152542e-02, 1.0109636268061706e-04, 2.0318321729487039e-03])

_NO_READING = 65535
_STORED_PER_METRE = 1000.0
_LISTS = {'train': 'TrainSplit.txt', 'test': 'TestSplit.txt'}
_LIST_LINE = re.compile(r'sequence\s*(\d{1,3})')
_COLOUR = '.color.png'
_DEPTH = '.depth.png'
_POSE = '.pose.txt'


class SceneSequence(NamedTuple):
    """A sequence of a scene.

    Attributes:
        folder: Its folder.
        name: ``<scene>/seq-<number>``.
        split: 'train' or 'test'.
        listed_in: The list and line that name it.
    """

    folder: Path
    name: str
    split: str
    listed_in: str

    def __str__(self) -> str:
        return self.name


class SevenScenesConverter(Converter):
    """Convert the scenes of 7-Scenes, and register depth to colour (approximate constants).

    The zip files inside the archives have to be unpacked first.
    """

    name = 'seven_scenes'
    title = '7-Scenes'
    content_options = ('unit', 'every', 'jpeg')

    def __init__(self, args: argparse.Namespace) -> None:
        super().__init__(args)
        self.depth_scale: float = args.unit
        self.suffixes = {'rgb': '.jpg' if args.jpeg else '.png', 'depth': '.png'}

    @classmethod
    def add_arguments(cls, parser: argparse._ActionsContainer) -> None:
        add_unit(parser, default=_STORED_PER_METRE)
        add_every(parser, 1, 'a sequence')
        parser.add_argument(
            '--jpeg', action='store_true', help='store colour as JPEG, which is much smaller'
        )

    def sources(self) -> list[SceneSequence]:
        """The sequences that the lists of the scenes name."""
        if not self.source.is_dir():
            raise SourceError(f'{self.source} is no folder. Give that of all scenes, or of one.')
        folders = [self.source, *map(self.source.joinpath, folders_in(self.source))]
        scenes = [f for f in folders if any((f / name).is_file() for name in _LISTS.values())]
        if not scenes:
            raise SourceError(
                f'{self.source}: neither it nor a folder in it holds '
                f'{" or ".join(_LISTS.values())}. Unpack the archives of the scenes there.'
            )
        found: list[SceneSequence] = []
        for folder in scenes:
            found += self._listed(folder)
        return found

    def _listed(self, folder: Path) -> list[SceneSequence]:
        title = safe_name(folder.resolve().name if folder == self.source else folder.name)
        found: dict[int, SceneSequence] = {}
        for split, name in _LISTS.items():
            path = require(folder / name, 'a list of sequences', 'Unpack the scene again.')
            for line, text in read_lines(path, SourceError):
                where = f'{path}:{line}'
                match = _LIST_LINE.fullmatch(text)
                if not match:
                    raise SourceError(
                        f"{where}: expected 'sequence' and a number, found {text[:60]!r}. Unpack "
                        f'the scene again.'
                    )
                number = int(match[1])
                if number in found:
                    raise SourceError(
                        f'{where}: sequence {number} is named by {found[number].listed_in} already.'
                    )
                sequence = f'seq-{number:02d}'
                found[number] = SceneSequence(
                    folder / sequence, f'{title}/{sequence}', split, where
                )
        return list(found.values())

    def plan(self, source: SceneSequence) -> Plan:
        """Find the frames of a sequence."""
        folder = source.folder
        if not folder.is_dir():
            archive = folder.with_name(folder.name + '.zip')
            cure = (
                f"Unpack it: unzip '{archive}' -d '{folder.parent}'."
                if archive.exists()
                else f'{archive} is not there either; unpack the scene again.'
            )
            raise SourceError(f'{source.listed_in} names {folder}, which is no folder. {cure}')
        names = files_in(folder)
        files = {
            kind: by_stem(names, kind, folder, SourceError) for kind in (_COLOUR, _DEPTH, _POSE)
        }
        problems = [
            f'{folder / files[have][stem]} has no partner {stem}{lack}. Unpack the sequence again.'
            for have, lack in ((_COLOUR, _DEPTH), (_DEPTH, _COLOUR))
            for stem in sorted(files[have].keys() - files[lack].keys())
        ]
        complete = sorted(files[_COLOUR].keys() & files[_DEPTH].keys())
        if not complete and not problems:
            problems.append(f'{folder}: no file ends in {_COLOUR}. Unpack the sequence again.')
        frames = [
            FrameRef(
                safe_name(f'{source.name}/{stem}'),
                (files[_COLOUR][stem], files[_DEPTH][stem], files[_POSE].get(stem)),
                source.split,
            )
            for stem in complete[:: self.args.every]
        ]
        return Plan(frames, problems)

    def read(self, opened: SceneSequence, locator: tuple[str, str, str | None]) -> Frame:
        """Read a frame and register its depth."""
        colour, depth, pose = locator
        folder = opened.folder
        colour_path, depth_path = folder / colour, folder / depth
        image, size = read_colour(colour_path, self.suffixes['rgb'])
        stored = read_map(depth_path, 16)
        for path, found in ((colour_path, size), (depth_path, stored.shape[::-1])):
            check_size(path, found, SIZE, 'the calibration', 'Its constants belong to that size.')
        extra = {}
        if pose is not None:
            to_world = read_matrix(folder / pose)
            if not np.isfinite(to_world).all():
                raise FrameError(f'{folder / pose}: expected finite numbers.')
            # The poses are those of the depth camera, whose view registered depth has left.
            extra['camera_to_world'] = (to_world @ np.linalg.inv(depth_to_colour())).tolist()
        return Frame({'rgb': image, 'depth': self._depth(stored)}, extra=extra)

    def extra_files(self, names: Mapping[str, str]) -> dict[str, bytes]:
        """See :meth:`Converter.extra_files`: the camera whose view all frames have now."""
        fx, fy, cx, cy = COLOUR_CAMERA
        colour = {'size': SIZE, 'intrinsic': [[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]]}
        cameras = {name.partition('/')[0]: {'colour': colour} for name in names}
        return {'cameras.json': json_file(cameras)}

    def _depth(self, stored: np.ndarray) -> np.ndarray:
        valid = (stored > 0) & (stored < _NO_READING)
        depth, valid = register_depth(
            stored / self.depth_scale,
            valid,
            DEPTH_CAMERA,
            COLOUR_CAMERA,
            ROTATION,
            TRANSLATION,
            SIZE,
        )
        return store_depth(depth, valid, self.depth_scale)


def depth_to_colour() -> np.ndarray:
    """(4, 4) from the axes of the depth camera to those of the colour camera, metres."""
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = ROTATION, TRANSLATION
    return matrix
