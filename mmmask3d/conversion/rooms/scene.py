"""Layout of a generated room: shell, windows, lights, and furniture that does not overlap.

The room is a box with the floor at z = 0, 0 <= x <= width and 0 <= y <= depth, in metres.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mmmask3d.conversion.rooms import furniture, palette
from mmmask3d.conversion.rooms.shapes import (
    Adder,
    Assembly,
    Material,
    Vector,
    begin,
    box,
    piece,
    quad,
    yaw_matrix,
)

Rng = np.random.Generator


@dataclass(frozen=True)
class Light:
    """A rectangular area light; a small one stands for a bulb."""

    centre: np.ndarray  # (3,) metres
    edges: np.ndarray  # (2, 3) full sides of the rectangle in metres
    normal: np.ndarray  # (3,) direction it shines in; zeros for a light that shines everywhere
    power: np.ndarray  # (3,) linear RGB radiance times area


@dataclass(frozen=True)
class Scene:
    """A finished room."""

    assembly: Assembly
    size: np.ndarray  # (3,) width, depth and height in metres
    solids: np.ndarray  # (n, 2, 3) bounding boxes of what the camera must not be inside of
    lights: list[Light]
    # (3,) direction towards the sun, and its (3,) linear RGB irradiance; None: no sun
    sun: tuple[np.ndarray, np.ndarray] | None
    sky: np.ndarray  # (3,) linear RGB seen through the windows
    scenery: np.ndarray  # (4,) numbers in [0, 1) that pick what is seen outside


@dataclass(frozen=True)
class _Wall:
    """A wall; ``along`` runs to the right of one who looks at it from outside."""

    start: np.ndarray
    along: np.ndarray
    inward: np.ndarray
    length: float
    yaw: float

    def at(self, along: float, out: float = 0.0, z: float = 0.0) -> np.ndarray:
        """A place in metres along the wall, into the room and above the floor."""
        return self.start + self.along * along + self.inward * out + [0, 0, z]


def _walls(width: float, depth: float) -> list[_Wall]:
    corners = [(0, 0), (width, 0), (width, depth), (0, depth)]
    level = [np.array([*vector, 0.0]) for vector in (*corners, (1, 0), (0, 1), (-1, 0), (0, -1))]
    return [
        _Wall(level[k], level[4 + k], level[4 + (k + 1) % 4], (width, depth)[k % 2], k * np.pi / 2)
        for k in range(4)
    ]


class _Room:
    """A room being furnished: keeps what has been placed and refuses overlaps."""

    def __init__(self, rng: Rng, width: float, depth: float, height: float) -> None:
        self.rng = rng
        self.size = np.array([width, depth, height])
        self.walls = _walls(width, depth)
        self.made = Assembly()
        self.taken: list[np.ndarray] = []
        self.solids: list[np.ndarray] = []
        self.lights: list[Light] = []

    def reserve(self, low: Vector, high: Vector) -> None:
        """Keep a box free of furniture without putting anything there."""
        corners = np.stack([np.asarray(low, float), np.asarray(high, float)])
        self.taken.append(np.sort(corners, axis=0))

    def place(
        self, piece: Assembly, offset: Vector, yaw: float = 0.0, gap: float = 0.01
    ) -> np.ndarray | None:
        """Put a piece down if it fits; return its (2, 3) bounds, or None if something is there."""
        turned = Assembly()
        turned.merge(piece, offset, yaw)
        bounds = turned.bounds()
        if (bounds[0] < -1e-6).any() or (bounds[1] > self.size + 1e-6).any():
            return None
        for other in self.taken:
            if (bounds[0] - gap < other[1]).all() and (bounds[1] + gap > other[0]).all():
                return None
        self.made.merge(turned)
        self.taken.append(bounds)
        self.solids.append(bounds)
        return bounds

    def against_wall(
        self, piece: Assembly, z: float = 0.0, tries: int = 12, gap: float = 0.02
    ) -> tuple[_Wall, float, np.ndarray] | None:
        """Put a piece with its back to a random wall; return wall, place along it and bounds."""
        bounds = piece.bounds()
        low, high = bounds[0], bounds[1]
        for _ in range(tries):
            wall = self.walls[int(self.rng.integers(4))]
            room = wall.length - (high[0] - low[0])
            if room < 0.06:
                continue
            if self.rng.random() < 0.3:  # corners are popular
                along = float(self.rng.choice([0.03, room - 0.03])) - low[0]
            else:
                along = self.rng.uniform(0.03, room - 0.03) - low[0]
            placed = self.place(piece, wall.at(along, gap - low[1], z), wall.yaw)
            if placed is not None:
                return wall, along, placed
        return None

    def somewhere(self, piece: Assembly) -> bool:
        """Put a piece anywhere on the floor."""
        for _ in range(10):
            spot = [*(self.rng.uniform(0.3, 0.97) * self.size[:2]), 0.0]
            turn = self.rng.uniform(0, 2 * np.pi)
            if self.place(piece, spot, turn, gap=0.04) is not None:
                return True
        return False


def _shell(room: _Room, rng: Rng) -> None:
    """Build floor, ceiling and walls with windows, skirting and a door."""
    made = room.made
    width, depth, height = room.size
    made.thing('floor')(quad((0, 0, 0), (width, 0, 0), (0, depth, 0), palette.floor(rng)))
    made.thing('ceiling')(quad((0, 0, height), (width, 0, 0), (0, depth, 0), palette.ceiling(rng)))
    add = made.thing('wall')
    cover = palette.wall(rng)
    feature = int(rng.integers(4)) if rng.random() < 0.35 else -1
    accent = palette.wall(rng)
    skirting = palette.wood_or_paint(rng) if rng.random() < 0.8 else None
    bright = rng.permutation(4)
    openings = {int(k) for k in bright[: int(rng.choice([0, 1, 2], p=[0.1, 0.6, 0.3]))]}
    door_wall = next(int(k) for k in bright[::-1] if int(k) not in openings)
    drapes = palette.cloth(rng)
    has_drapes = rng.random() < 0.6
    for index, wall in enumerate(room.walls):
        material = accent if index == feature else cover
        holes = _windows(room, wall, drapes, has_drapes) if index in openings else []
        _wall_with_holes(add, wall, height, holes, material, rng.uniform(0, 50))
        if index == door_wall:
            _door(room, wall, add)
        if skirting is not None:
            tall = 0.08
            shape = box((wall.length, 0.015, tall), (wall.length / 2, 0.0075, tall / 2), skirting)
            if index == door_wall:
                continue
            add(shape.moved(yaw_matrix(wall.yaw), wall.start))
    if rng.random() < 0.3:
        x, y = rng.uniform(0.3, 0.9), rng.uniform(0.25, 0.7)
        block = piece('wall', box((x, y, height), (0, 0, height / 2), cover))
        corner = rng.integers(2, size=2)
        spot = [x / 2 if corner[0] else width - x / 2, y / 2 if corner[1] else depth - y / 2, 0]
        room.place(block, spot, gap=0.0)


def _wall_with_holes(
    add: Adder,
    wall: _Wall,
    height: float,
    holes: list[tuple[float, float, float, float]],
    material: Material,
    start: float,
) -> None:
    """Add a wall as rectangles around its holes (s0, z0, s1, z1), in order along the wall."""
    pieces = []
    at = 0.0
    for s0, z0, s1, z1 in sorted(holes):
        pieces += [(at, 0.0, s0, height), (s0, 0.0, s1, z0), (s0, z1, s1, height)]
        at = s1
    pieces.append((at, 0.0, wall.length, height))
    up = np.array([0.0, 0.0, 1.0])
    for s0, z0, s1, z1 in pieces:
        corner = wall.at(s0, z=z0)
        add(quad(corner, wall.along * (s1 - s0), up * (z1 - z0), material, (s0 + start, z0)))


def _windows(
    room: _Room, wall: _Wall, drapes: Material, has_drapes: bool
) -> list[tuple[float, float, float, float]]:
    """Add one or two windows to a wall and return the holes they need."""
    rng, made = room.rng, room.made
    height = room.size[2]
    count = 2 if wall.length > 4 and rng.random() < 0.5 else 1
    sill = rng.uniform(0.75, 1.0) if rng.random() < 0.85 else 0.12
    top = min(height - rng.uniform(0.25, 0.45), sill + rng.uniform(1.1, 2.0))
    wide = rng.uniform(0.8, min(2.0, wall.length / count - 0.7))
    recess = rng.uniform(0.1, 0.22)
    frame, glass = palette.paint(rng, 0.2), palette.glass()
    reveal = palette.wall(rng)
    panes = max(1, round(wide / rng.uniform(0.5, 0.9)))
    bar = rng.uniform(0.03, 0.055)
    cross = rng.random() < 0.4
    holes = []
    for k in range(count):
        middle = (k + 0.5) * wall.length / count + rng.uniform(-0.1, 0.1)
        s0, s1 = middle - wide / 2, middle + wide / 2
        holes.append((s0, sill, s1, top))
        local, add_wall = begin('wall')
        high = top - sill
        for x in (-wide / 2, wide / 2):
            add_wall(quad((x, 0, 0), (0, -recess, 0), (0, 0, high), reveal))
        add_wall(quad((-wide / 2, 0, high), (wide, 0, 0), (0, -recess, 0), reveal))
        add = local.thing('window')
        add(box((wide, recess + 0.06, 0.03), (0, -recess / 2 + 0.03, 0.0), frame))
        add(quad((-wide / 2, -recess, 0), (wide, 0, 0), (0, 0, high), glass))
        deep = -recess + 0.025
        for pane in range(panes + 1):
            x = -wide / 2 + pane * wide / panes
            add(box((bar, 0.045, high), (x, deep, high / 2), frame))
        bars = [bar / 2, high - bar / 2] + ([high * rng.uniform(0.4, 0.7)] if cross else [])
        for z in bars:
            add(box((wide, 0.044, bar), (0, deep, z), frame))
        if has_drapes:
            for sign in (-1, 1):
                gathered = rng.uniform(0.18, 0.4)
                tall = top + 0.15 - (0.03 if rng.random() < 0.7 else sill - 0.1)
                cloth = furniture.curtain(rng, gathered, tall, drapes)
                local.merge(cloth, (sign * (wide / 2 + 0.05), 0.03, high + 0.15 - tall))
            rod_box = box((wide + 0.5, 0.02, 0.02), (0, 0.07, high + 0.17), palette.metal(rng))
            local.thing('window')(rod_box)
        elif sill > 0.7 and rng.random() < 0.5:
            local.merge(furniture.radiator(rng, wide * 0.8), (0, 0, -sill))
            room.reserve(wall.at(s0), wall.at(s1, 0.14, 0.75))
        made.merge(local, wall.at(middle, z=sill), wall.yaw)
        margin, clear = (0.3, 0.16) if has_drapes else (0.0, 0.35)
        bottom = 0.02 if has_drapes or sill < 0.5 else sill - 0.02
        room.reserve(wall.at(s0 - margin, z=bottom), wall.at(s1 + margin, clear, height))
        centre = wall.at(middle, -(recess + 0.03), sill + high / 2)
        edges = np.stack([wall.along * wide, np.array([0, 0, high])])
        room.lights.append(Light(centre, edges, wall.inward, np.full(3, wide * high)))
    return holes


def _door(room: _Room, wall: _Wall, add: Adder) -> None:
    """Add a closed door in its frame; doors count as wall, as in NYUv2's 13 classes."""
    rng = room.rng
    wide, tall = rng.uniform(0.78, 0.95), rng.uniform(1.98, 2.1)
    middle = rng.uniform(wide / 2 + 0.15, wall.length - wide / 2 - 0.15)
    leaf, knob = palette.wood_or_paint(rng), palette.metal(rng)
    frame = palette.wood_or_paint(rng)
    rim = 0.07
    shapes = [box((wide, 0.02, tall), (0, 0.01, tall / 2), leaf)]
    for sign in (-1, 1):
        centre = (sign * (wide + rim) / 2, 0.0225, (tall + rim) / 2)
        shapes.append(box((rim, 0.045, tall + rim), centre, frame))
    shapes.append(box((wide, 0.044, rim), (0, 0.022, tall + rim / 2), frame))
    rows = int(rng.integers(0, 4))
    for row in range(rows):
        high = tall / rows
        shapes.append(box((wide * 0.7, 0.012, high * 0.75), (0, 0.024, (row + 0.5) * high), leaf))
    shapes.append(box((0.12, 0.05, 0.02), (wide / 2 - 0.1, 0.045, 1.02), knob))
    add(*(shape.moved(yaw_matrix(wall.yaw), wall.at(middle)) for shape in shapes))
    half = wide / 2 + rim
    room.reserve(wall.at(middle - half), wall.at(middle + half, 0.8, tall + rim))


def _rug_under(room: _Room, x: float, y: float, width: float, depth: float, yaw: float) -> None:
    """Lay a rug, cut to the room; furniture may stand on it."""
    if abs(np.sin(yaw)) > 0.7:
        width, depth = depth, width
    low = np.maximum([x - width / 2, y - depth / 2], 0.1)
    high = np.minimum([x + width / 2, y + depth / 2], room.size[:2] - 0.1)
    size = high - low
    if (size < 0.5).any():
        return
    turned = np.pi / 2 if size[1] > size[0] else 0.0
    piece = furniture.rug(room.rng, float(size.max()), float(size.min()))
    room.made.merge(piece, (*(low + size / 2), 0.0), turned)


def _above(room: _Room, wall: _Wall, along: float, top: float) -> None:
    """Hang pictures or a shelf over a piece of furniture whose top is at this height."""
    rng = room.rng
    if rng.random() < 0.3 and top < 1.2:
        shelf = furniture.wall_shelf(rng)
        room.place(shelf, wall.at(along, 0.004, top + rng.uniform(0.3, 0.5)), wall.yaw)
        return
    for offset in [0.0] if rng.random() < 0.6 else [-0.4, 0.4]:
        z = max(top + 0.12, rng.uniform(1.25, 1.5))
        room.place(furniture.picture(rng), wall.at(along + offset, 0.004, z), wall.yaw)


def _bed_group(room: _Room, rng: Rng) -> None:
    piece = furniture.bed(rng)
    placed = room.against_wall(piece, tries=20)
    if placed is None:
        return
    wall, along, bounds = placed
    size = bounds[1] - bounds[0]
    wide = float(abs(wall.along[:2] @ size[:2]))
    for sign in (-1, 1):
        if rng.random() < 0.75:
            side = rng.uniform(0.35, 0.5)
            stand = furniture.cabinet(rng, side, rng.uniform(0.32, 0.42), rng.uniform(0.42, 0.6), 0)
            makers = [furniture.table_lamp, furniture.book_stack, furniture.vase]
            area, top = (-side / 2, -0.15, side / 2, 0.15), float(stand.bounds()[1][2])
            furniture.scatter(stand, rng, area, top, 2, makers=makers)
            beside = along + sign * (wide / 2 + side / 2 + 0.06)
            room.place(stand, wall.at(beside, 0.25), wall.yaw)
    _above(room, wall, along, float(size[2]))
    if rng.random() < 0.5:
        spot = wall.at(along, 1.5)
        _rug_under(room, spot[0], spot[1], wide + 1.2, 1.5, wall.yaw)


def _sofa_group(room: _Room, rng: Rng) -> None:
    placed = room.against_wall(furniture.sofa(rng), tries=20)
    if placed is None:
        return
    wall, along, bounds = placed
    _above(room, wall, along, float(bounds[1][2]))
    out = 0.95 + rng.uniform(0.35, 0.6)
    if rng.random() < 0.8:
        wide, deep = rng.uniform(0.8, 1.2), rng.uniform(0.45, 0.65)
        low = furniture.table(rng, wide, deep, rng.uniform(0.35, 0.47), items=3)
        room.place(low, wall.at(along, out + deep / 2), wall.yaw)
    if rng.random() < 0.65:
        spot = wall.at(along, out + 0.3)
        _rug_under(room, spot[0], spot[1], rng.uniform(1.8, 2.6), rng.uniform(1.3, 1.8), wall.yaw)
    if rng.random() < 0.5:
        seat = furniture.sofa(rng, rng.uniform(0.75, 0.95), 'chair')
        sign = rng.choice([-1, 1])
        room.place(seat, wall.at(along + sign * 1.5, out + 0.3), wall.yaw + sign * np.pi / 2)
    for sign in (-1, 1):
        if rng.random() < 0.35:
            wide = float(abs(wall.along[:2] @ (bounds[1] - bounds[0])[:2]))
            spot = wall.at(along + sign * (0.3 + wide / 2), 0.35)
            room.place(furniture.floor_lamp(rng), spot, wall.yaw)


def _dining_group(room: _Room, rng: Rng) -> None:
    wide, deep = rng.uniform(0.8, 1.9), rng.uniform(0.75, 0.95)
    height = rng.uniform(0.72, 0.77)
    piece = furniture.table(rng, wide, deep, height, items=4)
    yaw = float(rng.choice([0.0, np.pi / 2]))
    for _ in range(15):
        spot = rng.uniform(0.25, 0.75, 2) * room.size[:2]
        bounds = room.place(piece, (*spot, 0.0), yaw, gap=0.3)
        if bounds is not None:
            break
    else:
        return
    # Chairs reach under the table top, which a test of bounding boxes would forbid.
    room.taken.pop()
    under = bounds.copy()
    under[:, :2] += [[0.18, 0.18], [-0.18, -0.18]]
    room.taken.append(under)
    first = furniture.chair(rng)
    same = rng.random() < 0.8
    half_x, half_y = (wide / 2, deep / 2) if yaw == 0 else (deep / 2, wide / 2)
    seats = [(0, -1), (0, 1), (-1, 0), (1, 0)]
    for x, y in seats:
        along = half_x if y else half_y
        for shift in [-0.3, 0.3] if along > 0.7 else [0.0]:
            if rng.random() < 0.25:
                continue
            piece = first if same else furniture.chair(rng)
            reach = -furniture_depth(piece) / 2 + rng.uniform(0.2, 0.42)
            px = spot[0] + (x * (half_x + reach) if x else shift)
            py = spot[1] + (y * (half_y + reach) if y else shift)
            turn = np.arctan2(-y, -x) - np.pi / 2 + rng.normal(0, 0.06)
            room.place(piece, (px, py, 0.0), turn, gap=0.005)
    room.taken.append(bounds)
    if rng.random() < 0.35:
        _rug_under(room, spot[0], spot[1], half_x * 2 + 1.2, half_y * 2 + 1.2, 0.0)


def furniture_depth(piece: Assembly) -> float:
    """Return the extent along y of a piece in its own frame, in metres."""
    low, high = piece.bounds()
    return float(high[1] - low[1])


def _desk_group(room: _Room, rng: Rng) -> None:
    piece = furniture.desk(rng)
    placed = room.against_wall(piece, tries=20)
    if placed is None:
        return
    wall, along, _ = placed
    seat = furniture.chair(rng)
    out = furniture_depth(piece) + furniture_depth(seat) / 2 + rng.uniform(0.05, 0.35)
    spot = wall.at(along + rng.uniform(-0.2, 0.2), out)
    room.place(seat, spot, wall.yaw + (np.pi + rng.normal(0, 0.5)))
    _above(room, wall, along, 1.3)
    if rng.random() < 0.6:
        bin_, beside = furniture.bin_(rng), rng.choice([-1, 1]) * 1.05
        room.place(bin_, wall.at(along + beside, 0.3), wall.yaw)


def _bookcase(room: _Room, rng: Rng) -> None:
    height = rng.uniform(0.8, 1.2) if rng.random() < 0.35 else rng.uniform(1.6, 2.15)
    wide, deep = rng.uniform(0.6, 1.3), rng.uniform(0.25, 0.36)
    room.against_wall(furniture.bookcase(rng, wide, deep, height))


def _wardrobe(room: _Room, rng: Rng) -> None:
    size = rng.uniform(0.8, 1.8), rng.uniform(0.5, 0.62), rng.uniform(1.8, 2.2)
    room.against_wall(furniture.cabinet(rng, *size))


def _dresser(room: _Room, rng: Rng) -> None:
    size = rng.uniform(0.7, 1.5), rng.uniform(0.4, 0.5), rng.uniform(0.7, 1.1)
    placed = room.against_wall(furniture.cabinet(rng, *size, items=4))
    if placed is not None and rng.random() < 0.6:
        _above(room, placed[0], placed[1], float(placed[2][1][2]))


def _television(room: _Room, rng: Rng) -> None:
    if rng.random() < 0.6:
        room.against_wall(furniture.television_bench(rng))
        return
    room.against_wall(furniture.wall_screen(rng), z=rng.uniform(0.9, 1.3), gap=0.004)


def _armchair(room: _Room, rng: Rng) -> None:
    piece = furniture.sofa(rng, rng.uniform(0.72, 0.9), 'chair')
    if rng.random() < 0.5:
        room.somewhere(piece)
    else:
        room.against_wall(piece)


def _clutter(room: _Room, rng: Rng) -> None:
    makers: list[Callable[[], Assembly]] = [
        lambda: furniture.crate(rng, rng.uniform(0.3, 0.6)),
        lambda: furniture.plant(rng, rng.uniform(0.6, 1.4)),
        lambda: furniture.bin_(rng),
        lambda: furniture.floor_lamp(rng),
        lambda: furniture.crate(rng, 0.45),
        lambda: furniture.book_stack(rng),
        lambda: furniture.pillow(rng, 0.5, 0.5),
        lambda: furniture.chair(rng),
    ]
    piece = makers[int(rng.integers(len(makers)))]()
    if rng.random() < 0.7:
        room.against_wall(piece, gap=0.03)
    else:
        room.somewhere(piece)


def _wall_things(room: _Room, rng: Rng) -> None:
    if rng.random() < 0.75:
        room.against_wall(furniture.picture(rng), z=rng.uniform(1.2, 1.6), gap=0.004)
    else:
        room.against_wall(furniture.wall_shelf(rng), z=rng.uniform(1.1, 1.6), gap=0.004)


_Group = Callable[[_Room, Rng], None]
_PLANS: dict[str, tuple[list[_Group], list[_Group]]] = {
    'bedroom': (
        [_bed_group, _wardrobe],
        [_dresser, _desk_group, _television, _armchair, _bookcase],
    ),
    'living': (
        [_sofa_group, _television],
        [_bookcase, _dining_group, _armchair, _dresser, _sofa_group],
    ),
    'study': ([_desk_group, _bookcase], [_desk_group, _bookcase, _sofa_group, _armchair, _dresser]),
    'dining': ([_dining_group, _dresser], [_sofa_group, _bookcase, _television, _wardrobe]),
    'studio': ([_bed_group, _sofa_group], [_desk_group, _television, _wardrobe, _dining_group]),
}


def _lights(room: _Room) -> tuple[tuple[np.ndarray, np.ndarray] | None, np.ndarray]:
    """Hang the lamps, light the windows; return the sun and the colour of the sky."""
    rng = room.rng
    windows = list(room.lights)
    room.lights.clear()
    daylight = rng.uniform(0.35, 1.3) if windows and rng.random() < 0.85 else 0.03
    cool = rng.uniform(0.0, 1.0)
    sky = daylight * np.array([1.0 - 0.18 * cool, 1.0 - 0.05 * cool, 1.02 + 0.2 * cool])
    for light in windows:
        room.lights.append(Light(light.centre, light.edges, light.normal, light.power * sky * 3.2))
    sun = None
    if daylight > 0.5 and rng.random() < 0.6:
        inward = windows[int(rng.integers(len(windows)))].normal
        heading = np.arctan2(-inward[1], -inward[0]) + rng.uniform(-0.9, 0.9)
        climb = rng.uniform(0.3, 0.95)
        direction = np.array(
            [np.cos(heading) * np.cos(climb), np.sin(heading) * np.cos(climb), np.sin(climb)]
        )
        sun = direction, daylight * rng.uniform(2.0, 5.0) * np.array([1.0, 0.93, 0.8])
    width, depth, height = room.size
    warm = rng.uniform(0.0, 1.0)
    tint = np.array([1.0, 0.93 - 0.12 * warm, 0.85 - 0.35 * warm])
    on = daylight < 0.3 or not windows or rng.random() < 0.65
    spots = [(0.5, 0.5)]
    if max(width, depth) > 4.8:
        spots = [(0.5, 0.28), (0.5, 0.72)] if depth > width else [(0.28, 0.5), (0.72, 0.5)]
    for x, y in spots:
        low = float(rng.choice([0.05, 0.05, 0.35])) + rng.uniform(0, 0.05)
        spot = np.array([x * width, y * depth, height])
        room.place(furniture.ceiling_lamp(rng, low, on), spot, gap=0.0)
        if on:
            centre = spot - [0, 0, max(low, 0.12) + 0.01]
            edges = np.array([[0.35, 0, 0], [0, 0.35, 0]])
            power = tint * rng.uniform(2.0, 3.6) / len(spots)
            room.lights.append(Light(centre, edges, np.zeros(3), power))
    return sun, sky


def build_room(rng: Rng) -> Scene:
    """Return a furnished room drawn from ``rng``."""
    width, depth = rng.uniform(2.9, 6.6), rng.uniform(2.9, 6.0)
    if rng.random() < 0.12:
        width = rng.uniform(7.0, 10.5)
    room = _Room(rng, float(width), float(depth), float(rng.uniform(2.35, 3.0)))
    _shell(room, rng)
    sun, sky = _lights(room)
    needed, optional = _PLANS[str(rng.choice(list(_PLANS)))]
    for group in needed:
        group(room, rng)
    count = int(np.clip(width * depth / 5.0, 2, 5))
    for group in rng.permutation(np.array(optional, dtype=object))[:count]:
        group(room, rng)
    for _ in range(int(rng.integers(2, 4 + count))):
        _clutter(room, rng)
    for _ in range(int(rng.integers(3, 8))):
        _wall_things(room, rng)
    solids, scenery = np.stack(room.solids), rng.random(4)
    return Scene(room.made, room.size, solids, room.lights, sun, sky.astype(np.float32), scenery)
