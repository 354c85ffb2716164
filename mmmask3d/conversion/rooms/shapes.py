"""Primitive shapes, materials and assemblies that the generated rooms are built from.

A shape is a triangle mesh that already knows, per face corner, where it lies on its texture (metres
along the surface) and which way it faces. An assembly is a list of shapes in one local frame
(metres, z up, front towards +y, standing on z = 0) together with the things, that is instances,
they belong to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
import trimesh

_SECTIONS = 20  # of what is round

#: Three numbers: a position, a size.
Vector = Sequence[float] | np.ndarray


@dataclass(frozen=True)
class Material:
    """How a surface looks to the colour camera and to the depth sensor."""

    kind: str  # name of the texture function, see ``textures.TEXTURES``
    colours: tuple[tuple[float, float, float], ...]  # three, sRGB in [0, 1]
    scale: float = 0.1  # size of the texture's main feature in metres
    amount: float = 0.5  # strength or variant of the pattern, in [0, 1]
    specular: float = 0.0  # strength of the highlight, in [0, 1]
    shininess: float = 30.0  # exponent of the highlight
    # Reflectance for the depth sensor's projector, in [0, 1]. It is not the colour: a black cloth
    # may be bright in the infrared, and the other way round.
    infrared: float = 0.6
    emission: float = 0.0  # light given off, in units of the albedo
    glass: bool = False  # shows the outdoors and lets light through


@dataclass(frozen=True)
class Shape:
    """A triangle mesh with texture coordinates and normals at its face corners."""

    vertices: np.ndarray  # (V, 3) float64 positions in metres
    faces: np.ndarray  # (F, 3) int64 vertex indices
    uv: np.ndarray  # (F, 3, 2) float32, metres along the surface (or 0..1, laid out as one image)
    normals: np.ndarray  # (F, 3, 3) float32 unit normals; smooth where the shape is curved
    material: Material
    thing: int = 0  # index into the things of the assembly that holds the shape

    def moved(self, rotation: np.ndarray, offset: np.ndarray) -> Shape:
        """Return the shape rotated by a (3, 3) matrix and then shifted by (3,) metres."""
        return replace(
            self,
            vertices=self.vertices @ rotation.T + offset,
            normals=(self.normals @ rotation.T.astype(np.float32)),
        )


def yaw_matrix(yaw: float) -> np.ndarray:
    """Return the (3, 3) rotation by ``yaw`` radians about the vertical axis."""
    cos, sin = np.cos(yaw), np.sin(yaw)
    return np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])


def tilt_matrix(angle: float) -> np.ndarray:
    """Return the (3, 3) rotation by ``angle`` radians about the x axis."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[1.0, 0.0, 0.0], [0.0, cos, -sin], [0.0, sin, cos]])


_UNIT_BOX = trimesh.creation.box((1.0, 1.0, 1.0))
_UNIT_SPHERE = trimesh.creation.icosphere(subdivisions=2, radius=1.0)


@cache
def _gridded_box() -> tuple[np.ndarray, np.ndarray]:
    """Return a cube of half size 1 whose sides are 6 x 6 cells, as the start of a rounded box."""
    steps = np.linspace(-1.0, 1.0, 7)
    vertices: list[np.ndarray] = []
    faces: list[np.ndarray] = []
    for axis in range(3):
        first, second = (axis + 1) % 3, (axis + 2) % 3
        for sign in (-1.0, 1.0):
            grid = np.zeros((7, 7, 3))
            grid[..., axis] = sign
            grid[..., first], grid[..., second] = np.meshgrid(steps, steps, indexing='ij')
            index = np.arange(49).reshape(7, 7) + 49 * len(vertices)
            a, b, c, d = index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]
            cells = [np.stack([a, b, c], -1), np.stack([a, c, d], -1)]
            side = np.concatenate([cell.reshape(-1, 3) for cell in cells])
            vertices.append(grid.reshape(-1, 3))
            faces.append(side if sign > 0 else side[:, ::-1])
    return np.concatenate(vertices), np.concatenate(faces)


def _face_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    corners = vertices[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)


def _box_uv(vertices: np.ndarray, faces: np.ndarray, flat: np.ndarray) -> np.ndarray:
    """Project every face along its dominant axis; u runs along the longer side, as wood grain."""
    extent = np.ptp(vertices, axis=0)
    corners = vertices[faces]
    uv = np.empty((*faces.shape, 2), np.float32)
    dominant = np.abs(flat).argmax(axis=1)
    for axis in range(3):
        others = [k for k in range(3) if k != axis]
        others.sort(key=lambda k: -extent[k])
        chosen = dominant == axis
        uv[chosen] = corners[chosen][:, :, others]
    return uv


def _shape(
    vertices: np.ndarray,
    faces: np.ndarray,
    material: Material,
    centre: Vector,
    size: Vector,
    vertex_normals: np.ndarray | None = None,
) -> Shape:
    """Return a mesh around the origin, moved to its centre."""
    flat = _face_normals(vertices, faces)
    if vertex_normals is None:
        normals = np.repeat(flat[:, None], 3, axis=1)
    else:
        normals = vertex_normals[faces]
    uv = _box_uv(vertices, faces, flat) + _shift_of(centre, size)
    vertices = vertices + np.asarray(centre, float)
    return Shape(vertices, faces, uv, normals.astype(np.float32), material)


def _shift_of(centre: Vector, size: Vector) -> np.ndarray:
    """Return a texture offset that differs between the parts of one piece of furniture."""
    x, y, z = (float(v) for v in centre)
    a, b, c = (float(v) for v in size)
    shift = (x * 7.3 + z * 3.1 + a * 1.7) % 11.0, (y * 5.9 + z * 2.3 + b * 4.1 + c) % 13.0
    return np.array(shift, np.float32)


def box(size: Vector, centre: Vector, material: Material) -> Shape:
    """Return a box of (x, y, z) size in metres around ``centre``."""
    vertices, faces = np.asarray(_UNIT_BOX.vertices), np.asarray(_UNIT_BOX.faces)
    return _shape(vertices * np.asarray(size, float), faces, material, centre, size)


def panel(size: Vector, centre: Vector, material: Material, lying: bool = False) -> Shape:
    """Return a box whose texture coordinates run 0..1 over its front (+y), or its top if ``lying``.

    Used for pictures, screens, rugs and book covers, whose texture is laid out as one image: u goes
    to the viewer's right and v upwards when one looks at that side.
    """
    shape = box(size, (0.0, 0.0, 0.0), material)
    corners = shape.vertices[shape.faces] / np.asarray(size, float)
    u, v = (corners[..., 0], corners[..., 1]) if lying else (-corners[..., 0], corners[..., 2])
    uv = np.stack([u, v], axis=-1) + 0.5
    moved = shape.vertices + np.asarray(centre, float)
    return replace(shape, vertices=moved, uv=uv.astype(np.float32))


def cushion(size: Vector, centre: Vector, radius: float, material: Material) -> Shape:
    """Return a box with edges rounded by ``radius`` metres and smooth normals."""
    half = np.asarray(size, float) / 2
    radius = min(radius, 0.999 * float(half.min()))
    grid, faces = _gridded_box()
    inner = half - radius
    size_of = np.abs(grid)
    stretched = np.where(
        size_of <= 1 / 3, size_of * 3 * inner, inner + (size_of - 1 / 3) * 1.5 * radius
    )
    points = np.sign(grid) * stretched
    core = np.clip(points, -inner, inner)
    normals = points - core
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    rounded = core + radius * normals
    return _shape(rounded, faces, material, centre, size, normals)


def ellipsoid(size: Vector, centre: Vector, material: Material) -> Shape:
    """Return an ellipsoid with (x, y, z) diameters in metres."""
    vertices, faces = np.asarray(_UNIT_SPHERE.vertices), np.asarray(_UNIT_SPHERE.faces)
    radii = np.asarray(size, float) / 2
    normals = vertices / radii
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    return _shape(vertices * radii, faces, material, centre, size, normals)


def lathe(profile: Sequence[tuple[float, float]], centre: Vector, material: Material) -> Shape:
    """Return the surface swept by (radius, height) points around the vertical axis.

    Vases, lamp shades, pots, round table tops and legs. The texture is wrapped around the axis, so
    that u is the arc length at the largest radius and v runs along the profile.
    """
    line = np.asarray(profile, float)
    mesh = trimesh.creation.revolve(line, sections=_SECTIONS, cap=False)
    vertices, faces = np.asarray(mesh.vertices), np.asarray(mesh.faces)
    flat = _face_normals(vertices, faces)
    kept = np.linalg.norm(flat, axis=1) > 0.5
    faces, flat = faces[kept], flat[kept]
    corners = vertices[faces]
    # Smooth around the axis, sharp along the profile: the edge of a table top stays an edge.
    horizontal = np.linalg.norm(flat[:, :2], axis=1)
    radial = corners[..., :2] / np.maximum(
        np.linalg.norm(corners[..., :2], axis=-1, keepdims=True), 1e-9
    )
    outward = np.sign(np.sum(radial.mean(axis=1) * flat[:, :2], axis=1))
    outward[outward == 0] = 1.0
    normals = np.empty_like(corners)
    normals[..., :2] = radial * (outward * horizontal)[:, None, None]
    normals[..., 2] = flat[:, None, 2]
    length = np.linalg.norm(normals, axis=-1, keepdims=True)
    normals = np.where(length > 1e-6, normals / np.maximum(length, 1e-6), flat[:, None])
    angle = np.arctan2(corners[..., 1], corners[..., 0])
    angle = angle[:, :1] + (angle - angle[:, :1] + np.pi) % (2 * np.pi) - np.pi
    reach = np.linalg.norm(corners[..., :2], axis=-1)
    along = np.where(np.abs(flat[:, None, 2]) > 0.9, reach, corners[..., 2])
    uv = np.stack([angle * line[:, 0].max(), along], axis=-1) + _shift_of(
        centre, (line[:, 0].max(), *line[-1])
    )
    moved = vertices + np.asarray(centre, float)
    return Shape(moved, faces, uv.astype(np.float32), normals.astype(np.float32), material)


def cylinder(
    radius: float, height: float, base: Vector, material: Material, top: float | None = None
) -> Shape:
    """Return a closed upright cylinder, or a cone stump with ``top`` as its upper radius."""
    upper = radius if top is None else top
    profile = [(0.0, 0.0), (radius, 0.0), (upper, height), (0.0, height)]
    return lathe(profile, base, material)


def rod(start: Vector, end: Vector, radius: float, material: Material) -> Shape:
    """Return a thin cylinder between two points: slanted legs, lamp arms, twigs."""
    foot = np.asarray(start, float)
    axis = np.asarray(end, float) - foot
    length = float(np.linalg.norm(axis))
    shape = cylinder(radius, length, (0.0, 0.0, 0.0), material)
    rotation = trimesh.geometry.align_vectors([0.0, 0.0, 1.0], axis / length)[:3, :3]
    return shape.moved(rotation, foot)


def quad(
    corner: Vector,
    first: Vector,
    second: Vector,
    material: Material,
    uv_start: tuple[float, float] = (0.0, 0.0),
) -> Shape:
    """Return a flat rectangle spanned by two edges; u follows the first edge, v the second."""
    origin, right, up = (np.asarray(v, float) for v in (corner, first, second))
    vertices = np.stack([origin, origin + right, origin + right + up, origin + up])
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    width, height = np.linalg.norm(right), np.linalg.norm(up)
    plane = np.array([[0, 0], [width, 0], [width, height], [0, height]]) + uv_start
    normals = np.repeat(_face_normals(vertices, faces)[:, None], 3, axis=1)
    return Shape(
        vertices, faces, plane[faces].astype(np.float32), normals.astype(np.float32), material
    )


#: Adds shapes to one thing.
Adder = Callable[..., None]


@dataclass
class Assembly:
    """Shapes in one local frame and the labels of the things they belong to."""

    shapes: list[Shape] = field(default_factory=list)
    things: list[str] = field(default_factory=list)  # class of every instance or surface of a room

    def thing(self, name: str) -> Adder:
        """Start a new thing of a class of NYU-13; returns the function that adds shapes to it."""
        self.things.append(name)
        index = len(self.things) - 1

        def add(*shapes: Shape) -> None:
            self.shapes.extend(replace(shape, thing=index) for shape in shapes)

        return add

    def merge(self, other: Assembly, offset: Vector = (0, 0, 0), yaw: float = 0.0) -> None:
        """Add another assembly, turned by ``yaw`` radians and shifted by ``offset`` metres."""
        rotation, shift = yaw_matrix(yaw), np.asarray(offset, float)
        first = len(self.things)
        self.things.extend(other.things)
        for shape in other.shapes:
            self.shapes.append(replace(shape.moved(rotation, shift), thing=shape.thing + first))

    def bounds(self) -> np.ndarray:
        """Return the (2, 3) lowest and highest corner in metres."""
        points = np.concatenate([shape.vertices for shape in self.shapes])
        return np.stack([points.min(axis=0), points.max(axis=0)])


def begin(name: str) -> tuple[Assembly, Adder]:
    """Return an assembly with one thing of class ``name``, and what adds shapes to that."""
    made = Assembly()
    return made, made.thing(name)


def piece(name: str, *shapes: Shape) -> Assembly:
    """Return an assembly of one thing of class ``name`` that has these shapes."""
    made, add = begin(name)
    add(*shapes)
    return made
