"""Move a depth map from the view of the depth camera into that of the colour camera."""

from typing import NamedTuple

import numpy as np

# Boxes of cameras that are turned a little against each other do not meet exactly at their corners.
_OVERLAP = 0.05
_SAME_SURFACE = 0.05  # neighbours whose depths differ by this share at most
_LARGEST_FOOTPRINT = 4  # target pixels across and down for one source pixel


class Camera(NamedTuple):
    """A pinhole camera, with integer coordinates at the centres of the pixels; all in pixels."""

    fx: float
    fy: float
    cx: float
    cy: float


def register_depth(
    depth: np.ndarray,
    valid: np.ndarray,
    depth_camera: Camera,
    colour_camera: Camera,
    rotation: np.ndarray,
    translation: np.ndarray,
    size: tuple[int, int],
) -> tuple[np.ndarray, np.ndarray]:
    """Warp a depth map forward into the colour camera; the nearest surface wins.

    Readings are moved, not blended: the value at a target pixel is the depth, seen from the colour
    camera, of one source pixel. A source pixel covers the target pixels whose centres lie in its
    footprint, a box around its projected centre. On each side the box ends

    - half-way to the neighbour's projection, where the neighbour has a reading of the same
      surface (and 0.05 pixels beyond, where all eight neighbours have), so that a surface that is
      stretched has no cracks;
    - otherwise (at the border, next to a hole, at a depth edge) half a pixel of its own at its own
      depth away: holes stay holes, and nothing is spanned between a surface and what lies behind.

    Boxes of more than 4 target pixels across or down are cut, which leaves gaps instead of blocks.
    They follow the axes of the images, so neither camera should be turned around its optical axis
    by more than some degrees.

    Args:
        depth: (H, W) float, metres along the optical axis; anything where ``valid`` is False.
        valid: (H, W) bool. NaN, infinite, zero and negative depth never is a reading.
        depth_camera: The camera of ``depth``.
        colour_camera: The camera to warp into.
        rotation: (3, 3), from the axes of the depth camera (x right, y down, z forward) to those
            of the colour camera.
        translation: (3,) metres: position of the depth camera in the axes of the colour camera.
        size: (width, height) of the colour image.

    Returns:
        depth: (height, width) float32, metres along the axis of the colour camera, 0 where there
            is no reading.
        valid: (height, width) bool.
    """
    depth = np.asarray(depth, np.float64)
    with np.errstate(invalid='ignore'):
        valid = np.asarray(valid, bool) & np.isfinite(depth) & (depth > 0)
    depth = np.where(valid, depth, np.nan)
    column, row, distance = _project(depth, depth_camera, colour_camera, rotation, translation)
    # A pixel of its own: its side at its depth, as large as it appears from the colour camera.
    with np.errstate(invalid='ignore'):
        half = depth / distance / 2
    across, down = (_joined(depth, distance, axis) for axis in (1, 0))
    overlap = _OVERLAP * _inside_surface(across, down)
    reach = _LARGEST_FOOTPRINT / 2
    boxes = []
    for centre, joined, axis, ratio in (
        (column, across, 1, colour_camera.fx / depth_camera.fx),
        (row, down, 0, colour_camera.fy / depth_camera.fy),
    ):
        low, high = _extent(centre, joined, half * ratio, axis)
        # Half-open, so that a centre between two boxes belongs to one of them.
        boxes.append(np.ceil(np.maximum(low - overlap, centre - reach)))
        boxes.append(np.ceil(np.minimum(high + overlap, centre + reach)))
    return _splat(distance, boxes, size)


def _project(
    depth: np.ndarray,
    depth_camera: Camera,
    colour_camera: Camera,
    rotation: np.ndarray,
    translation: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Column, row and depth in the colour camera of each source pixel; NaN where not seen."""
    height, width = depth.shape
    ray_x = ((np.arange(width) - depth_camera.cx) / depth_camera.fx)[None, :]
    ray_y = ((np.arange(height) - depth_camera.cy) / depth_camera.fy)[:, None]
    x, y, z = (
        depth * (rotation[i, 0] * ray_x + rotation[i, 1] * ray_y + rotation[i, 2]) + translation[i]
        for i in range(3)
    )
    with np.errstate(invalid='ignore', divide='ignore', over='ignore'):
        z = np.where(z > 0, z, np.nan)  # the others are behind the colour camera
        x, y = x / z, y / z
    seen = np.isfinite(z)
    column = np.where(seen, colour_camera.fx * x + colour_camera.cx, np.nan)
    row = np.where(seen, colour_camera.fy * y + colour_camera.cy, np.nan)
    return column, row, z


def _pairs(array: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Views of each pixel and of its neighbour, to the right (axis 1) or below (axis 0)."""
    return (array[:, :-1], array[:, 1:]) if axis == 1 else (array[:-1], array[1:])


def _joined(depth: np.ndarray, distance: np.ndarray, axis: int) -> np.ndarray:
    """Whether a pixel and its neighbour along ``axis`` are one surface."""
    one, other = _pairs(depth, axis)
    with np.errstate(invalid='ignore'):  # False where one of them is NaN
        close = np.abs(one - other) <= _SAME_SURFACE * np.fmin(one, other)
    one, other = _pairs(np.isfinite(distance), axis)
    return close & one & other


def _inside_surface(across: np.ndarray, down: np.ndarray) -> np.ndarray:
    """(H, W) Whether a pixel is one surface with its eight neighbours."""
    across = np.pad(across, ((0, 0), (1, 1)))
    down = np.pad(down, ((1, 1), (0, 0)))
    four = across[:, :-1] & across[:, 1:] & down[:-1] & down[1:]
    # The diagonal neighbours are those above and below the pixels to the left and right.
    beside = np.pad(four, ((0, 0), (1, 1)))
    return four & beside[:, :-2] & beside[:, 2:]


def _extent(
    centre: np.ndarray, joined: np.ndarray, half: np.ndarray, axis: int
) -> tuple[np.ndarray, np.ndarray]:
    """Where the footprints begin and end along columns (axis 1) or rows (0), from their centres."""
    low, high = centre - half, centre + half
    one, other = _pairs(centre, axis)
    between = (one + other) / 2
    np.copyto(_pairs(high, axis)[0], between, where=joined)
    np.copyto(_pairs(low, axis)[1], between, where=joined)
    return low, high


def _splat(
    distance: np.ndarray, boxes: list[np.ndarray], size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Fill boxes (first and past-the-last column, first and past-the-last row), nearest wins."""
    width, height = size
    left, right, top, bottom = boxes
    with np.errstate(invalid='ignore'):  # comparisons with NaN are False
        kept = (right > left) & (bottom > top)
        kept &= (right > 0) & (left < width) & (bottom > 0) & (top < height)
    left, right, top, bottom = (box[kept].astype(np.int64) for box in boxes)
    z = distance[kept].astype(np.float32)
    target = np.full(width * height, np.inf, np.float32)
    for down in range(int((bottom - top).max(initial=0))):
        for across in range(int((right - left).max(initial=0))):
            column, row = left + across, top + down
            inside = (column < right) & (row < bottom)
            inside &= (column >= 0) & (column < width) & (row >= 0) & (row < height)
            np.minimum.at(target, row[inside] * width + column[inside], z[inside])
    nearest = target.reshape(height, width)
    found = np.isfinite(nearest)
    return np.where(found, nearest, np.float32(0)), found
