"""Random materials for the generated rooms.

Colours are drawn by what a surface is made of (wood, cloth, paint, metal), not by what the object
is: a sofa, a bedspread and a curtain share one distribution of cloths, so colour hints at a class
without giving it away.
"""

from __future__ import annotations

import colorsys

import numpy as np

from mmmask3d.conversion.rooms.shapes import Material

Colour = tuple[float, float, float]


def hsv(hue: float, saturation: float, value: float) -> Colour:
    """Return the sRGB colour of hue, saturation and value in [0, 1]."""
    return colorsys.hsv_to_rgb(hue % 1.0, min(max(saturation, 0), 1), min(max(value, 0), 1))


def shaded(colour: Colour, factor: float) -> Colour:
    """Return the colour made lighter or darker by ``factor``."""
    return tuple(float(min(max(channel * factor, 0.0), 1.0)) for channel in colour)


def any_colour(rng: np.random.Generator, vivid: float = 0.5) -> Colour:
    """Return a colour, often warm or blue; ``vivid`` in [0, 1] bounds the saturation."""
    hue = rng.choice([rng.random(), rng.uniform(0.0, 0.16), rng.uniform(0.52, 0.66)])
    return hsv(hue, vivid * rng.beta(1.5, 2.0) * 1.2, rng.uniform(0.2, 0.9))


def _wood_colour(rng: np.random.Generator) -> Colour:
    return hsv(rng.uniform(0.045, 0.105), rng.uniform(0.25, 0.7), rng.uniform(0.25, 0.82))


def wood(rng: np.random.Generator) -> Material:
    """Return wood, stained or natural."""
    base = _wood_colour(rng)
    return Material(
        'wood',
        (base, shaded(base, rng.uniform(0.55, 0.8)), base),
        scale=rng.uniform(0.06, 0.16),
        amount=rng.uniform(0.4, 0.9),
        specular=rng.choice([0.0, 0.08, 0.2]),
        shininess=rng.uniform(15, 60),
        infrared=rng.uniform(0.45, 0.75),
    )


def paint(rng: np.random.Generator, vivid: float = 0.45) -> Material:
    """Return painted wood or plastic: white, grey, black or a colour."""
    pick = rng.random()
    if pick < 0.35:
        colour = hsv(rng.random(), rng.uniform(0, 0.06), rng.uniform(0.75, 0.93))
    elif pick < 0.55:
        colour = hsv(rng.random(), rng.uniform(0, 0.08), rng.uniform(0.12, 0.5))
    else:
        colour = any_colour(rng, vivid)
    return Material(
        'plain',
        (colour, colour, colour),
        scale=0.1,
        amount=rng.uniform(0.2, 0.7),
        specular=rng.uniform(0, 0.25),
        shininess=rng.uniform(15, 80),
        infrared=rng.uniform(0.4, 0.85),
    )


def wood_or_paint(rng: np.random.Generator) -> Material:
    """Return what furniture is made of: wood more often than paint."""
    return wood(rng) if rng.random() < 0.62 else paint(rng)


def metal(rng: np.random.Generator) -> Material:
    """Return metal: grey, black or brass; poor at returning the projector's light."""
    value = rng.choice([0.12, 0.3, 0.55, 0.7])
    colour = hsv(0.11, rng.choice([0.0, 0.03, 0.4], p=[0.5, 0.35, 0.15]), value)
    return Material(
        'plain',
        (colour, colour, colour),
        amount=0.2,
        specular=rng.uniform(0.3, 0.7),
        shininess=rng.uniform(30, 120),
        infrared=rng.uniform(0.08, 0.35),
    )


def cloth(rng: np.random.Generator, vivid: float = 0.6) -> Material:
    """Return cloth: plain weave, stripes, plaid or dots; sometimes leather."""
    first = any_colour(rng, vivid)
    second = any_colour(rng, vivid) if rng.random() < 0.4 else shaded(first, rng.uniform(0.5, 1.5))
    third = hsv(rng.random(), 0.05, rng.choice([0.15, 0.9]))
    infrared = rng.uniform(0.35, 0.9)
    pick = rng.random()
    if pick < 0.12:
        dark = hsv(rng.uniform(0.02, 0.1), rng.uniform(0.1, 0.7), rng.uniform(0.1, 0.5))
        return Material('plain', (dark,) * 3, 0.05, 0.8, 0.25, 20.0, rng.uniform(0.15, 0.6))
    if pick < 0.62:
        return Material(
            'weave', (first, second, third), rng.uniform(0.008, 0.02), 0.8, infrared=infrared
        )
    if pick < 0.78:
        return Material(
            'stripes',
            (first, second, third),
            rng.uniform(0.06, 0.2),
            rng.random(),
            infrared=infrared,
        )
    if pick < 0.9:
        return Material(
            'plaid', (first, second, third), rng.uniform(0.1, 0.25), rng.random(), infrared=infrared
        )
    return Material(
        'dots', (first, second, third), rng.uniform(0.05, 0.14), rng.random(), infrared=infrared
    )


def ceramic(rng: np.random.Generator) -> Material:
    """Return glazed clay or plastic ware: any colour, shiny."""
    colour = any_colour(rng, 0.8)
    other = shaded(colour, rng.uniform(0.4, 1.5))
    kind = rng.choice(['plain', 'stripes', 'marble'], p=[0.6, 0.2, 0.2])
    return Material(
        str(kind),
        (colour, other, other),
        rng.uniform(0.04, 0.12),
        rng.random(),
        specular=rng.uniform(0.1, 0.5),
        shininess=rng.uniform(30, 120),
        infrared=rng.uniform(0.3, 0.85),
    )


def leaves(rng: np.random.Generator) -> Material:
    """Return foliage."""
    green = hsv(rng.uniform(0.2, 0.4), rng.uniform(0.35, 0.8), rng.uniform(0.25, 0.6))
    return Material('leaf', (green, shaded(green, 0.6), green), 0.04, infrared=0.8)


def cardboard(rng: np.random.Generator) -> Material:
    """Return cardboard or a painted crate."""
    if rng.random() < 0.4:
        return paint(rng, 0.7)
    brown = hsv(rng.uniform(0.06, 0.1), rng.uniform(0.35, 0.55), rng.uniform(0.5, 0.75))
    return Material(
        'cover', (brown, shaded(brown, 1.25), shaded(brown, 0.6)), 1.0, rng.random(), infrared=0.75
    )


def book(rng: np.random.Generator) -> Material:
    """Return a book's cover, laid out in 0..1 coordinates."""
    colour, label = any_colour(rng, 0.9), any_colour(rng, 0.5)
    line = hsv(0.12, rng.uniform(0, 0.5), rng.choice([0.1, 0.85]))
    return Material(
        'cover',
        (colour, label, line),
        1.0,
        rng.random(),
        specular=rng.choice([0.0, 0.1]),
        infrared=rng.uniform(0.35, 0.9),
    )


def paper() -> Material:
    """Return the white of book pages."""
    return Material('plain', ((0.88, 0.86, 0.8),) * 3, 0.02, 0.5, infrared=0.8)


def art(rng: np.random.Generator) -> Material:
    """Return a print or painting, laid out in 0..1 coordinates."""
    colours = tuple(any_colour(rng, 0.9) for _ in range(3))
    return Material(
        'art',
        colours,
        1.0,
        rng.random(),
        specular=rng.choice([0.0, 0.15]),
        shininess=60.0,
        infrared=rng.uniform(0.4, 0.8),
    )


def screen(rng: np.random.Generator) -> Material:
    """Return a screen, off or on; dark and shiny to the depth sensor."""
    lit = rng.random() < 0.4
    colours = ((0.06, 0.06, 0.07), any_colour(rng, 0.9), any_colour(rng, 0.6))
    return Material(
        'screen',
        colours,
        1.0,
        0.9 if lit else 0.1,
        specular=0.6,
        shininess=150.0,
        infrared=rng.uniform(0.06, 0.2),
        emission=rng.uniform(0.4, 1.2) if lit else 0.0,
    )


def rug(rng: np.random.Generator) -> Material:
    """Return a rug with a border, laid out in 0..1 coordinates."""
    colours = tuple(any_colour(rng, 0.8) for _ in range(3))
    return Material('rug', colours, 1.0, rng.random(), infrared=rng.uniform(0.35, 0.8))


def floor(rng: np.random.Generator) -> Material:
    """Return a floor: planks, tiles, carpet or stone."""
    pick = rng.random()
    if pick < 0.5:
        base = _wood_colour(rng)
        return Material(
            'planks',
            (base, shaded(base, 0.7), base),
            rng.uniform(0.08, 0.18),
            rng.uniform(0.4, 0.9),
            specular=rng.uniform(0.05, 0.35),
            shininess=40.0,
            infrared=rng.uniform(0.4, 0.65),
        )
    if pick < 0.75:
        base = hsv(rng.uniform(0.02, 0.15), rng.uniform(0, 0.3), rng.uniform(0.4, 0.85))
        return Material(
            'tiles',
            (base, shaded(base, rng.choice([0.6, 1.2])), any_colour(rng, 0.3)),
            rng.uniform(0.2, 0.5),
            rng.random(),
            specular=rng.uniform(0.1, 0.4),
            shininess=80.0,
            infrared=rng.uniform(0.4, 0.7),
        )
    if pick < 0.93:
        base = hsv(rng.random(), rng.uniform(0, 0.35), rng.uniform(0.25, 0.75))
        return Material(
            'carpet',
            (base, shaded(base, 0.75), base),
            rng.uniform(0.01, 0.025),
            0.8,
            infrared=rng.uniform(0.4, 0.75),
        )
    base = hsv(rng.uniform(0.05, 0.6), rng.uniform(0, 0.12), rng.uniform(0.45, 0.85))
    return Material(
        'marble', (base, shaded(base, 0.7), base), rng.uniform(0.3, 0.8), 0.8, 0.4, 90.0, 0.55
    )


def wall(rng: np.random.Generator) -> Material:
    """Return a wall: plaster of a pale (rarely a strong) colour, wallpaper, bricks or panelling."""
    pick = rng.random()
    if rng.random() < 0.82:
        hue = rng.random() if rng.random() < 0.6 else rng.uniform(0.03, 0.16)
        base = hsv(hue, rng.uniform(0, 0.18), rng.uniform(0.68, 0.93))
    else:
        base = hsv(rng.random(), rng.uniform(0.15, 0.42), rng.uniform(0.35, 0.75))
    infrared = rng.uniform(0.55, 0.85)
    if pick < 0.68:
        return Material('plaster', (base,) * 3, 0.02, rng.uniform(0.3, 1), infrared=infrared)
    other = shaded(base, rng.uniform(0.75, 0.93))
    if pick < 0.8:
        return Material(
            'stripes',
            (base, other, other),
            rng.uniform(0.08, 0.25),
            rng.random(),
            infrared=infrared,
        )
    if pick < 0.9:
        return Material(
            'dots', (base, other, other), rng.uniform(0.08, 0.2), rng.random(), infrared=infrared
        )
    if pick < 0.96:
        clay = hsv(rng.uniform(0.0, 0.08), rng.uniform(0.1, 0.55), rng.uniform(0.4, 0.85))
        mortar = hsv(0.1, 0.08, rng.uniform(0.5, 0.8))
        return Material('bricks', (clay, mortar, shaded(clay, 0.7)), 0.24, 0.8, infrared=infrared)
    timber = _wood_colour(rng)
    return Material('planks', (timber, shaded(timber, 0.75), timber), 0.12, 0.7, infrared=0.6)


def ceiling(rng: np.random.Generator) -> Material:
    """Return a ceiling: white or off-white, sometimes in square panels."""
    base = hsv(rng.uniform(0.05, 0.2), rng.uniform(0, 0.08), rng.uniform(0.8, 0.95))
    if rng.random() < 0.2:
        return Material('tiles', (base, shaded(base, 0.8), base), 0.6, 0.2, infrared=0.75)
    return Material('plaster', (base,) * 3, 0.03, rng.uniform(0.2, 0.8), infrared=0.75)


def lamp_shade(rng: np.random.Generator) -> Material:
    """Return a shade that glows a little."""
    base = hsv(rng.uniform(0.05, 0.15), rng.uniform(0.05, 0.35), rng.uniform(0.7, 0.95))
    return Material(
        'weave', (base, base, base), 0.01, 0.3, infrared=0.7, emission=rng.choice([0.0, 0.8, 1.6])
    )


def bulb(lit: bool) -> Material:
    """Return the luminous part of a lamp."""
    white = (1.0, 0.95, 0.86)
    return Material('plain', (white,) * 3, 0.1, 0.0, infrared=0.3, emission=3.0 if lit else 0.0)


def glass() -> Material:
    """Return a window pane: shows the outdoors, returns nothing to the depth sensor."""
    return Material(
        'plain',
        ((0.8, 0.85, 0.9),) * 3,
        1.0,
        0.0,
        specular=0.3,
        shininess=200.0,
        infrared=0.0,
        glass=True,
    )
