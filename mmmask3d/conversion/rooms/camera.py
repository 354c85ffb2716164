"""Cameras of the generated rooms: a pinhole, and views that are worth rendering.

Camera axes are x right, y down, z forward, as in OpenCV; the world has z up, in metres.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from mmmask3d.conversion.paths import SourceError
from mmmask3d.conversion.rooms.render import Tracer
from mmmask3d.conversion.rooms.scene import Scene
from mmmask3d.datasets.classes import INDOOR_STUFF, NYU13_CLASSES

FOCAL = 0.82  # focal length over image width: 63 degrees across, as the first Kinect


@dataclass(frozen=True)
class Camera:
    """A pinhole camera with square pixels and its centre in the middle of the image."""

    position: np.ndarray  # (3,) metres
    rotation: np.ndarray  # (3, 3) camera to world; columns are the camera's axes
    width: int  # of the image in pixels
    height: int

    @property
    def focal(self) -> float:
        """Focal length in pixels."""
        return FOCAL * self.width

    def rays(self) -> np.ndarray:
        """Return (H * W, 3) float32 directions through the pixels' centres.

        Their component along the optical axis is 1, so that the distance along a ray *is* z-depth.
        """
        x = (np.arange(self.width) + 0.5 - self.width / 2) / self.focal
        y = (np.arange(self.height) + 0.5 - self.height / 2) / self.focal
        grid = np.stack(np.broadcast_arrays(x[None], y[:, None], 1.0), axis=-1)
        return (grid.reshape(-1, 3) @ self.rotation.T).astype(np.float32)

    def intrinsic(self) -> np.ndarray:
        """Return the (3, 3) matrix from camera axes to pixels; (0, 0) is a pixel's *centre*."""
        x, y = (self.width - 1) / 2, (self.height - 1) / 2
        return np.array([[self.focal, 0, x], [0, self.focal, y], [0, 0, 1]])

    def pose(self) -> np.ndarray:
        """Return the (4, 4) transformation from camera to world."""
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = self.rotation, self.position
        return pose


def look_at(
    position: np.ndarray, target: np.ndarray, roll: float, width: int, height: int
) -> Camera:
    """Return the camera at ``position`` that looks at ``target``, rolled by radians."""
    forward = (target - position) / np.linalg.norm(target - position)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    cos, sin = np.cos(roll), np.sin(roll)
    axes = [cos * right + sin * down, cos * down - sin * right, forward]
    return Camera(np.asarray(position, float), np.stack(axes, axis=1), width, height)


def _targets(scene: Scene) -> list[np.ndarray]:
    """Return the (2, 3) bounds of every thing worth looking at."""
    boxes: dict[int, list[np.ndarray]] = {}
    for shape in scene.assembly.shapes:
        if scene.assembly.things[shape.thing] not in INDOOR_STUFF:
            corners = np.stack([shape.vertices.min(axis=0), shape.vertices.max(axis=0)])
            boxes.setdefault(shape.thing, []).append(corners)
    bounds = [np.stack([np.min(b, axis=0)[0], np.max(b, axis=0)[1]]) for b in boxes.values()]
    return [b for b in bounds if (b[1] - b[0]).max() > 0.3]


def _candidate(
    scene: Scene, targets: list[np.ndarray], rng: np.random.Generator, width: int, height: int
) -> Camera | None:
    """Return a random camera at eye height; None if it is in, or too near to, something."""
    spot = np.append(rng.uniform(0.3, scene.size[:2] - 0.3), rng.uniform(1.15, 1.75))
    spot[2] = min(spot[2], scene.size[2] - 0.5)
    box = targets[int(rng.integers(len(targets)))]
    aim = rng.uniform(box[0], box[1]) + rng.normal(0, 0.15, 3)
    roll = rng.normal(0, np.radians(2.5))
    clear = (spot < scene.solids[:, 0] - 0.2) | (spot > scene.solids[:, 1] + 0.2)
    across = np.linalg.norm(aim[:2] - spot[:2])
    # Neither straight down nor up at what hangs on the wall, and sometimes over the furniture.
    slope = np.clip((aim[2] - spot[2]) / across, -0.75, 0.1) + max(0.0, rng.normal(0, 0.2))
    aim[2] = spot[2] + across * slope
    if not clear.any(axis=1).all() or not 0.9 < across < 5.5:
        return None
    return look_at(spot, aim, float(roll), width, height)


def _faults(tracer: Tracer, camera: Camera) -> float:
    """Return how far a view is from what is wanted: furniture, near and far; 0 is good."""
    seen = tracer.probe(replace(camera, width=40, height=30))
    z = np.where(seen.hit, seen.depth, 10.0)
    classes = tracer.semantic(seen)
    share = np.bincount(classes, minlength=len(NYU13_CLASSES) + 1) / classes.size
    part = {name: float(share[index + 1]) for index, name in enumerate(NYU13_CLASSES)}
    things = np.bincount(tracer.instance(seen)) / classes.size
    faults = 4 * max(0.0, float((z < 0.7).mean()) - 0.04)  # something right before the lens
    faults += max(0.0, 1.2 - float(np.median(z)))
    faults += 3 * max(0.0, part['wall'] - 0.5)
    faults += 3 * max(0.0, part['window'] + part['ceiling'] - 0.25)
    faults += 2 * max(0.0, sum(part[name] for name in INDOOR_STUFF) - 0.7)
    faults += 2 * max(0.0, float(things.max()) - 0.5)  # nearly all one thing
    faults += 0.1 * max(0, 6 - int((things > 0.006).sum()))
    return faults


def choose_views(
    scene: Scene, tracer: Tracer, rng: np.random.Generator, count: int, size: tuple[int, int]
) -> list[Camera]:
    """Return ``count`` different views of a room, (width, height) pixels each.

    Candidates stand inside at eye height and look at a piece of furniture. One is taken at once
    when it has no fault, otherwise the best of thirty: nothing right before the lens, not nearly
    all wall or one object, several things, no repetition of an earlier view.
    """
    targets = _targets(scene)
    chosen: list[Camera] = []
    for _ in range(count):
        best: tuple[float, Camera] | None = None
        found = 0
        for _ in range(4000):
            camera = _candidate(scene, targets, rng, *size)
            if camera is None:
                continue
            faults = _faults(tracer, camera)
            for other in chosen:
                turn = float(camera.rotation[:, 2] @ other.rotation[:, 2])
                if np.linalg.norm(camera.position - other.position) < 0.7 and turn > 0.8:
                    faults += 0.3
            if best is None or faults < best[0]:
                best = faults, camera
            found += 1
            if faults == 0 or found == 30:
                break
        if best is None:
            raise SourceError(
                f'no place for a camera in a room of {scene.size.round(2).tolist()} m with '
                f'{len(scene.solids)} pieces: this seed cannot be used, choose another.'
            )
        chosen.append(best[1])
    return chosen
