"""A furnished room that is ready to be rendered."""

import numpy as np

from mmmask3d.conversion.rooms.camera import choose_views
from mmmask3d.conversion.rooms.render import Renderer, Tracer
from mmmask3d.conversion.rooms.scene import build_room


class Room:
    """Builds a room and chooses the cameras of its views.

    Args:
        seed: Of the data set.
        number: Of the room; it depends on both only.
        views: Number of cameras.
        size: (width, height) of the images in pixels.

    Raises:
        SourceError: The room has no place for a camera.
    """

    def __init__(self, seed: int, number: int, views: int, size: tuple[int, int]) -> None:
        rng = np.random.default_rng([seed, number, 0])
        scene = build_room(rng)
        tracer = Tracer(scene)
        self.number = number
        self.things = scene.assembly.things
        self.cameras = choose_views(scene, tracer, rng, views, size)
        self.renderer = Renderer(scene, tracer)
