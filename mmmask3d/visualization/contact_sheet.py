"""One frame as a strip of pictures: colour, depth, its contours on colour, labels, instances."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, ImageDraw

from mmmask3d.datasets.palette import distinct_palette
from mmmask3d.visualization.colours import depth_to_rgb
from mmmask3d.visualization.edges import WORK_WIDTH, depth_contours
from mmmask3d.visualization.tiles import (
    Bar,
    Tile,
    compose_tiles,
    font,
    hatch_swatch,
    shorten,
    swatch,
)

CONTOUR = (255, 0, 220)
"""Contours of depth; the colour image below them is grey."""
UNLABELLED = (0, 0, 0)
_COVER = 0.6  # of a label's colour over the grey image
_IGNORED = 255


@dataclass(frozen=True)
class Labels:
    """A label map to draw."""

    title: str  # of its tile
    ids: np.ndarray  # (H, W) uint8; 0 = unlabelled, 1..C the classes, 255 ignored
    classes: Sequence[str]  # their names


def frame_strip(
    rgb: np.ndarray,
    depth: np.ndarray,
    valid: np.ndarray,
    *,
    unit: str = 'm',
    labels: Sequence[Labels] = (),
    instances: np.ndarray | None = None,
    caption: str = '',
    columns: int | None = None,
) -> np.ndarray:
    """Draw one frame and what belongs to it.

    Args:
        rgb: RGB uint8 (H, W, 3).
        depth: (H, W).
        valid: bool (H, W).
        unit: ``'m'`` or ``'relative'``.
        labels: Label maps.
        instances: (H, W) ids, 0 = none.
        caption: At the bottom right.
        columns: Tiles per row; None for all in one.

    Returns:
        RGB uint8 (H', W', 3).

    Raises:
        ValueError: Maps differ in size.
    """
    for name, array in [('depth', depth), ('valid', valid), ('instances', instances)] + [
        (maps.title, maps.ids) for maps in labels
    ]:
        if array is not None and array.shape != rgb.shape[:2]:
            raise ValueError(
                f'{name} is {array.shape}, but colour is {rgb.shape[:2]} (height, width)'
            )
    grey = np.repeat(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    low, high = np.percentile(depth[valid], [1, 99]) if valid.any() else (0.0, 1.0)
    high = max(high, low + 1e-3)
    missing = 1 - np.count_nonzero(valid) / valid.size
    tiles = [
        Tile('colour', rgb),
        Tile(
            f'depth, {missing:.1%} without a reading',
            depth_to_rgb(depth, valid, low, high),
            Bar('turbo', float(low), float(high), unit),
        ),
        Tile('contours of depth on colour', contour_overlay(grey, depth, valid)),
    ]
    legend = [(hatch_swatch(), 'no reading'), (swatch(CONTOUR), 'contour of depth')]
    for maps in labels:
        tiles.append(Tile(maps.title, label_picture(grey, maps)))
        prefix = f'{maps.title}: ' if len(labels) > 1 else ''
        legend += [(swatch(c), prefix + name) for c, name in _present(maps)]
    if instances is not None:
        count = len(np.unique(instances[instances > 0]))
        title = f'{count} instance' + ('' if count == 1 else 's')
        tiles.append(Tile(title, instance_picture(grey, instances)))
    return compose_tiles(tiles, columns or len(tiles), caption, legend)


def contour_overlay(grey: np.ndarray, depth: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Contours of depth over a grey image: registered, they lie on its edges.

    Args:
        grey: RGB uint8 (H, W, 3).
        depth: (H, W).
        valid: bool (H, W).
    """
    width = grey.shape[1]
    # The shadow behind an object is as wide a part of the frame, whatever the size.
    gap = max(2, round(4 * width / WORK_WIDTH))
    contours = depth_contours(depth.astype(np.float32), valid, gap)[0].astype(np.uint8)
    side = max(1, round(width / 160))  # one pixel of 320 is hard to see
    contours = cv2.dilate(contours, np.ones((side, side), np.uint8)) > 0
    return np.where(contours[..., None], np.array(CONTOUR, np.uint8), grey)


def label_picture(grey: np.ndarray, labels: Labels) -> np.ndarray:
    """Labels in the colours of their classes over a grey image; unlabelled pixels are black."""
    palette = np.full((256, 3), UNLABELLED, np.float64)
    palette[1 : len(labels.classes) + 1] = distinct_palette(len(labels.classes))
    mixed = _COVER * palette[labels.ids] + (1 - _COVER) * grey
    named = (labels.ids > 0) & (labels.ids <= len(labels.classes))
    return np.where(named[..., None], np.rint(mixed), UNLABELLED).astype(np.uint8)


def instance_picture(grey: np.ndarray, instances: np.ndarray) -> np.ndarray:
    """Instances in colours of their own with white outlines over a grey image."""
    ids, ranks = np.unique(instances, return_inverse=True)
    ranks = ranks.reshape(instances.shape)
    if ids[0] != 0:
        ranks = ranks + 1  # rank 0 is "none", also where every pixel has an instance
    palette = np.array([(0, 0, 0), *distinct_palette(len(ids))], np.float64)
    drawn = np.where(
        (ranks > 0)[..., None], _COVER * palette[ranks] + (1 - _COVER) * grey, grey * 0.6
    )
    drawn = np.rint(drawn).astype(np.uint8)
    edge = np.zeros(instances.shape, bool)
    edge[:, 1:] |= ranks[:, 1:] != ranks[:, :-1]
    edge[1:] |= ranks[1:] != ranks[:-1]
    drawn[edge & (ranks > 0)] = 255
    return drawn


def message_strip(text: str, width: int = 960) -> np.ndarray:
    """A strip that says why there is no picture."""
    strip = Image.new('RGB', (width, 40), (255, 255, 255))
    ImageDraw.Draw(strip).text(
        (10, 20), shorten(text, width - 20, 13), (180, 0, 0), font(13), anchor='lm'
    )
    return np.asarray(strip)


def _present(labels: Labels) -> list[tuple[list[int], str]]:
    """Colours and names of what a map holds."""
    counts = np.bincount(labels.ids.ravel(), minlength=256)
    palette = distinct_palette(len(labels.classes))
    found = [(palette[i], name) for i, name in enumerate(labels.classes) if counts[i + 1]]
    outside = counts[len(labels.classes) + 1 : _IGNORED].sum()
    if counts[0] + counts[_IGNORED]:
        found.append((list(UNLABELLED), 'unlabelled'))
    if outside:
        found.append((list(UNLABELLED), f'{outside} pixels outside the classes'))
    return found
