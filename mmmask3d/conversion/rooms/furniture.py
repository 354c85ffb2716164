"""Furniture and household things of the generated rooms, put together from primitives.

Every function draws its dimensions and materials from ``rng`` and returns an Assembly that stands
on z = 0 around the origin with its front towards +y (metres).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from mmmask3d.conversion.rooms import palette
from mmmask3d.conversion.rooms.shapes import (
    Adder,
    Assembly,
    Material,
    begin,
    box,
    cushion,
    cylinder,
    ellipsoid,
    lathe,
    panel,
    piece,
    rod,
    tilt_matrix,
    yaw_matrix,
)

Rng = np.random.Generator


def book_row(rng: Rng, length: float, height: float, depth: float) -> Assembly:
    """Return upright books that fill some of a shelf of this length, its back at -depth / 2."""
    made, add = begin('books')
    x = -length / 2 + rng.uniform(0, 0.15) * length
    end = length / 2 * rng.uniform(0.4, 1.0)
    series = rng.random() < 0.2
    cover = palette.book(rng)
    tall = rng.uniform(0.6, 0.9) * height
    page = palette.paper()
    while x < end - 0.05:
        thick = rng.uniform(0.015, 0.05)
        if not series:
            cover = palette.book(rng)
            tall = rng.uniform(0.55, 0.93) * height
        deep = rng.uniform(0.6, 0.9) * depth
        y = -depth / 2 + deep / 2 + 0.01
        add(panel((thick - 0.002, deep, tall), (x + thick / 2, y, tall / 2), cover))
        add(box((thick * 0.7, deep * 0.96, 0.004), (x + thick / 2, y, tall), page))
        x += thick
        if rng.random() < 0.06:
            x += rng.uniform(0.03, 0.12)
    return made


def book_stack(rng: Rng) -> Assembly:
    """Return a few books lying on one another."""
    made, add = begin('books')
    z = 0.0
    for _ in range(rng.integers(1, 6)):
        size = (rng.uniform(0.15, 0.25), rng.uniform(0.2, 0.3), rng.uniform(0.015, 0.045))
        shape = panel(size, (0, 0, size[2] / 2), palette.book(rng), lying=True)
        offset = np.array([*rng.uniform(-0.015, 0.015, 2), z])
        add(shape.moved(yaw_matrix(rng.normal(0, 0.2)), offset))
        z += size[2] + 0.001
    return made


def vase(rng: Rng) -> Assembly:
    """Return a vase, bowl, bottle or cup turned on a lathe."""
    height, width = rng.uniform(0.08, 0.35), rng.uniform(0.03, 0.09)
    belly, neck = rng.uniform(1.0, 1.5), rng.uniform(0.4, 1.1)
    profile = [(0.0, 0.0), (0.7 * width, 0.0), (belly * width, 0.35 * height)]
    profile += [(neck * width, 0.75 * height), (neck * width * 1.15, height)]
    profile += [(neck * width * 0.95, height), (neck * width * 0.6, 0.6 * height)]
    return piece('objects', lathe(profile, (0, 0, 0), palette.ceramic(rng)))


def plant(rng: Rng, tall: float | None = None) -> Assembly:
    """Return a potted plant, about ``tall`` metres high."""
    made, add = begin('objects')
    height = rng.uniform(0.25, 0.5) if tall is None else tall
    pot = 0.22 * height + 0.02
    radius = min(0.6 * pot, 0.2)
    add(cylinder(0.7 * radius, pot, (0, 0, 0), palette.ceramic(rng), top=radius))
    leaf = palette.leaves(rng)
    bark = palette.wood(rng)
    for _ in range(rng.integers(5, 10)):
        heading, lean = rng.uniform(0, 2 * np.pi), rng.uniform(0.05, 0.5)
        reach = (height - pot) * rng.uniform(0.4, 0.85)
        tip = np.array([np.cos(heading) * lean, np.sin(heading) * lean, 1.0]) * reach
        tip[2] += pot
        add(rod((0, 0, pot - 0.02), tip, 0.006 + 0.004 * height, bark))
        size = rng.uniform(0.15, 0.35) * (height - pot)
        add(ellipsoid((size, size, 0.7 * size), tip, leaf))
    return made


def crate(rng: Rng, largest: float = 0.5) -> Assembly:
    """Return a box with a lid line, open or closed."""
    made, add = begin('objects')
    x, y, z = rng.uniform(0.35, 1.0, 3) * largest
    add(panel((x, y, z), (0, 0, z / 2), palette.cardboard(rng)))
    if rng.random() < 0.4:
        lid = palette.cardboard(rng)
        add(box((x + 0.012, y + 0.012, 0.18 * z), (0, 0, 0.92 * z), lid))
    return made


def bin_(rng: Rng) -> Assembly:
    """Return a waste-paper bin."""
    height, radius = rng.uniform(0.25, 0.4), rng.uniform(0.1, 0.16)
    profile = [(0.0, 0.0), (0.8 * radius, 0.0), (radius, height), (0.95 * radius, height)]
    profile += [(0.75 * radius, 0.02), (0.0, 0.02)]
    return piece('objects', lathe(profile, (0, 0, 0), palette.paint(rng, 0.8)))


def table_lamp(rng: Rng) -> Assembly:
    """Return a lamp with a foot and a shade."""
    height, radius = rng.uniform(0.32, 0.55), rng.uniform(0.09, 0.16)
    foot = palette.ceramic(rng) if rng.random() < 0.5 else palette.metal(rng)
    neck = 0.6 * height
    profile = [(0.0, 0.0), (0.6 * radius, 0.0), (0.6 * radius, 0.02), (0.012, 0.04)]
    if rng.random() < 0.5:
        profile = [(0.0, 0.0), (0.4 * radius, 0.0), (0.62 * radius, 0.4 * neck)]
        profile.append((0.015, 0.9 * neck))
    shade = [(radius, neck * 0.95), (radius * rng.uniform(0.5, 0.9), height)]
    stand = lathe([*profile, (0.012, neck)], (0, 0, 0), foot)
    return piece('objects', stand, lathe(shade, (0, 0, 0), palette.lamp_shade(rng)))


def floor_lamp(rng: Rng) -> Assembly:
    """Return a lamp on a stand."""
    height, radius = rng.uniform(1.3, 1.75), rng.uniform(0.14, 0.24)
    pole = palette.metal(rng)
    shade = [(radius, height - 0.28), (radius * rng.uniform(0.5, 1.0), height)]
    return piece(
        'objects',
        cylinder(0.14, 0.025, (0, 0, 0), pole),
        cylinder(0.014, height - 0.05, (0, 0, 0.02), pole),
        lathe(shade, (0, 0, 0), palette.lamp_shade(rng)),
    )


def pillow(rng: Rng, width: float, height: float) -> Assembly:
    """Return a pillow lying flat."""
    thick = rng.uniform(0.1, 0.16)
    size = width, height, thick
    return piece('objects', cushion(size, (0, 0, thick / 2), 0.48 * thick, palette.cloth(rng)))


def monitor(rng: Rng, wide: float | None = None) -> Assembly:
    """Return a screen on a foot, ``wide`` metres across."""
    made, add = begin('tv')
    width = rng.uniform(0.42, 0.65) if wide is None else wide
    height = width * rng.uniform(0.54, 0.64)
    lift = rng.uniform(0.06, 0.14)
    frame = palette.paint(rng) if rng.random() < 0.3 else palette.metal(rng)
    add(box((0.4 * width, 0.18, 0.015), (0, 0, 0.0075), frame))
    add(box((0.06, 0.03, lift + 0.1), (0, -0.03, lift / 2 + 0.05), frame))
    add(box((width, 0.04, height), (0, -0.005, lift + height / 2), frame))
    glass = (width - 0.01, 0.01, height - 0.01)
    add(panel(glass, (0, 0.018, lift + height / 2), palette.screen(rng)))
    return made


def wall_screen(rng: Rng) -> Assembly:
    """Return a flat television for the wall; its back is at y = 0."""
    width = rng.uniform(0.7, 1.3)
    height = 0.57 * width
    case = box((width, 0.06, height), (0, 0.03, height / 2), palette.metal(rng))
    glass = (width - 0.015, 0.008, height - 0.015)
    return piece('tv', case, panel(glass, (0, 0.062, height / 2), palette.screen(rng)))


def picture(rng: Rng) -> Assembly:
    """Return a framed picture for the wall; its back is at y = 0."""
    made, add = begin('picture')
    width, height = rng.uniform(0.25, 1.0), rng.uniform(0.25, 0.8)
    rim = rng.uniform(0.015, 0.05)
    frame = palette.wood_or_paint(rng)
    add(panel((width - rim, 0.012, height - rim), (0, 0.012, height / 2), palette.art(rng)))
    if rng.random() < 0.85:
        for side in (-1, 1):
            add(box((rim, 0.03, height), (side * (width - rim) / 2, 0.015, height / 2), frame))
            z = height / 2 + side * (height - rim) / 2
            add(box((width, 0.031, rim), (0, 0.0155, z), frame))
    return made


def laptop(rng: Rng) -> Assembly:
    """Return an open laptop; a household object, not a television."""
    case = box((0.34, 0.23, 0.018), (0, 0, 0.009), palette.metal(rng))
    lid = panel((0.34, 0.01, 0.22), (0, 0, 0.11), palette.screen(rng))
    lid = lid.moved(tilt_matrix(rng.uniform(0.1, 0.5)), np.array([0, -0.115, 0.018]))
    return piece('objects', case, lid)


def small_thing(rng: Rng) -> Assembly:
    """Return one of the things that stand on tables and shelves."""
    makers: list[Callable[[Rng], Assembly]] = [vase, book_stack, plant, vase, table_lamp, laptop]
    pick = rng.random()
    if pick < 0.2:
        return crate(rng, 0.22)
    return makers[int(rng.integers(len(makers)))](rng)


def scatter(
    made: Assembly,
    rng: Rng,
    area: tuple[float, float, float, float],
    z: float,
    count: int,
    tallest: float = 1.0,
    makers: Sequence[Callable[[Rng], Assembly]] = (),
) -> None:
    """Put small things onto a surface at height ``z`` without overlap.

    Args:
        made: Assembly the things are added to.
        rng: Random numbers.
        area: x0, y0, x1, y1 of the free surface in metres.
        z: Height of the surface.
        count: How many things to try.
        tallest: Things higher than this are left out (the height of a shelf).
        makers: What to choose from; default ``small_thing``.
    """
    taken: list[np.ndarray] = []
    for _ in range(count):
        maker = small_thing if not makers else makers[int(rng.integers(len(makers)))]
        thing = maker(rng)
        turned = Assembly()
        turned.merge(thing, yaw=rng.uniform(-0.6, 0.6))
        low, high = turned.bounds()
        size = high - low
        room = np.array([area[2] - area[0], area[3] - area[1]])
        if size[2] > tallest or (size[:2] > room).any():
            continue
        for _ in range(6):
            corner = np.array(area[:2]) + rng.random(2) * (room - size[:2])
            rect = np.concatenate([corner, corner + size[:2]])
            if all(
                rect[0] > other[2] or rect[2] < other[0] or rect[1] > other[3] or rect[3] < other[1]
                for other in taken
            ):
                taken.append(rect)
                made.merge(turned, (*(corner - low[:2]), z + 0.001))
                break


def _legs(
    add: Adder, rng: Rng, size: tuple[float, float], height: float, material: Material
) -> None:
    """Add four legs, straight or splayed, round or square, under a rectangle of this size."""
    thick = rng.uniform(0.03, 0.07) if height > 0.3 else rng.uniform(0.025, 0.05)
    inset = thick / 2 + rng.uniform(0, 0.03)
    splay = rng.choice([0.0, 0.0, 0.06]) * height
    round_legs = rng.random() < 0.4 or splay > 0
    for sx in (-1, 1):
        for sy in (-1, 1):
            x, y = sx * (size[0] / 2 - inset), sy * (size[1] / 2 - inset)
            if round_legs:
                top = (x - sx * splay, y - sy * splay, height)
                add(rod((x, y, 0), top, thick / 2, material))
            else:
                add(box((thick, thick, height), (x, y, height / 2), material))


def table(rng: Rng, width: float, depth: float, height: float, items: int = 4) -> Assembly:
    """Return a rectangular or round table with things on it."""
    made, add = begin('table')
    top = palette.wood_or_paint(rng)
    leg = top if rng.random() < 0.6 else palette.metal(rng)
    thick = rng.uniform(0.02, 0.05)
    if rng.random() < 0.2 and abs(width - depth) < 0.5:
        radius = depth / 2
        add(cylinder(radius, thick, (0, 0, height - thick), top))
        add(cylinder(0.05, height - thick, (0, 0, 0), leg))
        add(cylinder(0.5 * radius, 0.03, (0, 0, 0), leg))
        reach = 0.6 * radius
        area = (-reach, -reach, reach, reach)
    else:
        add(box((width, depth, thick), (0, 0, height - thick / 2), top))
        _legs(add, rng, (width, depth), height - thick, leg)
        if rng.random() < 0.5:
            z = height - thick - 0.035
            for side in (-1, 1):
                add(box((width - 0.12, 0.02, 0.07), (0, side * (depth / 2 - 0.05), z), leg))
                add(box((0.02, depth - 0.12, 0.07), (side * (width / 2 - 0.05), 0, z), leg))
        area = (-width / 2 + 0.03, -depth / 2 + 0.03, width / 2 - 0.03, depth / 2 - 0.03)
    scatter(made, rng, area, height, items)
    return made


def desk(rng: Rng) -> Assembly:
    """Return a desk with drawers, screen, lamp and papers; its back is at the low-y side."""
    made, add = begin('table')
    width, depth, height = rng.uniform(1.0, 1.7), rng.uniform(0.55, 0.8), rng.uniform(0.71, 0.77)
    wood = palette.wood_or_paint(rng)
    thick = rng.uniform(0.02, 0.04)
    add(box((width, depth, thick), (0, 0, height - thick / 2), wood))
    if rng.random() < 0.6:
        side = rng.choice([-1, 1])
        block = rng.uniform(0.35, 0.45)
        x = side * (width / 2 - block / 2)
        body = height - thick
        add(box((block, depth - 0.04, body), (x, 0, body / 2), wood))
        front, knob = palette.wood_or_paint(rng), palette.metal(rng)
        rows = int(rng.integers(2, 4))
        for row in range(rows):
            z = (row + 0.5) * body / rows
            add(box((block - 0.03, 0.02, body / rows - 0.02), (x, depth / 2 - 0.015, z), front))
            add(box((0.1, 0.02, 0.014), (x, depth / 2 + 0.005, z), knob))
        add(box((0.03, depth - 0.04, body), (-side * (width / 2 - 0.015), 0, body / 2), wood))
    else:
        _legs(add, rng, (width, depth), height - thick, palette.metal(rng))
    x = rng.uniform(-0.15, 0.15) * width
    screen = monitor(rng)
    made.merge(screen, (x, -depth / 2 + 0.14, height + 0.001), rng.normal(0, 0.12))
    add_keys = made.thing('objects')
    add_keys(box((0.42, 0.14, 0.02), (x, 0.12, height + 0.011), palette.paint(rng)))
    half = 0.36
    for low, high in ((-width / 2 + 0.02, x - half), (x + half, width / 2 - 0.02)):
        if high - low > 0.15:
            scatter(made, rng, (low, -depth / 2 + 0.02, high, depth / 2 - 0.03), height, 3)
    return made


def chair(rng: Rng) -> Assembly:
    """Return a chair; the sitter looks towards +y."""
    made, add = begin('chair')
    width, depth, seat = rng.uniform(0.4, 0.5), rng.uniform(0.4, 0.5), rng.uniform(0.43, 0.48)
    back = rng.uniform(0.38, 0.55)
    if rng.random() < 0.3:
        return _office_chair(rng, width, depth, seat, back)
    frame = palette.wood_or_paint(rng) if rng.random() < 0.75 else palette.metal(rng)
    thick = rng.uniform(0.025, 0.04)
    padded = rng.random() < 0.4
    add(box((width, depth, thick), (0, 0, seat - thick / 2), frame))
    if padded:
        pad = (width - 0.03, depth - 0.03, 0.05)
        add(cushion(pad, (0, 0, seat + 0.02), 0.024, palette.cloth(rng)))
    _legs(add, rng, (width, depth), seat - thick, frame)
    y = -depth / 2 + 0.015
    pick = rng.random()
    lean = tilt_matrix(rng.uniform(0.05, 0.2))
    parts = []
    for side in (-1, 1):
        x = side * (width / 2 - 0.02)
        parts.append(box((0.032, 0.03, back), (x, 0, back / 2), frame))
    if pick < 0.35:
        for row in range(int(rng.integers(2, 5))):
            z = back - 0.05 - row * 0.11
            parts.append(box((width - 0.06, 0.018, 0.055), (0, 0, z), frame))
    elif pick < 0.6:
        parts.append(box((width - 0.04, 0.025, 0.06), (0, 0, back - 0.03), frame))
        for bar in np.linspace(-0.3, 0.3, int(rng.integers(3, 6))):
            parts.append(box((0.02, 0.016, back - 0.05), (bar * width, 0, back / 2), frame))
    else:
        cover = palette.cloth(rng) if padded else frame
        parts.append(cushion((width - 0.02, 0.05, 0.75 * back), (0, 0, 0.62 * back), 0.02, cover))
    add(*(part.moved(lean, np.array([0, y, seat])) for part in parts))
    return made


def _office_chair(rng: Rng, width: float, depth: float, seat: float, back: float) -> Assembly:
    made, add = begin('chair')
    cover, frame = palette.cloth(rng), palette.metal(rng)
    add(cushion((width, depth, 0.09), (0, 0, seat), 0.04, cover))
    add(cylinder(0.03, seat - 0.1, (0, 0, 0.06), frame))
    for k in range(5):
        angle = 2 * np.pi * k / 5 + 0.3
        end = (0.28 * np.cos(angle), 0.28 * np.sin(angle), 0.05)
        add(rod((0, 0, 0.09), end, 0.02, frame))
        add(ellipsoid((0.05, 0.05, 0.05), (end[0], end[1], 0.026), frame))
    rest = cushion((width - 0.04, 0.07, back), (0, 0, back / 2 + 0.1), 0.033, cover)
    lean = tilt_matrix(rng.uniform(0.05, 0.25))
    add(rest.moved(lean, np.array([0, -depth / 2 + 0.02, seat])))
    add(rod((0, -depth / 4, seat - 0.03), (0, -depth / 2 - 0.02, seat + 0.25), 0.02, frame))
    if rng.random() < 0.6:
        for side in (-1, 1):
            x = side * (width / 2 + 0.02)
            add(box((0.05, 0.25, 0.03), (x, 0, seat + 0.2), frame))
            add(rod((x, 0, seat), (x, 0, seat + 0.19), 0.014, frame))
    return made


def sofa(rng: Rng, wide: float | None = None, name: str = 'sofa') -> Assembly:
    """Return a sofa (or an armchair, ``name`` = 'chair'), ``wide`` metres across, with pillows."""
    made, add = begin(name)
    width = rng.uniform(1.4, 2.3) if wide is None else wide
    depth, seat = rng.uniform(0.78, 0.98), rng.uniform(0.38, 0.46)
    back, arm = rng.uniform(0.7, 0.92), rng.uniform(0.52, 0.66)
    side, rear = rng.uniform(0.1, 0.22), rng.uniform(0.14, 0.22)
    cover = palette.cloth(rng)
    soft = palette.cloth(rng) if rng.random() < 0.25 else cover
    radius = rng.uniform(0.03, 0.07)
    foot = rng.uniform(0.04, 0.12)
    _legs(add, rng, (width - 0.06, depth - 0.06), foot + 0.02, palette.wood(rng))
    base = seat - 0.14
    add(cushion((width - 0.02, depth, base - foot), (0, 0, (base + foot) / 2), 0.02, cover))
    behind = (0, -depth / 2 + rear / 2, (back + foot) / 2)
    add(cushion((width, rear, back - foot), behind, radius, cover))
    for sign in (-1, 1):
        x = sign * (width / 2 - side / 2)
        add(cushion((side, depth, arm - foot), (x, 0, (arm + foot) / 2), radius, cover))
    inner = width - 2 * side
    count = max(1, round(inner / rng.uniform(0.55, 0.8)))
    each = inner / count
    for k in range(count):
        x = -inner / 2 + (k + 0.5) * each
        size = (each - 0.005, depth - rear - 0.01, 0.16)
        add(cushion(size, (x, rear / 2, seat - 0.07), 0.04, soft))
        size = (each - 0.01, 0.16, back - seat + 0.04)
        rest = cushion(size, (0, 0, (back - seat) / 2), 0.06, soft)
        add(rest.moved(tilt_matrix(0.18), np.array([x, -depth / 2 + rear + 0.07, seat + 0.01])))
    for _ in range(int(rng.integers(0, count + 2))):
        side = rng.uniform(0.32, 0.45)
        (shape,) = pillow(rng, side, side).shapes
        leaning = piece('objects', shape.moved(tilt_matrix(np.pi / 2 + 0.35), np.zeros(3)))
        x = rng.uniform(-0.45, 0.45) * max(inner - side, 0.02)
        low = leaning.bounds()[0]
        made.merge(leaning, (x, -depth / 2 + rear + 0.24, seat + 0.02 - low[2]))
    return made


def bed(rng: Rng) -> Assembly:
    """Return a bed, its head at the low-y side."""
    made, add = begin('bed')
    width = float(rng.choice([0.95, 1.4, 1.65])) + rng.uniform(-0.05, 0.05)
    length, seat = rng.uniform(1.95, 2.1), rng.uniform(0.42, 0.62)
    wood = palette.wood_or_paint(rng)
    rail = rng.uniform(0.18, 0.28)
    lift = rng.uniform(0.05, 0.14)
    _legs(add, rng, (width, length), lift + 0.02, wood)
    add(box((width, length, rail), (0, 0, lift + rail / 2), wood))
    low = lift + rail - 0.04
    sheet = palette.cloth(rng, 0.3)
    add(cushion((width - 0.05, length - 0.05, seat - low), (0, 0, (seat + low) / 2), 0.05, sheet))
    head = rng.uniform(0.75, 1.2)
    if rng.random() < 0.5:
        add(box((width + 0.04, 0.05, head), (0, -length / 2 - 0.02, head / 2), wood))
    else:
        pad = palette.cloth(rng)
        size = (width + 0.06, 0.1, head - 0.1)
        add(cushion(size, (0, -length / 2 - 0.03, head / 2 + 0.05), 0.04, pad))
    cover = palette.cloth(rng)
    share = rng.uniform(0.5, 0.78)
    reach = share * length
    drop = rng.uniform(0.1, 0.3)
    y, z = length / 2 - reach / 2 + 0.015, seat + 0.02 - drop / 2
    add(cushion((width + 0.03, reach, 0.07), (0, y, seat + 0.005), 0.033, cover))
    for side in (-1, 1):
        x = side * (width / 2 + 0.005)
        add(cushion((0.035, reach, drop), (x, y, z), 0.017, cover))
    add(cushion((width + 0.03, 0.035, drop), (0, length / 2 + 0.01, z), 0.017, cover))
    count = 1 if width < 1.2 else 2
    for k in range(count):
        x = 0.0 if count == 1 else (k - 0.5) * width * 0.48
        soft = pillow(rng, min(0.6, 0.42 * width + 0.15), 0.4)
        made.merge(soft, (x, -length / 2 + 0.3, seat + 0.002), rng.normal(0, 0.08))
    return made


def cabinet(
    rng: Rng, width: float, depth: float, height: float, items: int = 3, drawers: bool | None = None
) -> Assembly:
    """Return a cabinet, chest of drawers or wardrobe, with things on top if it is low."""
    made, add = begin('furniture')
    body = palette.wood_or_paint(rng)
    front = body if rng.random() < 0.6 else palette.wood_or_paint(rng)
    knob = palette.metal(rng)
    foot = rng.choice([0.0, 0.06, 0.12])
    if foot:
        _legs(add, rng, (width, depth), foot, palette.wood(rng))
    add(box((width, depth, height - foot), (0, 0, (height + foot) / 2), body))
    face = depth / 2 + 0.009
    if drawers is None:
        drawers = rng.random() < 0.5 and height < 1.3
    tall = height - foot
    columns = max(1, round(width / rng.uniform(0.4, 0.75)))
    rows = max(1, round(tall / rng.uniform(0.2, 0.32))) if drawers else 1
    for column in range(columns):
        for row in range(rows):
            wide, high = width / columns, tall / rows
            x, z = -width / 2 + (column + 0.5) * wide, foot + (row + 0.5) * high
            add(box((wide - 0.015, 0.018, high - 0.015), (x, face, z), front))
            if drawers:
                add(box((0.12, 0.02, 0.014), (x, face + 0.018, z), knob))
            else:
                side = 1 if column % 2 == 0 else -1
                add(box((0.014, 0.02, 0.14), (x + side * (wide / 2 - 0.05), face + 0.018, z), knob))
    if height < 1.4 and items:
        area = (-width / 2 + 0.02, -depth / 2 + 0.02, width / 2 - 0.02, depth / 2 - 0.02)
        scatter(made, rng, area, height, items)
    return made


def bookcase(rng: Rng, width: float, depth: float, height: float) -> Assembly:
    """Return an open shelf with books and things."""
    made, add = begin('furniture')
    wood = palette.wood_or_paint(rng)
    board = rng.uniform(0.018, 0.03)
    for side in (-1, 1):
        add(box((board, depth, height), (side * (width - board) / 2, 0, height / 2), wood))
    if rng.random() < 0.8:
        add(box((width - 2 * board, 0.01, height), (0, -depth / 2 + 0.005, height / 2), wood))
    shelves = max(2, round(height / rng.uniform(0.3, 0.42)))
    inner = width - 2 * board
    for k in range(shelves + 1):
        z = board / 2 + k * (height - board) / shelves
        add(box((inner, depth - 0.002, board), (0, 0, z), wood))
        if k == shelves:
            break
        clear = (height - board) / shelves - board
        floor = z + board / 2 + 0.001
        pick = rng.random()
        if pick < 0.68:
            made.merge(book_row(rng, inner - 0.02, clear, depth - 0.02), (0, 0, floor))
        elif pick < 0.92:
            area = (-inner / 2 + 0.01, -depth / 2 + 0.02, inner / 2 - 0.01, depth / 2 - 0.01)
            scatter(made, rng, area, floor, 4, clear - 0.01)
    if height < 1.4:
        area = (-inner / 2, -depth / 2 + 0.02, inner / 2, depth / 2 - 0.02)
        scatter(made, rng, area, height, 3)
    return made


def wall_shelf(rng: Rng) -> Assembly:
    """Return a board with books for the wall; its back is at y = 0."""
    made, add = begin('furniture')
    width, depth = rng.uniform(0.6, 1.3), rng.uniform(0.2, 0.28)
    add(box((width, depth, 0.025), (0, depth / 2, 0.0125), palette.wood_or_paint(rng)))
    if rng.random() < 0.7:
        made.merge(book_row(rng, width - 0.04, 0.3, depth - 0.02), (0, depth / 2, 0.026))
    else:
        area = (-width / 2 + 0.02, 0.02, width / 2 - 0.02, depth - 0.02)
        scatter(made, rng, area, 0.025, 4, 0.4)
    return made


def television_bench(rng: Rng) -> Assembly:
    """Return a low cabinet with a television on it."""
    width, depth, height = rng.uniform(1.1, 1.8), rng.uniform(0.38, 0.5), rng.uniform(0.4, 0.6)
    made = cabinet(rng, width, depth, height, items=0, drawers=rng.random() < 0.5)
    made.merge(monitor(rng, rng.uniform(0.65, min(1.2, width - 0.1))), (0, 0, height + 0.001))
    return made


def rug(rng: Rng, width: float, depth: float) -> Assembly:
    """Return a rug; a part of the floor to the labels, as in NYUv2 (floor mat)."""
    shape = panel((width, depth, 0.012), (0, 0, 0.006), palette.rug(rng), lying=True)
    return piece('floor', shape)


def curtain(rng: Rng, width: float, height: float, cover: Material) -> Assembly:
    """Return a gathered curtain in folds; part of the window to the labels, as in NYUv2."""
    made, add = begin('window')
    folds = max(3, round(width / 0.07))
    for k in range(folds):
        x = -width / 2 + (k + 0.5) * width / folds
        deep = rng.uniform(0.04, 0.075)
        size = (width / folds * 1.15, deep, height)
        centre = (x, 0.05 + rng.uniform(-0.006, 0.006), height / 2)
        add(cushion(size, centre, 0.49 * deep, cover))
    return made


def ceiling_lamp(rng: Rng, drop: float, lit: bool) -> Assembly:
    """Return a ceiling lamp; z = 0 is the ceiling, it hangs ``drop`` metres below."""
    radius = rng.uniform(0.14, 0.28)
    bulb = palette.bulb(lit)
    if drop < 0.12:
        profile = [(0.0, -0.09), (radius * 0.8, -0.08), (radius, -0.02), (radius, 0.0)]
        return piece('objects', lathe(profile, (0, 0, 0), bulb))
    rope = cylinder(0.008, drop - 0.1, (0, 0, -drop + 0.1), palette.metal(rng))
    outline = [(radius, -drop), (radius * rng.uniform(0.2, 0.8), -drop + 0.18)]
    shade = lathe(outline, (0, 0, 0), palette.paint(rng))
    return piece('objects', rope, shade, ellipsoid((0.12, 0.12, 0.14), (0, 0, -drop + 0.08), bulb))


def radiator(rng: Rng, width: float) -> Assembly:
    """Return a ribbed radiator; its back is at y = 0."""
    cover = palette.paint(rng, 0.1)
    height = rng.uniform(0.5, 0.62)
    places = (-width / 2 + 0.03 + 0.06 * k for k in range(int(width / 0.06)))
    ribs = [((0.05, 0.09, height), (x, 0.07, height / 2 + 0.1)) for x in places]
    return piece('objects', *(cushion(size, centre, 0.02, cover) for size, centre in ribs))
