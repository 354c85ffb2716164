"""Edges of colour and occluding contours of depth at a small common size, for registration."""

from dataclasses import dataclass

import cv2
import numpy as np

from mmmask3d.datasets.nearest import resize_nearest

WORK_WIDTH = 160  # pixels; doubling it costs four times as much and decides no better
_MARGIN = 1 / 40  # of the width: many sets have a frame around the picture, in colour and depth
_BLUR = 1.0  # pixels, of the colour image before its gradient
_WINDOW = 1 / 8  # of the width: neighbourhood that colour contrast is relative to
_FLOOR = 2.0  # grey levels per pixel: noise in flat regions is no contrast
_LARGEST_CONTRAST = 3.0
_JUMP = 0.06  # of the depth of the nearer side
_NEAREST = 0.02  # of the frame's far end: relative depth may be 0
_GAP = 4  # pixels without a reading that a contour may have behind it (the sensor's shadow)
_STEPS = ((0, 1), (0, -1), (1, 0), (-1, 0))


@dataclass(frozen=True)
class EdgePair:
    """Edges of one frame.

    An edge is (strength, strength * cos 2a, strength * sin 2a) with a the direction across it, so
    that the product of two edges is greatest where they run alike, whichever side is brighter.
    """

    colour: np.ndarray  # (3, h, w) float32; strength relative to the neighbourhood, mean about 0
    rows: np.ndarray  # (n,) rows of the contours of depth
    columns: np.ndarray  # (n,) their columns
    contours: np.ndarray  # (3, n) float32; strength is 1
    pixel: float  # pixels of the frame per pixel here


def edge_pair(image: np.ndarray, depth: np.ndarray, valid: np.ndarray) -> EdgePair:
    """Find the edges of a frame, at :data:`WORK_WIDTH` where it is wider.

    Args:
        image: (H, W, 3) uint8.
        depth: (H, W), metric or relative; ignored where ``valid`` is False.
        valid: (H, W) bool.
    """
    full = image.shape[1]
    width = min(WORK_WIDTH, full)
    size = width, max(1, round(image.shape[0] * width / full))
    image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    depth = resize_nearest(depth.astype(np.float32), size)
    valid = resize_nearest(valid, size)
    margin = round(width * _MARGIN)
    inside = np.zeros(valid.shape, bool)
    inside[margin : size[1] - margin, margin : width - margin] = True
    colour = colour_edges(image) * inside
    contours = depth_contours(depth, valid) * inside
    rows, columns = np.nonzero(contours[0])
    return EdgePair(colour, rows, columns, contours[:, rows, columns], full / width)


def colour_edges(image: np.ndarray) -> np.ndarray:
    """Gradient of a colour image relative to that of its neighbourhood.

    Args:
        image: (h, w, 3) uint8.

    Returns:
        (3, h, w) float32, see :class:`EdgePair`.
    """
    smooth = cv2.GaussianBlur(image.astype(np.float32), (0, 0), _BLUR)
    across = cv2.Sobel(smooth, cv2.CV_32F, 1, 0, scale=1 / 8)
    down = cv2.Sobel(smooth, cv2.CV_32F, 0, 1, scale=1 / 8)
    # The channel that changes most, at each pixel.
    channel = (across**2 + down**2).argmax(axis=2)[..., None]
    across = np.take_along_axis(across, channel, axis=2)[..., 0]
    down = np.take_along_axis(down, channel, axis=2)[..., 0]
    square = across**2 + down**2
    strength = np.sqrt(square)
    side = round(image.shape[1] * _WINDOW) | 1
    contrast = strength / (cv2.blur(strength, (side, side)) + _FLOOR)
    contrast = np.minimum(contrast, _LARGEST_CONTRAST)
    turn = contrast / np.maximum(square, 1e-6)
    # Without the mean of the neighbourhood: cluttered regions are not preferred to plain ones.
    return np.stack(
        [
            contrast - cv2.blur(contrast, (side, side)),
            turn * (across**2 - down**2),
            turn * 2 * across * down,
        ]
    )


def depth_contours(depth: np.ndarray, valid: np.ndarray, gap: int = _GAP) -> np.ndarray:
    """Pixels of a surface beyond which another begins that is farther by a jump.

    Up to ``gap`` pixels without a reading may lie between the two, because sensors leave a shadow
    there. A slanted surface makes no contour: what it rises anyway is taken off. The border
    of a hole is none, because holes have other causes (dark, shiny) than a change of surface.

    Args:
        depth: (h, w) float32.
        valid: (h, w) bool.
        gap: Pixels; the default belongs to a width of ``WORK_WIDTH``.

    Returns:
        (3, h, w) float32, see :class:`EdgePair`; 0 where there is no contour.
    """
    found = np.zeros((3, *depth.shape), np.float32)
    if not valid.any():
        return found
    depth = np.where(valid, depth, 0)
    least = _JUMP * np.maximum(depth, _NEAREST * np.percentile(depth[valid], 95))
    contour = np.zeros(depth.shape, bool)
    normal = np.zeros((2, *depth.shape), np.float32)
    for down, right in _STEPS:
        beyond, distance, known = _next_reading(depth, valid, down, right, gap)
        before_known = _moved(valid, -down, -right)
        before = np.where(before_known, _moved(depth, -down, -right), depth)
        rise = beyond - depth
        here = valid & known & (rise - distance * np.maximum(depth - before, 0) > least)
        contour |= here
        normal[0] += right * here
        normal[1] += down * here
    # Steps along rows and columns only know four directions; a line's own is their local mean.
    across, along = (cv2.GaussianBlur(part, (0, 0), 1.5) for part in normal)
    square = np.maximum(across**2 + along**2, 1e-9)
    found[0] = contour
    found[1] = contour * (across**2 - along**2) / square
    found[2] = contour * 2 * across * along / square
    return found


def _next_reading(
    depth: np.ndarray, valid: np.ndarray, down: int, right: int, gap: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The first reading in a direction: its depth, how many pixels away, whether there is one."""
    beyond = np.zeros_like(depth)
    distance = np.zeros_like(depth)
    known = np.zeros_like(valid)
    for step in range(1, gap + 2):
        new = _moved(valid, step * down, step * right) & ~known
        beyond[new] = _moved(depth, step * down, step * right)[new]
        distance[new] = step
        known |= new
    return beyond, distance, known


def _moved(array: np.ndarray, down: int, right: int) -> np.ndarray:
    """``moved[y, x] = array[y + down, x + right]``, 0 (False) outside."""
    height, width = array.shape
    moved = np.zeros_like(array)
    moved[max(0, -down) : height - max(0, down), max(0, -right) : width - max(0, right)] = array[
        max(0, down) : height - max(0, -down), max(0, right) : width - max(0, -right)
    ]
    return moved
