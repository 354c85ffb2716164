"""Pictures of masked RGB-D frames and of a network's predictions.

Everything is composed with numpy and Pillow: no display, no figure that could leak, and a pixel
of a map is a block of pixels of the picture.
"""

import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from mmmask3d.models.patches import grid_of, patch_mask_to_pixels
from mmmask3d.visualization.colours import depth_to_rgb
from mmmask3d.visualization.tiles import Bar, Tile, compose_tiles, hatch_swatch, swatch

MASKED_GREY = (128, 128, 128)
"""Removed patches; no depth or error colour map used here contains it."""


def reconstruction_panel(
    rgb: np.ndarray,
    *,
    patch_size: int,
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
    columns: int | None = None,
    caption: str = '',
) -> np.ndarray:
    """Draw one frame: what was given, what was predicted, what is true, and the difference.

    Tiles, as far as their maps are given: RGB, masked RGB (where something was removed), predicted
    RGB, masked depth (where something was kept), predicted depth, true depth, absolute error. The
    depth tiles share one colour scale; its bar and the error's are labelled in ``unit``. Removed
    patches are grey; pixels without a reading are hatched. The error is drawn on removed patches
    only, where it is evaluated: the network is not asked to repeat the kept ones, and they are grey
    there.

    Args:
        rgb: RGB uint8 (H, W, 3).
        patch_size: Side of a patch in pixels.
        depth: True depth (H, W).
        valid: bool (H, W); needed with ``depth``.
        pred_depth: Predicted depth (H, W), unit of ``depth``; without ``depth`` it has a colour
            scale of its own.
        rgb_mask: bool (N,), row-major, True = removed.
        depth_mask: bool (N,), row-major, True = removed.
        pred_rgb: Predicted RGB uint8 (H, W, 3).
        unit: ``'m'``, ``'relative'`` or another label of the depth scale.
        aligned: Whether the prediction was aligned to the truth; its title then says so.
        paste_kept: Show the kept readings in the prediction, as a user would do.
        vmin: Depth of the lowest colour; None: 1st percentile of the true depth.
        vmax: Depth of the highest colour; None: its 99th percentile.
        columns: Tiles per row; None: one row of up to 4 tiles, else two rows.
        caption: Line under the tiles, such as the name of the frame.

    Returns:
        RGB uint8 (H', W', 3). Small frames are enlarged by a whole number.

    Raises:
        ValueError: If maps differ in size, do not fit the patches, or ``valid`` is missing.
    """
    size = (rgb.shape[0], rgb.shape[1])
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

    tiles: list[Tile] = [Tile('RGB', rgb)]
    if rgb_mask is not None and rgb_mask.any():
        removed_rgb = _removed_pixels(rgb_mask, size, patch_size)
        title = f'masked RGB ({removed_rgb.mean():.0%} removed)'
        tiles.append(Tile(title, _grey_out(rgb, removed_rgb)))
    if pred_rgb is not None:
        tiles.append(Tile('predicted RGB', pred_rgb))
    if depth is not None:
        tiles += _depth_tiles(
            np.asarray(depth, dtype=np.float64),
            np.asarray(valid, dtype=bool),
            None if pred_depth is None else np.asarray(pred_depth, dtype=np.float64),
            None if depth_mask is None else _removed_pixels(depth_mask, size, patch_size),
            unit,
            aligned,
            paste_kept,
            (vmin, vmax),
        )
    elif pred_depth is not None:
        low, high = (float(v) for v in np.percentile(pred_depth, [1, 99]))
        bar = Bar('turbo', low, max(high, low + 1e-3), unit)
        picture = depth_to_rgb(pred_depth, None, bar.vmin, bar.vmax, bar.cmap)
        tiles.append(Tile('predicted depth', picture, bar))
    if columns is None:
        columns = len(tiles) if len(tiles) <= 4 else math.ceil(len(tiles) / 2)
    legend = []
    if depth is not None:
        scored = '' if pred_depth is None else ' (under |error|: kept patch, not scored)'
        legend = [(hatch_swatch(), 'no reading')]
        if any(tile.title.startswith('masked') for tile in tiles):
            legend.insert(0, (swatch(MASKED_GREY), f'removed patch{scored}'))
    return compose_tiles(tiles, columns, caption, legend)


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


def _depth_tiles(
    depth: np.ndarray,
    valid: np.ndarray,
    pred_depth: np.ndarray | None,
    removed: np.ndarray | None,
    unit: str,
    aligned: bool,
    paste_kept: bool,
    limits: tuple[float | None, float | None],
) -> list[Tile]:
    vmin, vmax = limits
    readings = depth[valid]
    if vmin is None:
        vmin = float(np.percentile(readings, 1)) if readings.size else 0.0
    if vmax is None:
        vmax = float(np.percentile(readings, 99)) if readings.size else 1.0
    if vmax <= vmin:
        vmax = vmin + 1e-3  # a flat frame still gets a scale
    error_max = (vmax - vmin) / 4  # the same over the epochs of a training
    bar = Bar('turbo', vmin, vmax, unit)

    def colour(values: np.ndarray, known: np.ndarray | None) -> np.ndarray:
        return depth_to_rgb(values, known, vmin, vmax, bar.cmap)

    tiles = []
    truth = colour(depth, valid)
    partly = None if removed is None or removed.all() else removed
    if partly is not None:
        title = f'masked depth ({partly.mean():.0%} removed)'
        tiles.append(Tile(title, _grey_out(truth, partly), bar))
    if pred_depth is not None:
        shown, title = pred_depth, 'predicted depth'
        if paste_kept and removed is not None:
            shown, title = np.where(valid & ~removed, depth, pred_depth), title + ', kept pasted'
        tiles.append(Tile(title + (' (aligned)' if aligned else ''), colour(shown, None)))
    tiles.append(Tile('true depth', truth, bar if partly is None else None))
    if pred_depth is not None:
        error = np.abs(pred_depth - np.where(valid, depth, np.nan))
        evaluated = valid if removed is None else valid & removed
        rmse = np.sqrt(np.mean(error[evaluated] ** 2)) if evaluated.any() else math.nan
        picture = depth_to_rgb(error, valid, 0.0, error_max, 'inferno')
        if removed is not None:
            picture = _grey_out(picture, ~removed)
        label = f' {unit}' if unit == 'm' else ''
        title = f'|error|, RMSE {rmse:.3g}{label}'
        tiles.append(Tile(title, picture, Bar('inferno', 0.0, error_max, unit)))
    return tiles


def _grey_out(image: np.ndarray, where: np.ndarray) -> np.ndarray:
    return np.where(where[..., None], np.array(MASKED_GREY, np.uint8), image)


def _removed_pixels(mask: np.ndarray, size: tuple[int, int], patch_size: int) -> np.ndarray:
    """Pixels, bool (H, W), of the patches that a mask, bool (N,), removes."""
    grid = grid_of(*size, patch_size)
    return patch_mask_to_pixels(torch.from_numpy(mask)[None], patch_size, grid)[0, 0].numpy()
