"""Renderer of the generated rooms: ray casting with Embree, light, colour camera and label maps.

Per pixel one primary ray finds surface, label and z-depth. Light arrives directly from every lamp,
window and the sun, with shadows, and indirectly over one bounce. Each is sampled by one ray per
pixel whose direction repeats every 4 x 4 pixels, and then averaged over 4 x 4 pixels of the same
surface: soft shadows for the price of hard ones ("interleaved sampling", Keller and Heidrich 2001).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import cv2
import numpy as np
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene

from mmmask3d.conversion.rooms.scene import Light, Scene
from mmmask3d.conversion.rooms.shapes import Material
from mmmask3d.conversion.rooms.textures import TEXTURES, outdoors
from mmmask3d.datasets.classes import NYU13_CLASSES

if TYPE_CHECKING:
    from mmmask3d.conversion.rooms.camera import Camera

_TILE = 4
_OFFSET = 2e-3  # metres by which secondary rays start above a surface


@dataclass(frozen=True)
class Hits:
    """Where n rays end."""

    face: np.ndarray  # (n,) int32 triangle; -1 where nothing was hit
    depth: np.ndarray  # (n,) float32 distance in units of the ray's direction
    bary: np.ndarray  # (n, 2) float32 barycentric coordinates of the second and third corner

    @property
    def hit(self) -> np.ndarray:
        """(n,) bool: whether anything was hit."""
        return self.face >= 0


@dataclass(frozen=True)
class Frame:
    """What a perfect camera sees; all (H, W)."""

    colour: np.ndarray  # (H, W, 3) uint8 sRGB
    depth: np.ndarray  # float32 z-depth in metres, 0 where there is nothing
    cosine: np.ndarray  # float32 cosine of the angle between surface normal and line of sight
    infrared: np.ndarray  # float32 reflectance for the depth sensor, lower in the sun
    semantic: np.ndarray  # uint8, 0 or class index + 1
    instance: np.ndarray  # uint16, 0 or index of the thing in its room + 1


def to_linear(colour: np.ndarray) -> np.ndarray:
    """Return linear light of sRGB values in [0, 1]."""
    return np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)


def to_srgb(light: np.ndarray) -> np.ndarray:
    """Return sRGB values in [0, 1] of linear light in [0, 1]."""
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


def _embree(vertices: np.ndarray, faces: np.ndarray) -> EmbreeScene:
    scene = EmbreeScene()
    TriangleMesh(scene, vertices.astype(np.float32), faces.astype(np.int32))
    return scene


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


class Tracer:
    """The triangles of a scene, ready for rays."""

    def __init__(self, scene: Scene) -> None:
        shapes = scene.assembly.shapes
        counts = [len(shape.faces) for shape in shapes]
        starts = np.cumsum([0] + [len(shape.vertices) for shape in shapes[:-1]])
        vertices = np.concatenate([shape.vertices for shape in shapes])
        faces = np.concatenate([s.faces + at for s, at in zip(shapes, starts, strict=True)])
        self.uv = np.concatenate([shape.uv for shape in shapes])
        self.normals = np.concatenate([shape.normals for shape in shapes])
        corners = vertices[faces]
        cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        self.flat = _unit(cross).astype(np.float32)
        sides = self.uv[:, 1:] - self.uv[:, :1]
        texels = np.abs(sides[:, 0, 0] * sides[:, 1, 1] - sides[:, 0, 1] * sides[:, 1, 0])
        # Texture coordinates per metre: 1 but for textures laid out as one image.
        self.density = np.sqrt(texels / np.maximum(np.linalg.norm(cross, axis=1), 1e-12))

        order: dict[Material, int] = {}
        picks = [order.setdefault(shape.material, len(order)) for shape in shapes]
        self.material = np.repeat(picks, counts)
        self.materials = list(order)
        self.thing = np.repeat([shape.thing for shape in shapes], counts)
        names = scene.assembly.things
        self.label = np.array([NYU13_CLASSES.index(name) + 1 for name in names], np.uint8)

        self.all = _embree(vertices, faces)
        glass = np.array([material.glass for material in self.materials])
        self.solid = _embree(vertices, faces[~glass[self.material]])

    def cast(self, origins: np.ndarray, directions: np.ndarray) -> Hits:
        """Return the first hits of (n, 3) float32 rays."""
        found = self.all.run(origins, directions, output=1)
        return Hits(found['primID'], found['tfar'], np.stack([found['u'], found['v']], axis=-1))

    def visible(self, origins: np.ndarray, towards: np.ndarray) -> np.ndarray:
        """Return (n,) bool: whether one sees ``origins + towards`` from there, through glass."""
        reach = np.full(len(origins), 0.999, np.float32)
        return self.solid.run(origins, towards, dists=reach, query='OCCLUDED') < 0

    def probe(self, camera: Camera) -> Hits:
        """Return the hits of a camera's rays, in rows; ``depth`` is z-depth in metres."""
        rays = camera.rays()
        return self.cast(np.tile(camera.position.astype(np.float32), (len(rays), 1)), rays)

    def semantic(self, hits: Hits) -> np.ndarray:
        """Return (n,) uint8 class index + 1, 0 where nothing was hit."""
        return np.where(hits.hit, self.label[self.thing[hits.face]], 0).astype(np.uint8)

    def instance(self, hits: Hits) -> np.ndarray:
        """Return (n,) uint16 thing index + 1, 0 where nothing was hit."""
        return np.where(hits.hit, self.thing[hits.face] + 1, 0).astype(np.uint16)

    def corners(self, values: np.ndarray, hits: Hits) -> np.ndarray:
        """Return (n, k) values interpolated between the (F, 3, k) corners of the triangles hit."""
        a, b, c = (values[hits.face, k] for k in range(3))
        u, v = hits.bary[:, :1], hits.bary[:, 1:]
        return a + u * (b - a) + v * (c - a)


@cache
def _pattern(height: int, width: int, count: int, varied: bool) -> np.ndarray:
    """Return (count, H * W, 2) float32 numbers in [0, 1) that repeat every 4 x 4 pixels.

    The ``16 * count`` points of a tile are one low-discrepancy (R2) sequence, dealt out so that
    neighbouring pixels hold distant points. ``varied`` shifts them by another amount in every tile:
    without, all tiles look in the same few directions, and by indirect light a bright spot
    elsewhere in the room shows as so many ghosts of itself.
    """
    total = _TILE * _TILE * count
    points = (np.arange(total)[:, None] * [0.7548776662466927, 0.5698402909980532] + 0.5) % 1
    bayer = np.array([[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]])
    tile = points.reshape(count, _TILE * _TILE, 2)[:, bayer]
    tiles = (-(-height // _TILE), -(-width // _TILE))
    pattern = np.tile(tile, (1, *tiles, 1))
    if varied:
        shifts = np.random.default_rng(0).random((count, *tiles, 2))
        pattern = (pattern + shifts.repeat(_TILE, axis=1).repeat(_TILE, axis=2)) % 1
    return pattern[:, :height, :width].reshape(count, -1, 2).astype(np.float32)


def _around(normals: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """Return (n, 3) cosine-distributed directions around (n, 3) normals."""
    radius, angle = np.sqrt(samples[:, 0]), 2 * np.pi * samples[:, 1]
    # Frisvad's basis, as revised by Duff et al. 2017.
    sign = np.where(normals[:, 2] < 0, -1.0, 1.0).astype(np.float32)
    a = -1.0 / (sign + normals[:, 2])
    b = normals[:, 0] * normals[:, 1] * a
    first = np.stack([1 + sign * normals[:, 0] ** 2 * a, sign * b, -sign * normals[:, 0]], -1)
    second = np.stack([b, sign + normals[:, 1] ** 2 * a, -normals[:, 1]], -1)
    up = np.sqrt(np.maximum(0, 1 - samples[:, 0]))
    x, y = radius * np.cos(angle), radius * np.sin(angle)
    return first * x[:, None] + second * y[:, None] + normals * up[:, None]


def _smooth(
    light: np.ndarray, points: np.ndarray, normals: np.ndarray, reach: np.ndarray, step: int
) -> np.ndarray:
    """Average (k, H, W) light over about 4 x 4 pixels, ``step`` apart, of the same surface.

    Args:
        light: What is averaged.
        points: (3, H, W) positions in metres.
        normals: (3, H, W) unit normals.
        reach: (H, W) how far off the tangent plane a neighbour may lie, in metres.
        step: Distance of the taps in pixels.
    """
    # Half weights at both ends: exactly one period of the sampling pattern.
    taps = [(-2, 0.5), (-1, 1.0), (1, 1.0), (2, 0.5)]
    for axis in (1, 2):
        total, weight = light.copy(), np.ones(light.shape[1:], np.float32)
        for shift, factor in taps:
            far = shift * step
            here, there = [slice(None)] * 3, [slice(None)] * 3
            here[axis] = slice(max(0, -far), light.shape[axis] - max(0, far))
            there[axis] = slice(max(0, far), light.shape[axis] - max(0, -far))
            h, t = tuple(here), tuple(there)
            off = np.abs(((points[t] - points[h]) * normals[h]).sum(axis=0))
            alike = (normals[t] * normals[h]).sum(axis=0) > 0.93
            share = (alike & (off < reach[h[1:]])) * np.float32(factor)
            total[h] += light[t] * share
            weight[h[1:]] += share
        light = total / weight
    return light


class Renderer:
    """Renders views of one room, whose triangles ``tracer`` holds."""

    def __init__(self, scene: Scene, tracer: Tracer) -> None:
        self.scene = scene
        self.tracer = tracer
        materials = tracer.materials
        self.colours = to_linear(np.array([m.colours for m in materials])).astype(np.float32)
        self.kind = np.array([list(TEXTURES).index(m.kind) for m in materials])
        looks = ('scale', 'amount', 'specular', 'shininess', 'infrared', 'emission')
        self.scale, self.amount, self.specular, self.shininess, self.infrared, self.emission = (
            np.array([getattr(m, look) for m in materials], np.float32) for look in looks
        )
        self.glass = np.array([m.glass for m in materials])
        self.seed = ((np.arange(len(materials)) + 1) * 0.618034 % 1).astype(np.float32)
        self.mean = self.colours[:, :2].mean(axis=1)

    def albedo(self, hits: Hits, footprint: np.ndarray) -> np.ndarray:
        """Return (n, 3) linear colours of the surfaces; ``footprint`` (n,) pixel size in metres."""
        tracer = self.tracer
        material = tracer.material[hits.face]
        scale = self.scale[material]
        uv = tracer.corners(tracer.uv, hits) / scale[:, None]
        blur = (footprint * tracer.density[hits.face] / scale).astype(np.float32)
        colour = np.zeros((len(material), 3), np.float32)
        kinds = self.kind[material]
        for kind, texture in enumerate(TEXTURES.values()):
            at = np.flatnonzero(kinds == kind)
            if not at.size:
                continue
            m = material[at]
            a, b, c = self.colours[m].transpose(1, 0, 2)
            colour[at] = texture(
                uv[at, 0], uv[at, 1], blur[at], a, b, c, self.amount[m], self.seed[m]
            )
        return np.clip(colour, 0.0, 1.0)

    def _lamp(
        self, light: Light, points: np.ndarray, normals: np.ndarray, samples: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the (n,) share of a light's power that arrives, and (n, 3) directions to it."""
        target = light.centre + (samples - 0.5) @ light.edges
        towards = (target - points).astype(np.float32)
        square = np.maximum(np.einsum('ij,ij->i', towards, towards), 0.04)
        direction = towards / np.sqrt(square)[:, None]
        share = np.maximum(np.einsum('ij,ij->i', direction, normals), 0) / square
        if light.normal.any():
            share *= np.maximum(-(direction @ light.normal.astype(np.float32)), 0)
        return self._unless_hidden(share, 1e-5, points, towards), direction

    def _sun(self, points: np.ndarray, normals: np.ndarray, samples: np.ndarray) -> np.ndarray:
        """Return the (n,) share of the sun's irradiance that arrives; zeros without a sun."""
        if self.scene.sun is None:
            return np.zeros(len(points), np.float32)
        direction = self.scene.sun[0] + 0.02 * (np.pad(samples, ((0, 0), (0, 1))) - 0.5)
        towards = (30.0 * direction).astype(np.float32)
        share = np.maximum(normals @ self.scene.sun[0].astype(np.float32), 0)
        return self._unless_hidden(share, 0, points, towards)

    def _unless_hidden(
        self, share: np.ndarray, least: float, points: np.ndarray, towards: np.ndarray
    ) -> np.ndarray:
        """Set a share of light to 0 where it is small, or something stands in its way."""
        lit = np.flatnonzero(share > least)
        seen = np.zeros(len(points), bool)
        seen[lit] = self.tracer.visible(points[lit], towards[lit])
        return share * seen

    def _bounce(
        self, points: np.ndarray, normals: np.ndarray, samples: np.ndarray, turn: np.ndarray
    ) -> np.ndarray:
        """Return (n, 3) radiance that arrives over one bounce from a direction drawn by cosine.

        ``samples`` (n, 2) draw the direction; ``turn`` (n, 2) draw the light at the other end.
        """
        tracer = self.tracer
        directions = _around(normals, samples).astype(np.float32)
        hits = tracer.cast(points, directions)
        material = tracer.material[hits.face]
        facing = tracer.flat[hits.face]
        facing = facing * -np.sign(np.einsum('ij,ij->i', facing, directions))[:, None]
        spots = (points + directions * hits.depth[:, None] + facing * _OFFSET).astype(np.float32)
        arriving = np.zeros_like(points)
        lights = self.scene.lights
        picked = (turn[:, 0] * len(lights)).astype(int)
        again = np.stack([turn[:, 0] * len(lights) % 1, turn[:, 1]], axis=-1)
        for index, light in enumerate(lights):
            at = np.flatnonzero(picked == index)
            share, _ = self._lamp(light, spots[at], facing[at], again[at])
            arriving[at] = share[:, None] * light.power * len(lights)
        if self.scene.sun is not None:
            arriving += self._sun(spots, facing, turn)[:, None] * self.scene.sun[1]
        radiance = self.mean[material] * np.minimum(arriving / np.pi, 2.5)
        # Light that has bounced more than twice is taken as even, and as strong as the second.
        radiance = radiance + self.mean[material] * radiance.mean(axis=0)
        radiance += self.mean[material] * np.minimum(self.emission[material], 1.0)[:, None]
        radiance[self.glass[material]] = self.scene.sky
        radiance[~hits.hit] = 0.0
        return radiance.astype(np.float32)

    def render(self, camera: Camera, rng: np.random.Generator) -> Frame:
        """Return a view; ``rng`` draws exposure, white balance and noise of the colour camera."""
        tracer, scene = self.tracer, self.scene
        height, width = camera.height, camera.width
        rays = camera.rays()
        hits = tracer.probe(camera)
        material = tracer.material[hits.face]
        length = np.linalg.norm(rays, axis=1)
        view = rays / length[:, None]
        flat = tracer.flat[hits.face]
        flat = flat * -np.sign(np.einsum('ij,ij->i', flat, view))[:, None]
        normals = _unit(tracer.corners(tracer.normals, hits))
        normals = normals * np.where(np.einsum('ij,ij->i', normals, flat) < 0, -1, 1)[:, None]
        normals = normals.astype(np.float32)
        depth = np.where(hits.hit, hits.depth, 0).astype(np.float32)
        points = (camera.position + rays * depth[:, None] + flat * _OFFSET).astype(np.float32)
        cosine = np.maximum(-np.einsum('ij,ij->i', flat, view), 0)

        lamp_samples, sun_samples = _pattern(height, width, 2, varied=False)
        directions, turns = _pattern(height, width, 2, varied=True)
        gloss = np.zeros((len(points), 3), np.float32)
        direct = np.zeros((len(points), 3), np.float32)
        for index, light in enumerate(scene.lights):
            samples = (lamp_samples + 0.37 * index) % 1
            share, towards = self._lamp(light, points, normals, samples)
            power = light.power.astype(np.float32)
            direct += share[:, None] * power
            half = _unit(towards - view)
            lobe = np.maximum(np.einsum('ij,ij->i', half, normals), 0) ** self.shininess[material]
            gloss += (share * lobe * self.specular[material])[:, None] * power
        sunlit = self._sun(points, normals, sun_samples)
        if scene.sun is not None:
            direct += sunlit[:, None] * scene.sun[1].astype(np.float32)
        indirect = np.pi * self._bounce(points, normals, directions, turns)

        def image(values: np.ndarray) -> np.ndarray:
            return values.reshape(height, width, *values.shape[1:])

        def planes(values: np.ndarray) -> np.ndarray:
            return np.ascontiguousarray(values.T, np.float32).reshape(-1, height, width)

        geometry = planes(points), planes(normals), image(0.01 + 0.012 * depth)
        lit = _smooth(planes(np.concatenate([direct, gloss, indirect], 1)), *geometry, 1)
        # Indirect light varies slowly but is noisy: it is averaged over a wider surrounding.
        indirect = _smooth(_smooth(lit[6:], *geometry, 4), *geometry, 12)
        arriving, shine = (lit[:3] + indirect).transpose(1, 2, 0), lit[3:6].transpose(1, 2, 0)
        footprint = depth / camera.focal / np.sqrt(np.maximum(cosine, 0.02))
        albedo = self.albedo(hits, footprint)
        radiance = image(albedo / np.pi) * arriving + shine
        radiance += image(albedo * self.emission[material][:, None])
        outside = np.flatnonzero(self.glass[material] | ~hits.hit)
        if outside.size:
            radiance.reshape(-1, 3)[outside] = outdoors(view[outside], scene.sky, scene.scenery)

        infrared = np.where(hits.hit, self.infrared[material], 0) / (1 + 4 * sunlit)
        return Frame(
            _develop(radiance, rng),
            image(depth),
            image(cosine.astype(np.float32)),
            image(infrared.astype(np.float32)),
            image(tracer.semantic(hits)),
            image(tracer.instance(hits)),
        )


def _develop(radiance: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Turn (H, W, 3) linear radiance into an sRGB picture as a small camera would take it."""
    height, width = radiance.shape[:2]
    luminance = radiance @ np.array([0.2126, 0.7152, 0.0722], np.float32)
    exposure = 0.19 * 2 ** rng.normal(0, 0.3) / np.exp(np.log(luminance + 1e-3).mean())
    # White balance goes most of the way to grey, a random part of it.
    balance = (luminance.mean() / radiance.mean(axis=(0, 1))) ** rng.uniform(0.3, 0.85)
    light = radiance * (exposure * balance).astype(np.float32)
    light = cv2.GaussianBlur(np.minimum(light, 6.0), (0, 0), rng.uniform(0.45, 0.65))
    grey = light @ np.array([0.2126, 0.7152, 0.0722], np.float32)
    light = grey[..., None] + rng.uniform(0.65, 1.0) * (light - grey[..., None])
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    light *= (1 - rng.uniform(0.02, 0.16) * (x * x + y * y))[..., None]
    # Narkowicz's fit of the ACES curve.
    light = light * (2.51 * light + 0.03) / (light * (2.43 * light + 0.59) + 0.14)
    strength = rng.uniform(0.004, 0.014)
    noise = rng.standard_normal(light.shape, np.float32) * strength
    light = light + noise * np.sqrt(np.maximum(light, 0) + 0.02)
    picture = to_srgb(np.clip(light, 0, 1)) * 255
    return np.clip(np.round(picture), 0, 255).astype(np.uint8)
