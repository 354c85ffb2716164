"""Random materials for the generated rooms.

Colours are drawn by what a surface is made of (wood, cloth, paint, metal), not by what the object
is: a sofa, a bedspread and a curtain share one distribution of cloths, so colour hints at a class
without giving it away.
"""

from __future__ import annotations

import colorsys

import numpy as np

from mmmask3d.conversion.rooms.shapes import Material

Rng = np.random.Generator
Colour = tuple[float, float, float]
#: A number; the ends of a range; or a list of which one is taken.
Drawn = float | tuple[float, float] | list[float]

# What surfaces look like apart from their colours; drawn from left to right.
_LOOKS: dict[str, tuple[str, Drawn, Drawn, Drawn, Drawn, Drawn]] = {
    # Texture, scale, amount, specular, shininess, infrared.
    'wood': ('wood', (0.06, 0.16), (0.4, 0.9), [0.0, 0.08, 0.2], (15, 60), (0.45, 0.75)),
    'paint': ('plain', 0.1, (0.2, 0.7), (0.0, 0.25), (15, 80), (0.4, 0.85)),
    'metal': ('plain', 0.1, 0.2, (0.3, 0.7), (30, 120), (0.08, 0.35)),
    'leather': ('plain', 0.05, 0.8, 0.25, 20.0, (0.15, 0.6)),
    'weave': ('weave', (0.008, 0.02), 0.8, 0.0, 30.0, 0.6),
    'stripes': ('stripes', (0.06, 0.2), (0.0, 1.0), 0.0, 30.0, 0.6),
    'plaid': ('plaid', (0.1, 0.25), (0.0, 1.0), 0.0, 30.0, 0.6),
    'dots': ('dots', (0.05, 0.14), (0.0, 1.0), 0.0, 30.0, 0.6),
    'ceramic': ('plain', (0.04, 0.12), (0.0, 1.0), (0.1, 0.5), (30, 120), (0.3, 0.85)),
    'leaf': ('leaf', 0.04, 0.5, 0.0, 30.0, 0.8),
    'cardboard': ('cover', 1.0, (0.0, 1.0), 0.0, 30.0, 0.75),
    'book': ('cover', 1.0, (0.0, 1.0), [0.0, 0.1], 30.0, (0.35, 0.9)),
    'paper': ('plain', 0.02, 0.5, 0.0, 30.0, 0.8),
    'art': ('art', 1.0, (0.0, 1.0), [0.0, 0.15], 60.0, (0.4, 0.8)),
    'screen': ('screen', 1.0, 0.1, 0.6, 150.0, (0.06, 0.2)),
    'lit screen': ('screen', 1.0, 0.9, 0.6, 150.0, (0.06, 0.2)),
    'rug': ('rug', 1.0, (0.0, 1.0), 0.0, 30.0, (0.35, 0.8)),
    'floor boards': ('planks', (0.08, 0.18), (0.4, 0.9), (0.05, 0.35), 40.0, (0.4, 0.65)),
    'floor tiles': ('tiles', (0.2, 0.5), (0.0, 1.0), (0.1, 0.4), 80.0, (0.4, 0.7)),
    'carpet': ('carpet', (0.01, 0.025), 0.8, 0.0, 30.0, (0.4, 0.75)),
    'marble': ('marble', (0.3, 0.8), 0.8, 0.4, 90.0, 0.55),
    'plaster': ('plaster', 0.02, (0.3, 1.0), 0.0, 30.0, 0.6),
    'wide stripes': ('stripes', (0.08, 0.25), (0.0, 1.0), 0.0, 30.0, 0.6),
    'wide dots': ('dots', (0.08, 0.2), (0.0, 1.0), 0.0, 30.0, 0.6),
    'bricks': ('bricks', 0.24, 0.8, 0.0, 30.0, 0.6),
    'panelling': ('planks', 0.12, 0.7, 0.0, 30.0, 0.6),
    'ceiling': ('plaster', 0.03, (0.2, 0.8), 0.0, 30.0, 0.75),
    'panels': ('tiles', 0.6, 0.2, 0.0, 30.0, 0.75),
    'lamp shade': ('weave', 0.01, 0.3, 0.0, 30.0, 0.7),
    'bulb': ('plain', 0.1, 0.0, 0.0, 30.0, 0.3),
    'glass': ('plain', 1.0, 0.0, 0.3, 200.0, 0.0),
}


def _draw(rng: Rng | None, value: Drawn) -> float:
    if isinstance(value, float | int) or rng is None:
        return value  # type: ignore[return-value]
    return rng.choice(value) if isinstance(value, list) else rng.uniform(*value)


def _material(
    rng: Rng | None,
    look: str,
    *colours: Colour,
    infrared: float | None = None,
    texture: str = '',
    emission: float = 0.0,
) -> Material:
    """A material of a look; where fewer than three colours are given, the last one is repeated."""
    kind, scale, amount, specular, shininess, own = _LOOKS[look]
    three = (*colours, *[colours[-1]] * (3 - len(colours)))
    return Material(
        texture or kind,
        three,
        _draw(rng, scale),
        _draw(rng, amount),
        _draw(rng, specular),
        _draw(rng, shininess),
        _draw(rng, own) if infrared is None else infrared,
        emission,
        glass=look == 'glass',
    )


def hsv(hue: float, saturation: float, value: float) -> Colour:
    """Return the sRGB colour of hue, saturation and value in [0, 1]."""
    return colorsys.hsv_to_rgb(hue % 1.0, min(max(saturation, 0), 1), min(max(value, 0), 1))


def shaded(colour: Colour, factor: float) -> Colour:
    """Return the colour made lighter or darker by ``factor``."""
    red, green, blue = (float(min(max(channel * factor, 0.0), 1.0)) for channel in colour)
    return red, green, blue


def any_colour(rng: Rng, vivid: float = 0.5) -> Colour:
    """Return a colour, often warm or blue; ``vivid`` in [0, 1] bounds the saturation."""
    hue = rng.choice([rng.random(), rng.uniform(0.0, 0.16), rng.uniform(0.52, 0.66)])
    return hsv(hue, vivid * rng.beta(1.5, 2.0) * 1.2, rng.uniform(0.2, 0.9))


def _wood_colour(rng: Rng) -> Colour:
    return hsv(rng.uniform(0.045, 0.105), rng.uniform(0.25, 0.7), rng.uniform(0.25, 0.82))


def wood(rng: Rng) -> Material:
    """Return wood, stained or natural."""
    base = _wood_colour(rng)
    return _material(rng, 'wood', base, shaded(base, rng.uniform(0.55, 0.8)), base)


def paint(rng: Rng, vivid: float = 0.45) -> Material:
    """Return painted wood or plastic: white, grey, black or a colour."""
    pick = rng.random()
    if pick < 0.35:
        colour = hsv(rng.random(), rng.uniform(0, 0.06), rng.uniform(0.75, 0.93))
    elif pick < 0.55:
        colour = hsv(rng.random(), rng.uniform(0, 0.08), rng.uniform(0.12, 0.5))
    else:
        colour = any_colour(rng, vivid)
    return _material(rng, 'paint', colour)


def wood_or_paint(rng: Rng) -> Material:
    """Return what furniture is made of: wood more often than paint."""
    return wood(rng) if rng.random() < 0.62 else paint(rng)


def metal(rng: Rng) -> Material:
    """Return metal: grey, black or brass; poor at returning the projector's light."""
    value = rng.choice([0.12, 0.3, 0.55, 0.7])
    colour = hsv(0.11, rng.choice([0.0, 0.03, 0.4], p=[0.5, 0.35, 0.15]), value)
    return _material(rng, 'metal', colour)


def cloth(rng: Rng, vivid: float = 0.6) -> Material:
    """Return cloth: plain weave, stripes, plaid or dots; sometimes leather."""
    first = any_colour(rng, vivid)
    second = any_colour(rng, vivid) if rng.random() < 0.4 else shaded(first, rng.uniform(0.5, 1.5))
    third = hsv(rng.random(), 0.05, rng.choice([0.15, 0.9]))
    infrared = rng.uniform(0.35, 0.9)
    pick = rng.random()
    if pick < 0.12:
        dark = hsv(rng.uniform(0.02, 0.1), rng.uniform(0.1, 0.7), rng.uniform(0.1, 0.5))
        return _material(rng, 'leather', dark)
    looks = ((0.62, 'weave'), (0.78, 'stripes'), (0.9, 'plaid'), (1.0, 'dots'))
    look = next(name for end, name in looks if pick < end)
    return _material(rng, look, first, second, third, infrared=infrared)


def ceramic(rng: Rng) -> Material:
    """Return glazed clay or plastic ware: any colour, shiny."""
    colour = any_colour(rng, 0.8)
    other = shaded(colour, rng.uniform(0.4, 1.5))
    texture = str(rng.choice(['plain', 'stripes', 'marble'], p=[0.6, 0.2, 0.2]))
    return _material(rng, 'ceramic', colour, other, texture=texture)


def leaves(rng: Rng) -> Material:
    """Return foliage."""
    green = hsv(rng.uniform(0.2, 0.4), rng.uniform(0.35, 0.8), rng.uniform(0.25, 0.6))
    return _material(rng, 'leaf', green, shaded(green, 0.6), green)


def cardboard(rng: Rng) -> Material:
    """Return cardboard or a painted crate."""
    if rng.random() < 0.4:
        return paint(rng, 0.7)
    brown = hsv(rng.uniform(0.06, 0.1), rng.uniform(0.35, 0.55), rng.uniform(0.5, 0.75))
    return _material(rng, 'cardboard', brown, shaded(brown, 1.25), shaded(brown, 0.6))


def book(rng: Rng) -> Material:
    """Return a book's cover, laid out in 0..1 coordinates."""
    colour, label = any_colour(rng, 0.9), any_colour(rng, 0.5)
    line = hsv(0.12, rng.uniform(0, 0.5), rng.choice([0.1, 0.85]))
    return _material(rng, 'book', colour, label, line)


def paper() -> Material:
    """Return the white of book pages."""
    return _material(None, 'paper', (0.88, 0.86, 0.8))


def art(rng: Rng) -> Material:
    """Return a print or painting, laid out in 0..1 coordinates."""
    return _material(rng, 'art', *(any_colour(rng, 0.9) for _ in range(3)))


def screen(rng: Rng) -> Material:
    """Return a screen, off or on; dark and shiny to the depth sensor."""
    lit = rng.random() < 0.4
    colours = ((0.06, 0.06, 0.07), any_colour(rng, 0.9), any_colour(rng, 0.6))
    infrared = rng.uniform(0.06, 0.2)
    emission = rng.uniform(0.4, 1.2) if lit else 0.0
    look = 'lit screen' if lit else 'screen'
    return _material(rng, look, *colours, infrared=infrared, emission=emission)


def rug(rng: Rng) -> Material:
    """Return a rug with a border, laid out in 0..1 coordinates."""
    return _material(rng, 'rug', *(any_colour(rng, 0.8) for _ in range(3)))


def floor(rng: Rng) -> Material:
    """Return a floor: planks, tiles, carpet or stone."""
    pick = rng.random()
    if pick < 0.5:
        base = _wood_colour(rng)
        return _material(rng, 'floor boards', base, shaded(base, 0.7), base)
    if pick < 0.75:
        base = hsv(rng.uniform(0.02, 0.15), rng.uniform(0, 0.3), rng.uniform(0.4, 0.85))
        grout = shaded(base, rng.choice([0.6, 1.2]))
        return _material(rng, 'floor tiles', base, grout, any_colour(rng, 0.3))
    if pick < 0.93:
        base = hsv(rng.random(), rng.uniform(0, 0.35), rng.uniform(0.25, 0.75))
        return _material(rng, 'carpet', base, shaded(base, 0.75), base)
    base = hsv(rng.uniform(0.05, 0.6), rng.uniform(0, 0.12), rng.uniform(0.45, 0.85))
    return _material(rng, 'marble', base, shaded(base, 0.7), base)


def wall(rng: Rng) -> Material:
    """Return a wall: plaster of a pale (rarely a strong) colour, wallpaper, bricks or panelling."""
    pick = rng.random()
    if rng.random() < 0.82:
        hue = rng.random() if rng.random() < 0.6 else rng.uniform(0.03, 0.16)
        base = hsv(hue, rng.uniform(0, 0.18), rng.uniform(0.68, 0.93))
    else:
        base = hsv(rng.random(), rng.uniform(0.15, 0.42), rng.uniform(0.35, 0.75))
    infrared = rng.uniform(0.55, 0.85)
    if pick < 0.68:
        return _material(rng, 'plaster', base, infrared=infrared)
    other = shaded(base, rng.uniform(0.75, 0.93))
    if pick < 0.9:
        look = 'wide stripes' if pick < 0.8 else 'wide dots'
        return _material(rng, look, base, other, infrared=infrared)
    if pick < 0.96:
        clay = hsv(rng.uniform(0.0, 0.08), rng.uniform(0.1, 0.55), rng.uniform(0.4, 0.85))
        mortar = hsv(0.1, 0.08, rng.uniform(0.5, 0.8))
        return _material(rng, 'bricks', clay, mortar, shaded(clay, 0.7), infrared=infrared)
    timber = _wood_colour(rng)
    return _material(rng, 'panelling', timber, shaded(timber, 0.75), timber)


def ceiling(rng: Rng) -> Material:
    """Return a ceiling: white or off-white, sometimes in square panels."""
    base = hsv(rng.uniform(0.05, 0.2), rng.uniform(0, 0.08), rng.uniform(0.8, 0.95))
    if rng.random() < 0.2:
        return _material(rng, 'panels', base, shaded(base, 0.8), base)
    return _material(rng, 'ceiling', base)


def lamp_shade(rng: Rng) -> Material:
    """Return a shade that glows a little."""
    base = hsv(rng.uniform(0.05, 0.15), rng.uniform(0.05, 0.35), rng.uniform(0.7, 0.95))
    return _material(rng, 'lamp shade', base, emission=rng.choice([0.0, 0.8, 1.6]))


def bulb(lit: bool) -> Material:
    """Return the luminous part of a lamp."""
    return _material(None, 'bulb', (1.0, 0.95, 0.86), emission=3.0 if lit else 0.0)


def glass() -> Material:
    """Return a window pane: shows the outdoors, returns nothing to the depth sensor."""
    return _material(None, 'glass', (0.8, 0.85, 0.9))
