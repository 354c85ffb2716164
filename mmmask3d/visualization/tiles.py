"""Pictures side by side, with titles, colour bars and a line of legend.

Everything is composed with numpy and Pillow: no display, no figure that could leak, and a pixel
of a small map is a block of pixels of the picture.
"""

import math
import os
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.ticker import MaxNLocator
from PIL import Image, ImageDraw, ImageFont

from mmmask3d.visualization.colours import colour_table, hatch

_BACKGROUND, _INK = (255, 255, 255), (34, 34, 34)
_FONT_SIZE = 15
_GAP, _TITLE_HEIGHT, _BAR_WIDTH, _BAR_LABELS = 10, 26, 16, 52
_SWATCH, _LINE = 14, 24  # side of a legend's colour, height of a line of legend
MIN_TILE_WIDTH = 256
"""Smaller pictures are enlarged by a whole number."""
MAX_TILE_WIDTH = 640
"""Larger pictures are reduced, so that a row of them fits on a screen."""

Legend = Sequence[tuple[np.ndarray, str]]
"""Colours, RGB uint8 (14, 14, 3), and what they mean."""


class Bar(NamedTuple):
    """A colour bar: its map, its limits and its unit."""

    cmap: str
    vmin: float
    vmax: float
    unit: str


class Tile(NamedTuple):
    """A picture with a title and, at the right, possibly a colour bar."""

    title: str
    image: np.ndarray
    bar: Bar | None = None


def swatch(colour: Sequence[int]) -> np.ndarray:
    """A square of one colour for a legend."""
    return np.full((_SWATCH, _SWATCH, 3), colour, np.uint8)


def hatch_swatch() -> np.ndarray:
    """A square of the hatch that marks pixels without a reading."""
    return hatch(_SWATCH, _SWATCH)


def compose_tiles(
    tiles: Sequence[Tile], columns: int, caption: str = '', legend: Legend = ()
) -> np.ndarray:
    """Lay tiles out row by row, with titles and colour bars, legend and caption below.

    Args:
        tiles: Of one size.
        columns: Tiles per row.
        caption: Text at the bottom right.
        legend: Explained colours, at the bottom left.

    Returns:
        RGB uint8 (H', W', 3).

    Raises:
        ValueError: The tiles differ in size.
    """
    if len({tile.image.shape for tile in tiles}) != 1:
        raise ValueError(f'tiles differ in size: {[tile.image.shape for tile in tiles]}')
    width, height = _shown_size(tiles[0].image)
    rows = [tiles[i : i + columns] for i in range(0, len(tiles), columns)]
    bar_space = _GAP + _BAR_WIDTH + _BAR_LABELS
    # Bars in the middle of a row need room there; a bar after the last tile stands in the margin.
    row_width = max(
        sum(width + _GAP + (bar_space if tile.bar else 0) for tile in row) for row in rows
    )
    lines = _legend_lines(legend, caption, row_width)
    footer = 6 + _LINE * len(lines) if lines else 0
    canvas = Image.new(
        'RGB',
        (row_width + _GAP, len(rows) * (height + _TITLE_HEIGHT) + footer + _GAP),
        _BACKGROUND,
    )
    draw = ImageDraw.Draw(canvas)
    for number, row in enumerate(rows):
        x, y = _GAP, number * (height + _TITLE_HEIGHT)
        for tile in row:
            title = shorten(tile.title, width)
            draw.text((x, y + _TITLE_HEIGHT - 5), title, _INK, font(), anchor='ls')
            picture = Image.fromarray(tile.image)
            if picture.size != (width, height):
                # These are drawn pictures, not depth: averaging them is what a screen does too.
                shrinks = width < picture.width
                picture = picture.resize(
                    (width, height), Image.Resampling.BOX if shrinks else Image.Resampling.NEAREST
                )
            canvas.paste(picture, (x, y + _TITLE_HEIGHT))
            x += width + _GAP
            if tile.bar:
                _draw_bar(draw, canvas, tile.bar, x, y + _TITLE_HEIGHT, height)
                x += bar_space
    y = len(rows) * (height + _TITLE_HEIGHT) + _GAP
    for line in lines:
        for x, sample, text in line:
            canvas.paste(Image.fromarray(sample), (x, y + 2))
            draw.text((x + _SWATCH + 6, y + 9), text, _INK, font(13), anchor='lm')
        y += _LINE
    if caption:
        start = max((_entry_end(x, text) for x, _, text in lines[-1]), default=0)
        text = shorten(caption, canvas.width - start - 2 * _GAP, 13)
        place = (canvas.width - _GAP, y - _LINE + 9)
        draw.text(place, text, _INK, font(13), anchor='rm')
    return np.asarray(canvas)


def _shown_size(image: np.ndarray) -> tuple[int, int]:
    """Width and height at which a picture is drawn."""
    height, width = image.shape[:2]
    if width > MAX_TILE_WIDTH:
        return MAX_TILE_WIDTH, max(1, round(height * MAX_TILE_WIDTH / width))
    factor = math.ceil(MIN_TILE_WIDTH / width)
    return width * factor, height * factor


def _draw_bar(
    draw: ImageDraw.ImageDraw, canvas: Image.Image, bar: Bar, x: int, y: int, height: int
) -> None:
    ramp = colour_table(bar.cmap)[np.linspace(255, 0, height).round().astype(int)]
    canvas.paste(Image.fromarray(ramp[:, None].repeat(_BAR_WIDTH, axis=1)), (x, y))
    ticks = MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]).tick_values(bar.vmin, bar.vmax)
    ticks = [t for t in ticks if bar.vmin <= t <= bar.vmax]
    step = ticks[1] - ticks[0] if len(ticks) > 1 else bar.vmax - bar.vmin
    digits = next(n for n in range(9) if n == 8 or abs(round(step, n) - step) < 1e-6 * step)
    for tick in ticks:
        at = y + (1 - (tick - bar.vmin) / (bar.vmax - bar.vmin)) * (height - 1)
        draw.line((x + _BAR_WIDTH, at, x + _BAR_WIDTH + 4, at), fill=_INK)
        # The outermost labels stay next to the bar instead of running into its title.
        text_at = min(max(at, y + 6), y + height - 6)
        text = f'{tick:.{digits}f}' + (' m' if bar.unit == 'm' else '')
        draw.text((x + _BAR_WIDTH + 7, text_at), text, _INK, font(13), anchor='lm')
    if bar.unit != 'm':
        draw.text((x, y - 5), bar.unit, _INK, font(13), anchor='ls')


def _legend_lines(
    legend: Legend, caption: str, width: int
) -> list[list[tuple[int, np.ndarray, str]]]:
    """Legend entries with their x, broken into lines; the last line has room for the caption."""
    lines: list[list[tuple[int, np.ndarray, str]]] = [[]] if legend or caption else []
    x = _GAP
    for picture, text in legend:
        if lines[-1] and _entry_end(x, text) > width:
            lines.append([])
            x = _GAP
        lines[-1].append((x, picture, text))
        x = _entry_end(x, text) + 22
    if legend and caption and x + font(13).getlength(caption) > width:
        lines.append([])
    return lines


def _entry_end(x: int, text: str) -> int:
    return x + _SWATCH + 6 + math.ceil(font(13).getlength(text))


def shorten(text: str, width: float, size: int = _FONT_SIZE) -> str:
    """Cut a text that is wider than ``width`` pixels and end it in an ellipsis."""
    if font(size).getlength(text) <= width:
        return text
    while text and font(size).getlength(text + '…') > width:
        text = text[:-1]
    return text + '…' if text else ''


@lru_cache(maxsize=4)
def font(size: int = _FONT_SIZE) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib brings along, so that no system font is needed."""
    return ImageFont.truetype(
        os.path.join(matplotlib.get_data_path(), 'fonts', 'ttf', 'DejaVuSans.ttf'), size
    )
