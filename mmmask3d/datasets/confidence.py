"""Confidence maps of depth, as phones with LiDAR record them: how sure each reading is."""

import math

import numpy as np

from mmmask3d.datasets.depth_io import FrameError, decode_depth
from mmmask3d.datasets.nearest import resize_nearest


def check_threshold(value: float, what: str) -> float:
    """Return a threshold that can leave something out.

    Raises:
        ValueError: It is no finite number above 0.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (number and math.isfinite(value) and value > 0):
        raise ValueError(
            f'{what} is the least stored value of a confidence map that counts and must be > 0, '
            f'got {value!r}. ARKit stores 0, 1 and 2; some apps 0 to 100 or 0 to 255.'
        )
    return float(value)


def read_confidence(content: bytes, path: str, shape: tuple[int, int]) -> np.ndarray:
    """Confidence for each pixel of a depth map, in the values as stored.

    A map may be smaller than its depth map by a whole factor, the same both ways, as where depth
    was enlarged by repeating pixels. Any other size would need a guess which reading a value
    belongs to.

    Args:
        content: The bytes of the file, of a format that depth may have.
        path: Its name, for messages.
        shape: (H, W) of the depth map.

    Returns:
        (H, W), of an integer or float type.

    Raises:
        FrameError: It cannot be decoded, or has another size.
    """
    try:
        values = decode_depth(content, path)
    except FrameError as error:
        raise FrameError(f'{error} (It is to be a confidence map.)') from error
    factor = shape[0] // values.shape[0]
    if (values.shape[0] * factor, values.shape[1] * factor) != shape:
        raise FrameError(
            f'{path}: a confidence map of {values.shape[0]}x{values.shape[1]} (height x width), '
            f'depth is {shape[0]}x{shape[1]}; expected the same size, or a whole fraction of it '
            f'both ways. Apply it before depth is resized (mmmask3d convert folder does).'
        )
    return values if factor == 1 else resize_nearest(values, shape[::-1])


class NothingSure(FrameError):
    """No reading of a frame is sure enough."""


def sure_readings(content: bytes, path: str, valid: np.ndarray, minimum: float) -> np.ndarray:
    """Where readings are sure enough.

    Args:
        content: The bytes of a confidence map, see :func:`read_confidence`.
        path: Its name, for messages.
        valid: (H, W) bool, where there is a reading; somewhere there is one.
        minimum: Least confidence that counts.

    Returns:
        (H, W) bool, True somewhere.

    Raises:
        NothingSure: Nowhere.
        FrameError: The map cannot be read.
    """
    values = read_confidence(content, path, valid.shape)
    sure = valid & (values >= minimum)
    if not sure.any():
        raise NothingSure(
            f'{path}: no reading has a confidence of at least {minimum:g}; where there are '
            f'readings it holds {values[valid].min():g} to {values[valid].max():g}. The threshold '
            f'is in the values as stored (ARKit: 0, 1, 2; some apps 0 to 100 or 0 to 255).'
        )
    return np.asarray(sure)
