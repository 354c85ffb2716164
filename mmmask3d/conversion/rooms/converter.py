"""Generate furnished rooms: a room is a source, a view of it is a frame."""

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mmmask3d.conversion.converter import Converter, FrameRef, Plan
from mmmask3d.conversion.frame import Frame
from mmmask3d.conversion.options import at_least_one, natural
from mmmask3d.conversion.paths import SourceError
from mmmask3d.conversion.rooms.sensor import Sensor, measure
from mmmask3d.datasets.classes import INDOOR_STUFF, NYU13_CLASSES

#: Raise it when the same options give other frames: a folder made before is then not added to.
VERSION = 1
_JPEG_QUALITY = 94  # that of the published figures on these rooms
_SMALLEST_SIDE, _LARGEST_SIDE = 32, 2048


class RoomsConverter(Converter):
    """Generate RGB-D frames of furnished rooms with semantic and instance labels."""

    name = 'rooms'
    title = 'Generated rooms'
    suffixes = {'rgb': '.jpg', 'depth': '.png', 'semantic': '.png', 'instance': '.png'}
    classes = {'semantic': NYU13_CLASSES}
    categories = {i: n for i, n in enumerate(NYU13_CLASSES, 1) if n not in INDOOR_STUFF}
    default_size = (320, 240)

    def __init__(self, args: argparse.Namespace) -> None:
        self.source = Path(f'seed {args.seed}')
        self.seed: int = args.seed
        self.rooms: int = args.rooms
        self.views: int = args.views
        self.val_rooms: int = args.val_rooms
        self.size: tuple[int, int] = tuple(args.size)
        self._check()

    def _check(self) -> None:
        if not 0 <= self.val_rooms < self.rooms:
            raise SourceError(
                f'--val-rooms must be 0 or more and leave a room for training: got '
                f'{self.val_rooms} of {self.rooms} rooms.'
            )
        if min(self.size) < _SMALLEST_SIDE or max(self.size) > _LARGEST_SIDE:
            raise SourceError(
                f'--size must be between {_SMALLEST_SIDE} and {_LARGEST_SIDE} pixels, got '
                f'{self.size[0]} x {self.size[1]}.'
            )
        if find_spec('trimesh') is None or find_spec('embreex') is None:
            raise SourceError(
                'The rooms need trimesh and embreex: pip install -r requirements/data.txt'
            )

    @classmethod
    def add_folders(cls, parser: argparse.ArgumentParser) -> None:
        """See :meth:`Converter.add_folders`: nothing is read."""
        parser.add_argument('--out', type=Path, default=Path('data/rooms'), help='folder to fill')

    @classmethod
    def add_arguments(cls, parser: argparse._ActionsContainer) -> None:
        parser.add_argument('--seed', type=natural, default=0, help='of everything random')
        parser.add_argument('--rooms', type=at_least_one, default=60, help='number of rooms')
        parser.add_argument('--views', type=at_least_one, default=8, help='frames per room')
        parser.add_argument('--val-rooms', type=int, default=12, help='the last rooms, for val')

    def options(self) -> dict:
        return {
            'generator_version': VERSION,
            'seed': self.seed,
            'rooms': self.rooms,
            'views': self.views,
            'val_rooms': self.val_rooms,
            'sensor': Sensor().options(),
        }

    def sources(self) -> Sequence[int]:
        """See :meth:`Converter.sources`: the numbers of the rooms."""
        return range(self.rooms)

    def plan(self, source: int) -> Plan:
        split = 'train' if source < self.rooms - self.val_rooms else 'val'
        names = (f'room_{source:04d}_view_{view:02d}' for view in range(self.views))
        return Plan([FrameRef(name, view, split) for view, name in enumerate(names)])

    @contextmanager
    def open(self, source: int) -> Iterator[tuple]:
        """See :meth:`Converter.open`; builds the room and chooses its views."""
        # trimesh and scipy take a second
        from mmmask3d.conversion.rooms.camera import choose_views
        from mmmask3d.conversion.rooms.render import Renderer, Tracer
        from mmmask3d.conversion.rooms.scene import build_room

        rng = np.random.default_rng([self.seed, source, 0])
        scene = build_room(rng)
        tracer = Tracer(scene)
        cameras = choose_views(scene, tracer, rng, self.views, self.size)
        yield source, scene.assembly.things, cameras, Renderer(scene, tracer)

    def read(self, opened: Any, locator: int) -> Frame:
        """See :meth:`Converter.read`; a view depends on the seed, the room and its number only."""
        room, things, cameras, renderer = opened
        camera = cameras[locator]
        rng = np.random.default_rng([self.seed, room, 1, locator])
        frame = renderer.render(camera, rng)
        depth = measure(frame.depth, frame.cosine, frame.infrared, camera.focal, rng, Sensor())
        _, jpeg = cv2.imencode(
            '.jpg', frame.colour[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
        )
        images: dict[str, np.ndarray | bytes] = {
            'rgb': jpeg.tobytes(),
            'depth': depth,
            'semantic': frame.semantic,
            'instance': frame.instance,
        }
        categories = {
            thing: NYU13_CLASSES.index(name) + 1
            for thing, name in enumerate(things, 1)
            if name not in INDOOR_STUFF
        }
        extra = {
            'camera_to_world': camera.pose().round(6).tolist(),
            'intrinsic': camera.intrinsic().tolist(),
        }
        return Frame(images, categories, extra)
