"""Procedural textures of the generated rooms, evaluated per hit point with numpy.

Every texture maps surface coordinates to an albedo. All take the same arguments (n points each):
``u``, ``v`` (n,) coordinates in units of the material's scale; ``blur`` (n,) size of a pixel on the
surface in the same units, over which lines and edges are averaged so that far tiles do not alias;
``a``, ``b``, ``c`` (n, 3) linear colours; ``amount`` (n,) strength or variant; ``seed`` (n,) a
number in [0, 1) that is constant on one material. They return (n, 3) linear albedo, float32.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import cv2
import numpy as np

_TILE = 1024
_CELLS = 256


@cache
def _noise_tile() -> np.ndarray:
    """Return a periodic (1024, 1024) tile of smooth value noise in [0, 1], 4 pixels per cell."""
    lattice = np.random.default_rng(20230618).random((_CELLS, _CELLS), np.float32)
    padded = np.pad(lattice, 4, mode='wrap')
    scale = _TILE // _CELLS
    size = (padded.shape[1] * scale, padded.shape[0] * scale)
    tile = cv2.resize(padded, size, interpolation=cv2.INTER_CUBIC)[
        4 * scale : 4 * scale + _TILE, 4 * scale : 4 * scale + _TILE
    ]
    # One more row and column than a period, so that bilinear lookups never need to wrap.
    return np.ascontiguousarray(np.pad(tile, ((0, 1), (0, 1)), mode='wrap').clip(0, 1))


def noise(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Return smooth noise in [0, 1] whose features are about one unit large; (n,) float32."""
    scale = _TILE / _CELLS
    x = np.mod(u * scale, _TILE).astype(np.float32)
    y = np.mod(v * scale, _TILE).astype(np.float32)
    # cv2.remap refuses sides above 32767, so the points are laid out as a block of rows.
    columns = 256
    rows = -(-x.size // columns)
    maps = np.zeros((2, rows * columns), np.float32)
    maps[0, : x.size], maps[1, : y.size] = x, y
    block = maps.reshape(2, rows, columns)
    found = cv2.remap(_noise_tile(), block[0], block[1], cv2.INTER_LINEAR)
    return found.reshape(-1)[: x.size]


def fractal(u: np.ndarray, v: np.ndarray, octaves: int = 3) -> np.ndarray:
    """Return noise summed over octaves, in [0, 1]."""
    total, weight = np.zeros_like(u, dtype=np.float32), 0.0
    for octave in range(octaves):
        gain = 0.5**octave
        factor = 2.03**octave
        total += gain * noise(u * factor + 17.3 * octave, v * factor + 5.1 * octave)
        weight += gain
    return total / np.float32(weight)


def cell_hash(i: np.ndarray, j: np.ndarray, seed: np.ndarray) -> np.ndarray:
    """Return a random number in [0, 1) per integer cell (i, j) and seed; (n,) float32."""
    mixed = i.astype(np.int64).astype(np.uint32) * np.uint32(0x9E3779B1)
    mixed ^= j.astype(np.int64).astype(np.uint32) * np.uint32(0x85EBCA6B)
    mixed ^= (seed * 65536.0).astype(np.uint32) * np.uint32(0xC2B2AE35)
    mixed ^= mixed >> np.uint32(15)
    mixed *= np.uint32(0x2C1B3C6D)
    mixed ^= mixed >> np.uint32(12)
    mixed *= np.uint32(0x297A2D39)
    mixed ^= mixed >> np.uint32(15)
    return (mixed >> np.uint32(8)).astype(np.float32) / np.float32(1 << 24)


def _mix(a: np.ndarray, b: np.ndarray, t: np.ndarray) -> np.ndarray:
    return a + (b - a) * t[:, None]


def _inside(distance: np.ndarray, blur: np.ndarray) -> np.ndarray:
    """Return how much of a pixel of size ``blur`` lies at negative ``distance`` from an edge."""
    return np.clip(0.5 - distance / np.maximum(blur, 1e-4), 0.0, 1.0).astype(np.float32)


def _seam(coordinate: np.ndarray, width: float | np.ndarray, blur: np.ndarray) -> np.ndarray:
    """Return the share of the pixel covered by lines of ``width`` at every integer coordinate."""
    distance = np.abs(coordinate - np.round(coordinate))
    cover = _inside(distance - np.asarray(width) / 2, blur)
    # Beyond half a period the filter sees many lines: fade to their mean.
    far = np.clip(blur * 2 - 0.5, 0, 1)
    return cover * (1 - far) + np.float32(width) * far


def _band(coordinate: np.ndarray, share: np.ndarray | float, blur: np.ndarray) -> np.ndarray:
    """Return a square wave of period 1 that is 1 over ``share`` of the period."""
    distance = np.abs(coordinate - np.floor(coordinate) - 0.5)
    cover = _inside(distance - np.asarray(share) / 2, blur)
    far = np.clip(blur * 2 - 0.5, 0, 1)
    return (cover * (1 - far) + np.asarray(share) * far).astype(np.float32)


def _plain(u, v, blur, a, b, c, amount, seed):
    shade = 1 + amount * 0.25 * (fractal(u * 0.2 + seed * 90, v * 0.2) - 0.5)
    return a * shade[:, None]


def _plaster(u, v, blur, a, b, c, amount, seed):
    broad = noise(u * 0.08 + seed * 90, v * 0.08) - 0.5
    fine = (noise(u * 3, v * 3 + seed * 50) - 0.5) * np.clip(1.2 - blur * 3, 0, 1)
    return a * (1 + amount * (0.07 * broad + 0.14 * fine))[:, None]


def _grain(u, v, seed):
    warp = noise(u * 0.35 + seed * 70, v * 1.1)
    rings = 0.5 + 0.5 * np.sin(2 * np.pi * (v * 1.6 + 2.2 * warp))
    fibre = noise(u * 0.9 + seed * 30, v * 16)
    return (0.6 * rings + 0.4 * fibre).astype(np.float32)


def _wood(u, v, blur, a, b, c, amount, seed):
    return _mix(a, b, _grain(u, v, seed) * amount)


def _planks(u, v, blur, a, b, c, amount, seed):
    row = np.floor(v)
    along = u / 7 + cell_hash(row, row * 0, seed) * 3
    tint = cell_hash(row, np.floor(along), seed)
    colour = _mix(a, b, _grain(u * 0.6 + tint * 40, v * 1.5 + tint * 9, seed) * amount)
    colour = colour * (0.8 + 0.4 * tint * amount + 0.1)[:, None]
    seams = np.maximum(_seam(v, 0.035, blur), _seam(along, 0.006, blur / 7))
    return colour * (1 - 0.65 * seams)[:, None]


def _tiles(u, v, blur, a, b, c, amount, seed):
    i, j = np.floor(u), np.floor(v)
    tint = cell_hash(i, j, seed)
    checker = ((i + j) % 2) * (amount > 0.6)
    cloud = fractal(u * 2 + tint * 40, v * 2, 2) - 0.5
    colour = _mix(a, c, checker.astype(np.float32))
    colour = colour * (1 + 0.14 * (tint - 0.5) + 0.16 * cloud)[:, None]
    seams = np.maximum(_seam(u, 0.025, blur), _seam(v, 0.025, blur))
    return _mix(colour, b, seams)


def _bricks(u, v, blur, a, b, c, amount, seed):
    row = np.floor(v * 3)
    along = u + 0.5 * (row % 2)
    tint = cell_hash(np.floor(along), row, seed)
    colour = _mix(a, c, tint * amount) * (0.85 + 0.3 * fractal(u * 9, v * 9, 2))[:, None]
    seams = np.maximum(_seam(along, 0.045, blur), _seam(v * 3, 0.13, blur * 3))
    return _mix(colour, b, seams)


def _stripes(u, v, blur, a, b, c, amount, seed):
    colour = _mix(a, b, _band(u, 0.25 + 0.5 * seed, blur))
    return _mix(colour, c, _band(u * 3 + 0.25, 0.08, blur * 3) * (amount > 0.5))


def _plaid(u, v, blur, a, b, c, amount, seed):
    across, up = _band(u, 0.45, blur), _band(v, 0.45, blur)
    colour = _mix(a, b, 0.5 * across + 0.5 * up)
    thin = np.maximum(_band(u + 0.5, 0.08, blur), _band(v + 0.5, 0.08, blur))
    return _mix(colour, c, 0.7 * thin * (amount > 0.4))


def _weave(u, v, blur, a, b, c, amount, seed):
    near = np.clip(1.2 - blur * 3, 0, 1)
    thread = (np.sin(u * 2 * np.pi) * np.sin(v * 2 * np.pi)) * near
    broad = fractal(u * 0.03 + seed * 60, v * 0.03) - 0.5
    shade = 1 + amount * (0.22 * thread + 0.35 * broad)
    return _mix(a, b, np.clip(0.5 * thread, 0, 1)) * shade[:, None]


def _carpet(u, v, blur, a, b, c, amount, seed):
    near = np.clip(1.5 - blur, 0.15, 1)
    pile = (noise(u + seed * 80, v) - 0.5) * near
    broad = fractal(u * 0.05, v * 0.05 + seed * 40) - 0.5
    return (
        _mix(a, b, np.clip(0.3 + pile, 0, 1)) * (1 + amount * (0.7 * pile + 0.4 * broad))[:, None]
    )


def _dots(u, v, blur, a, b, c, amount, seed):
    shifted = u + 0.5 * (np.floor(v) % 2)
    x, y = shifted - np.floor(shifted) - 0.5, v - np.floor(v) - 0.5
    diamond = np.abs(x) * 1.2 + np.abs(y)
    disc = np.sqrt(x * x + y * y)
    distance = np.where(seed < 0.5, diamond, disc) - (0.16 + 0.16 * amount)
    return _mix(a, b, _inside(distance, blur))


def _marble(u, v, blur, a, b, c, amount, seed):
    warp = fractal(u * 0.7 + seed * 90, v * 0.7)
    veins = np.abs(noise(u * 0.9 + 2.2 * warp, v * 0.9 + 1.7 * warp + seed * 20) - 0.5) * 2
    return _mix(a, b, amount * np.clip(1 - veins * 3.5, 0, 1) ** 1.5)


def _leaf(u, v, blur, a, b, c, amount, seed):
    return _mix(a, b, noise(u + seed * 50, v * 2))


def _cover(u, v, blur, a, b, c, amount, seed):
    """Book cover or spine: a label band and a line, in 0..1 coordinates."""
    place = 0.55 + 0.25 * seed
    colour = _mix(a, b, _inside(np.abs(v - place) - 0.09, blur) * (amount > 0.35))
    line = np.minimum(np.abs(v - 0.12), np.abs(v - 0.93))
    return _mix(colour, c, _inside(line - 0.012, blur) * (amount > 0.5))


def _edge_of(u, v):
    return np.minimum(np.minimum(u, 1 - u), np.minimum(v, 1 - v))


def _rug(u, v, blur, a, b, c, amount, seed):
    edge = _edge_of(u, v)
    border = _inside(np.abs(edge - 0.07) - 0.025, blur)
    x, y = np.abs(u - 0.5), np.abs(v - 0.5)
    wave = 0.5 + 0.5 * np.cos(2 * np.pi * (x + y) * (3 + np.floor(seed * 5)))
    motif = np.where(amount > 0.5, _inside(0.5 - wave, blur * 8), _band(u * 9, 0.4, blur * 9))
    colour = _mix(_mix(a, b, motif * 0.8), c, border)
    return colour * (0.85 + 0.3 * noise(u * 160, v * 160))[:, None]


def _art(u, v, blur, a, b, c, amount, seed):
    """A framed print, in 0..1 coordinates: mount, then a landscape, colour fields or a blot."""
    hills = 0.35 + 0.3 * (fractal(u * 2 + seed * 90, u * 0 + seed * 30) - 0.3)
    front = 0.15 + 0.3 * (fractal(u * 3 + seed * 40, u * 0 + seed * 70) - 0.2)
    sky = a * (0.65 + 0.6 * v)[:, None]
    landscape = _mix(sky, b, _inside(v - hills, blur))
    landscape = _mix(landscape, c, _inside(v - front, blur))
    split_x, split_y = 0.25 + 0.5 * seed, 0.3 + 0.4 * ((seed * 7) % 1)
    fields = _mix(a, b, _inside(u - split_x, blur))
    fields = _mix(fields, c, _inside(v - split_y, blur) * ((seed * 13) % 1 > 0.3))
    lines = np.minimum(np.abs(u - split_x), np.abs(v - split_y))
    fields = fields * (1 - 0.8 * _inside(lines - 0.012, blur))[:, None]
    warp = fractal(u * 3 + seed * 60, v * 3)
    reach = np.hypot(u - 0.5, v - 0.5) + 0.5 * (warp - 0.5)
    blot = _mix(_mix(a, b, _inside(reach - 0.33, blur)), c, _inside(reach - 0.17, blur))
    picture = np.where((amount < 0.45)[:, None], landscape, blot)
    picture = np.where((amount > 0.75)[:, None], fields, picture)
    picture = picture * (0.8 + 0.4 * fractal(u * 8, v * 8 + seed * 9))[:, None]
    mount = _inside(_edge_of(u, v) - 0.09 * ((seed * 29) % 1 > 0.4), blur)
    return picture * (1 - mount)[:, None] + np.float32(0.75) * mount[:, None]


def _screen(u, v, blur, a, b, c, amount, seed):
    """A television or monitor, in 0..1 coordinates: off below amount 0.5, else showing windows."""
    rows = _band(v * 14, 0.45, blur * 14) * (noise(u * 20 + seed * 40, np.floor(v * 14)) > 0.45)
    inside = _inside(np.maximum(np.abs(u - 0.45) - 0.3, np.abs(v - 0.5) - 0.33), blur)
    shown = _mix(b * (0.5 + 0.6 * v)[:, None], c, inside)
    shown = shown * (1 - 0.6 * (rows * inside))[:, None]
    film = _mix(b, c, fractal(u * 2.5 + seed * 80, v * 2.5)) * (0.4 + v)[:, None]
    shown = np.where((seed < 0.5)[:, None], shown, film)
    colour = np.where((amount > 0.5)[:, None], shown, a)
    bezel = _inside(_edge_of(u, v) - 0.025, blur)
    return _mix(colour, np.full_like(a, 0.012), bezel)


TEXTURES: dict[str, Callable[..., np.ndarray]] = {
    texture.__name__.removeprefix('_'): texture
    for texture in (
        *(_plain, _plaster, _wood, _planks, _tiles, _bricks, _stripes, _plaid, _weave, _carpet),
        *(_dots, _marble, _leaf, _cover, _rug, _art, _screen),
    )
}


def outdoors(direction: np.ndarray, sky: np.ndarray, variant: np.ndarray) -> np.ndarray:
    """Return what is seen through a window: sky, a skyline of trees or houses, the ground.

    Args:
        direction: (n, 3) viewing directions, z up.
        sky: (3,) linear colour of the sky.
        variant: (4,) numbers in [0, 1) that pick the scenery.
    """
    heading = np.arctan2(direction[:, 1], direction[:, 0]).astype(np.float32)
    climb = direction[:, 2] / np.maximum(np.linalg.norm(direction[:, :2], axis=1), 1e-6)
    climb = climb.astype(np.float32)
    clouds = fractal(heading * 3 + variant[0] * 50, climb * 8 + variant[1] * 50)
    colour = sky[None] * (0.9 + 0.35 * np.clip(clouds - 0.45, 0, 1) * 3 - 0.2 * climb)[:, None]
    trees = 0.02 + 0.16 * fractal(heading * 6 + variant[2] * 50, heading * 0)
    block = np.floor(heading * 7 + variant[2] * 9)
    tall = cell_hash(block, block * 0, np.full_like(heading, variant[3]))
    houses = 0.03 + 0.3 * tall
    built = variant[3] > 0.5
    skyline = houses if built else trees
    shade = noise(heading * 60, climb * 60)
    panes = _band(climb * 30, 0.5, climb * 0 + 0.1) * _band(heading * 60, 0.5, climb * 0 + 0.1)
    green = np.array([0.10, 0.16, 0.05], np.float32) * (0.5 + shade)[:, None]
    brick = np.array([0.32, 0.27, 0.23], np.float32) * (0.5 + 0.7 * tall - 0.3 * panes)[:, None]
    colour = np.where((climb < skyline)[:, None], brick if built else green, colour)
    ground = np.array([0.16, 0.19, 0.10], np.float32) * (0.5 + 0.8 * shade)[:, None]
    return np.where((climb < -0.12)[:, None], ground, colour).astype(np.float32)
