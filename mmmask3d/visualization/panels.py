"""Pictures of masked RGB-D frames and what a network makes of them.

Everything is composed with numpy and Pillow: no display, no figure that could leak, and a pixel
of a map is a block of pixels of the picture.
"""

import math
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.ticker import MaxNLocator
from PIL import Image, ImageDraw, ImageFont

MASKED_GREY = (128, 128, 128)
"""Removed patches; no depth or error colour map used here contains it."""
INVALID_LIGHT, INVALID_DARK = (236, 236, 236), (176, 176, 176)
"""The two tones of the diagonal hatch that marks pixels without a reading."""
_HATCH_PERIOD = 8

_BACKGROUND, _INK = (255, 255, 255), (34, 34, 34)
_FONT_SIZE = 15
_GAP, _TITLE_HEIGHT, _BAR_WIDTH, _BAR_LABELS = 10, 26, 16, 52
_MIN_TILE_WIDTH = 256


def depth_to_rgb(
    depth: np.ndarray,
    valid: np.ndarray | None = None,
    vmin: float | None = None,
    vmax: float | None = None,
    cmap: str = 'turbo',
) -> np.ndarray:
    """Colour a map of depths (or errors); pixels without a reading are hatched.

    Args:
        depth: (H, W), any unit. Values outside ``vmin..vmax`` take the end colours.
        valid: bool (H, W), True where there is a reading; None: wherever ``depth`` is finite.
        vmin: Value of the lowest colour; None: the smallest valid value.
        vmax: Value of the highest colour; None: the largest valid value.
        cmap: Name of a matplotlib colour map.

    Returns:
        RGB uint8 (H, W, 3). NaN and inf count as not valid.
    """
    depth = np.asarray(depth, dtype=np.float64)
    valid = np.isfinite(depth) & (True if valid is None else np.asarray(valid, dtype=bool))
    readings = depth[valid]
    if vmin is None:
        vmin = float(readings.min()) if readings.size else 0.0
    if vmax is None:
        vmax = float(readings.max()) if readings.size else 1.0
    span = vmax - vmin if vmax > vmin else 1.0
    unit = np.clip((np.where(valid, depth, vmin) - vmin) / span, 0.0, 1.0)
    colours = _colour_table(cmap)[np.round(unit * 255).astype(np.int64)]
    return np.where(valid[..., None], colours, hatch(*depth.shape))


def hatch(height: int, width: int) -> np.ndarray:
    """Diagonal stripes that mark pixels without a reading, RGB uint8 (height, width, 3)."""
    stripe = (np.add.outer(np.arange(height), np.arange(width)) % _HATCH_PERIOD) < 2
    return np.where(stripe[..., None], INVALID_DARK, INVALID_LIGHT).astype(np.uint8)


def patch_mask_to_pixels(
    mask: np.ndarray, size: tuple[int, int], patch_size: int | tuple[int, int]
) -> np.ndarray:
    """Spread a mask over patches, bool (N,) row-major, to the pixels of a frame, bool (H, W).

    Raises:
        ValueError: If the frame is not cut into N such patches.
    """
    (h, w), (ph, pw) = size, _pair(patch_size)
    mask = np.asarray(mask, dtype=bool).reshape(-1)
    if h % ph or w % pw or mask.size != (h // ph) * (w // pw):
        raise ValueError(
            f'a mask of {mask.size} patches does not fit a frame of {h}x{w} pixels cut into '
            f'patches of {ph}x{pw}'
        )
    return mask.reshape(h // ph, w // pw).repeat(ph, axis=0).repeat(pw, axis=1)


def reconstruction_panel(
    rgb: np.ndarray,
    *,
    patch_size: int | tuple[int, int],
    depth: np.ndarray | None = None,
    valid: np.ndarray | None = None,
    pred_depth: np.ndarray | None = None,
    rgb_mask: np.ndarray | None = None,
    depth_mask: np.ndarray | None = None,
    pred_rgb: np.ndarray | None = None,
    unit: str = 'm',
    aligned: bool = False,
    paste_kept: bool = False,
    vmin: float | None = None,
    vmax: float | None = None,
    error_max: float | None = None,
    columns: int | None = None,
    caption: str = '',
) -> np.ndarray:
    """Draw one frame: what was given, what was predicted, what is true, and the difference.

    Tiles, as far as their maps are given: RGB, masked RGB, predicted RGB, masked depth, predicted
    depth, true depth, absolute error. The depth tiles share one colour scale; its bar and the
    error's are labelled in ``unit``. Removed patches are grey; pixels without a reading are
    hatched. The error is drawn on removed patches only, where it is evaluated: the network is
    not asked to repeat the kept ones, and they are grey there.

    Args:
        rgb: RGB uint8 (H, W, 3).
        patch_size: Side of a patch in pixels, or (height, width).
        depth: True depth (H, W).
        valid: bool (H, W); needed with ``depth``.
        pred_depth: Predicted depth (H, W), unit of ``depth``.
        rgb_mask: bool (N,), row-major, True = removed.
        depth_mask: bool (N,), row-major, True = removed.
        pred_rgb: Predicted RGB uint8 (H, W, 3).
        unit: ``'m'``, ``'relative'`` or another label of the depth scale.
        aligned: Whether the prediction was aligned to the truth; its title then says so.
        paste_kept: Show the kept readings in the prediction, as a user would do.
        vmin: Depth of the lowest colour; None: 1st percentile of the true depth.
        vmax: Depth of the highest colour; None: its 99th percentile.
        error_max: Error of the highest colour; None: a quarter of ``vmax - vmin``, which stays
            the same over the epochs of a training.
        columns: Tiles per row; None: one row of up to 3 tiles, else two rows.
        caption: Line under the tiles, such as the name of the frame.

    Returns:
        RGB uint8 (H', W', 3). Small frames are enlarged by a whole number.

    Raises:
        ValueError: If maps differ in size, do not fit the patches, or ``valid`` is missing.
    """
    size = rgb.shape[:2]
    for name, array in (
        ('depth', depth),
        ('valid', valid),
        ('pred_depth', pred_depth),
        ('pred_rgb', pred_rgb),
    ):
        if array is not None and array.shape[:2] != size:
            raise ValueError(f'{name} is {array.shape[:2]}, but rgb is {size} (height, width)')
    if depth is not None and valid is None:
        raise ValueError('depth needs valid, the map of pixels that carry a reading')

    tiles: list[_Tile] = [_Tile('RGB', rgb)]
    if rgb_mask is not None:
        removed_rgb = patch_mask_to_pixels(rgb_mask, size, patch_size)
        title = f'masked RGB ({removed_rgb.mean():.0%} removed)'
        tiles.append(_Tile(title, _grey_out(rgb, removed_rgb)))
    if pred_rgb is not None:
        tiles.append(_Tile('predicted RGB', pred_rgb))
    if depth is not None:
        tiles += _depth_tiles(
            np.asarray(depth, dtype=np.float64),
            np.asarray(valid, dtype=bool),
            None if pred_depth is None else np.asarray(pred_depth, dtype=np.float64),
            None if depth_mask is None else patch_mask_to_pixels(depth_mask, size, patch_size),
            unit,
            aligned,
            paste_kept,
            (vmin, vmax, error_max),
        )
    if columns is None:
        columns = len(tiles) if len(tiles) <= 3 else math.ceil(len(tiles) / 2)
    return _compose(tiles, columns, caption, legend=depth is not None)


def stack_panels(panels: Sequence[np.ndarray]) -> np.ndarray:
    """Put panels of any size under each other on a white sheet, RGB uint8.

    Raises:
        ValueError: If there is no panel.
    """
    if not panels:
        raise ValueError('a sheet needs at least one panel')
    width = max(panel.shape[1] for panel in panels)
    padded = [
        np.pad(p, ((0, 0), (0, width - p.shape[1]), (0, 0)), constant_values=255) for p in panels
    ]
    return np.concatenate(padded)


def write_png(path: str | os.PathLike, image: np.ndarray) -> Path:
    """Write an RGB uint8 picture; folders are made as needed.

    Raises:
        OSError: If the file cannot be written (``cv2.imwrite`` would only return False).
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, format='PNG')
    return path


class _Bar:
    """A colour bar: its map, its limits and its unit."""

    def __init__(self, cmap: str, vmin: float, vmax: float, unit: str) -> None:
        self.cmap, self.vmin, self.vmax, self.unit = cmap, vmin, vmax, unit


class _Tile:
    """A picture with a title and, at the right, possibly a colour bar."""

    def __init__(self, title: str, image: np.ndarray, bar: _Bar | None = None) -> None:
        self.title, self.image, self.bar = title, image, bar


def _depth_tiles(
    depth: np.ndarray,
    valid: np.ndarray,
    pred_depth: np.ndarray | None,
    removed: np.ndarray | None,
    unit: str,
    aligned: bool,
    paste_kept: bool,
    limits: tuple[float | None, float | None, float | None],
) -> list[_Tile]:
    vmin, vmax, error_max = limits
    readings = depth[valid]
    if vmin is None:
        vmin = float(np.percentile(readings, 1)) if readings.size else 0.0
    if vmax is None:
        vmax = float(np.percentile(readings, 99)) if readings.size else 1.0
    if vmax <= vmin:
        vmax = vmin + 1e-3  # a flat frame still gets a scale
    if error_max is None:
        error_max = (vmax - vmin) / 4
    bar = _Bar('turbo', vmin, vmax, unit)

    def colour(values: np.ndarray, known: np.ndarray | None) -> np.ndarray:
        return depth_to_rgb(values, known, vmin, vmax, bar.cmap)

    tiles = []
    truth = colour(depth, valid)
    if removed is not None:
        title = f'masked depth ({removed.mean():.0%} removed)'
        tiles.append(_Tile(title, _grey_out(truth, removed), bar))
    if pred_depth is not None:
        shown, title = pred_depth, 'predicted depth'
        if paste_kept and removed is not None:
            shown, title = np.where(valid & ~removed, depth, pred_depth), title + ', kept pasted'
        tiles.append(_Tile(title + (' (aligned)' if aligned else ''), colour(shown, None)))
    tiles.append(_Tile('true depth', truth, None if removed is not None else bar))
    if pred_depth is not None:
        error = np.abs(pred_depth - np.where(valid, depth, np.nan))
        evaluated = valid if removed is None else valid & removed
        rmse = np.sqrt(np.mean(error[evaluated] ** 2)) if evaluated.any() else math.nan
        picture = depth_to_rgb(error, valid, 0.0, error_max, 'inferno')
        if removed is not None:
            picture = _grey_out(picture, ~removed)
        label = f' {unit}' if unit == 'm' else ''
        title = f'|error|, RMSE {rmse:.3g}{label}'
        tiles.append(_Tile(title, picture, _Bar('inferno', 0.0, error_max, unit)))
    return tiles


def _grey_out(image: np.ndarray, where: np.ndarray) -> np.ndarray:
    return np.where(where[..., None], np.uint8(MASKED_GREY), image).astype(np.uint8)


def _compose(tiles: list[_Tile], columns: int, caption: str, legend: bool) -> np.ndarray:
    """Lay tiles out row by row, with titles, colour bars, and a line of legend and caption."""
    height, width = tiles[0].image.shape[:2]
    factor = max(1, math.ceil(_MIN_TILE_WIDTH / width))
    height, width = height * factor, width * factor
    rows = [tiles[i : i + columns] for i in range(0, len(tiles), columns)]
    bar_space = _GAP + _BAR_WIDTH + _BAR_LABELS
    # Bars in the middle of a row need room there; a bar after the last tile stands in the margin.
    row_width = max(
        sum(width + _GAP + (bar_space if tile.bar else 0) for tile in row) for row in rows
    )
    footer = 30 if legend or caption else 0
    canvas = Image.new(
        'RGB',
        (row_width + _GAP, len(rows) * (height + _TITLE_HEIGHT) + footer + _GAP),
        _BACKGROUND,
    )
    draw = ImageDraw.Draw(canvas)
    for number, row in enumerate(rows):
        x, y = _GAP, number * (height + _TITLE_HEIGHT)
        for tile in row:
            title = _shorten(tile.title, width)
            draw.text((x, y + _TITLE_HEIGHT - 5), title, _INK, _font(), anchor='ls')
            picture = tile.image.repeat(factor, axis=0).repeat(factor, axis=1)
            canvas.paste(Image.fromarray(picture), (x, y + _TITLE_HEIGHT))
            x += width + _GAP
            if tile.bar:
                _draw_bar(draw, canvas, tile.bar, x, y + _TITLE_HEIGHT, height)
                x += bar_space
    if footer:
        y = len(rows) * (height + _TITLE_HEIGHT) + _GAP
        _draw_footer(draw, canvas, caption, y, legend)
    return np.asarray(canvas)


def _draw_bar(
    draw: ImageDraw.ImageDraw, canvas: Image.Image, bar: _Bar, x: int, y: int, height: int
) -> None:
    ramp = _colour_table(bar.cmap)[np.linspace(255, 0, height).round().astype(int)]
    canvas.paste(Image.fromarray(ramp[:, None].repeat(_BAR_WIDTH, axis=1)), (x, y))
    ticks = MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]).tick_values(bar.vmin, bar.vmax)
    ticks = [t for t in ticks if bar.vmin <= t <= bar.vmax]
    step = ticks[1] - ticks[0] if len(ticks) > 1 else bar.vmax - bar.vmin
    digits = next(n for n in range(9) if n == 8 or abs(round(step, n) - step) < 1e-6 * step)
    for tick in ticks:
        at = y + (1 - (tick - bar.vmin) / (bar.vmax - bar.vmin)) * (height - 1)
        draw.line((x + _BAR_WIDTH, at, x + _BAR_WIDTH + 4, at), fill=_INK)
        # The outermost labels stay beside the bar instead of running into its title.
        text_at = min(max(at, y + 6), y + height - 6)
        text = f'{tick:.{digits}f}' + (' m' if bar.unit == 'm' else '')
        draw.text((x + _BAR_WIDTH + 7, text_at), text, _INK, _font(13), anchor='lm')
    if bar.unit != 'm':
        draw.text((x, y - 5), bar.unit, _INK, _font(13), anchor='ls')


def _draw_footer(
    draw: ImageDraw.ImageDraw, canvas: Image.Image, caption: str, y: int, legend: bool
) -> None:
    x, side = _GAP, 14
    if legend:
        for swatch, label in (
            (
                np.full((side, side, 3), MASKED_GREY, np.uint8),
                'removed patch (under |error|: kept patch, not scored)',
            ),
            (hatch(side, side), 'no reading'),
        ):
            canvas.paste(Image.fromarray(swatch), (x, y + 2))
            draw.text((x + side + 6, y + 9), label, _INK, _font(13), anchor='lm')
            x += side + 6 + math.ceil(_font(13).getlength(label)) + 22
    text = _shorten(caption, canvas.width - x - _GAP, 13)
    draw.text((canvas.width - _GAP, y + 9), text, _INK, _font(13), anchor='rm')


def _shorten(text: str, width: float, size: int = _FONT_SIZE) -> str:
    """Cut a text that is wider than ``width`` pixels and end it in an ellipsis."""
    if _font(size).getlength(text) <= width:
        return text
    while text and _font(size).getlength(text + '…') > width:
        text = text[:-1]
    return text + '…' if text else ''


@lru_cache(maxsize=4)
def _font(size: int = _FONT_SIZE) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib brings along, so that no system font is needed."""
    return ImageFont.truetype(
        os.path.join(matplotlib.get_data_path(), 'fonts', 'ttf', 'DejaVuSans.ttf'), size
    )


@lru_cache(maxsize=8)
def _colour_table(cmap: str) -> np.ndarray:
    """The 256 colours of a matplotlib colour map, RGB uint8 (256, 3)."""
    return matplotlib.colormaps[cmap](np.arange(256), bytes=True)[:, :3].copy()


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))
