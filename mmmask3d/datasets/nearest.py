"""Resize maps whose values must not be mixed: depth, validity, labels."""

import cv2
import numpy as np

# OpenCV picks whole pixels without looking at them, so a type of the same width carries any other.
_CARRIERS = {1: np.uint8, 2: np.uint16, 4: np.float32, 8: np.float64}


def resize_nearest(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize a map by picking, for each target pixel's centre, the source pixel it falls into.

    Target pixel ``x`` takes source pixel ``floor((x + 0.5) * source / target)`` (where that falls
    exactly between two source pixels, OpenCV may take the one before), the convention
    of half-pixel centres that OpenCV's bilinear, bicubic and area modes follow. OpenCV's plain
    ``INTER_NEAREST`` (``floor(x * source / target)``) would shift depth against colour by up to
    half a source pixel.

    Args:
        array: (H, W), of a type of 1, 2, 4 or 8 bytes.
        size: Target (width, height).

    Returns:
        (height, width), same type.
    """
    carrier = array.view(_CARRIERS[array.dtype.itemsize])
    picked = cv2.resize(carrier, size, interpolation=cv2.INTER_NEAREST_EXACT)
    return picked.view(array.dtype)
