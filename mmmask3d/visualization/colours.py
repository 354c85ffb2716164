"""Colours of depth, and the hatch where there is none."""

from functools import lru_cache

import matplotlib
import numpy as np

INVALID_LIGHT, INVALID_DARK = (236, 236, 236), (176, 176, 176)
"""The two tones of the diagonal hatch that marks pixels without a reading."""
_HATCH_PERIOD = 8


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
    colours = colour_table(cmap)[np.round(unit * 255).astype(np.int64)]
    return np.where(valid[..., None], colours, hatch(*depth.shape))


def hatch(height: int, width: int) -> np.ndarray:
    """Diagonal stripes that mark pixels without a reading, RGB uint8 (height, width, 3)."""
    stripe = (np.add.outer(np.arange(height), np.arange(width)) % _HATCH_PERIOD) < 2
    return np.where(stripe[..., None], INVALID_DARK, INVALID_LIGHT).astype(np.uint8)


@lru_cache(maxsize=8)
def colour_table(cmap: str) -> np.ndarray:
    """The 256 colours of a matplotlib colour map, RGB uint8 (256, 3)."""
    return matplotlib.colormaps[cmap](np.arange(256), bytes=True)[:, :3].copy()
