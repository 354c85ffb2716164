"""Frames of which only the crop is worked on: reduced JPEG decoding, depth read after the crop."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from mmmask3d.datasets.depth_io import decode_with_opencv, to_readings
from mmmask3d.datasets.frame_error import FrameError
from mmmask3d.datasets.nearest import resize_nearest

Box = tuple[int, int, int, int]  # top, left, height, width

_FLAGS = {  # by the factors of the decoder's inverse transform
    8: cv2.IMREAD_REDUCED_COLOR_8,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    1: cv2.IMREAD_COLOR,
}


@dataclass(frozen=True)
class LazyJpeg:
    """A JPEG file that is read and checked but not decoded."""

    content: bytes
    path: str  # its name, for messages
    shape: tuple[int, int]  # (height, width) after its header

    def decode(self, reduction: int = 1) -> np.ndarray:
        """Decode at the size of the file or 1/2, 1/4 or 1/8 of it.

        Returns:
            (ceil(H / reduction), ceil(W / reduction), 3) uint8, BGR; a pixel is about the mean of
            those that it stands for.

        Raises:
            FrameError: It cannot be decoded, or has another size than its header says.
        """
        flags = _FLAGS[reduction] | cv2.IMREAD_IGNORE_ORIENTATION
        image = decode_with_opencv(self.content, self.path, flags, 'a colour image')
        expected = tuple(-(-side // reduction) for side in self.shape)
        if image.shape[:2] != expected:
            raise FrameError(
                f'{self.path}: expected {expected[0]}x{expected[1]} pixels (height x width) after '
                f'its header, decoded {image.shape[0]}x{image.shape[1]}. The file is damaged.'
            )
        return image


@dataclass(frozen=True)
class LazyDepth:
    """A depth map that is not interpreted yet."""

    raw: np.ndarray  # (H, W), as stored
    # further arguments of to_readings
    settings: tuple[float, Sequence[float], float, float | None, str]

    def take(self, box: Box, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Depth and validity of a box, brought to (width, height)."""
        return to_readings(resize_nearest(cut(self.raw, box), size), *self.settings)


def cut(array: np.ndarray, box: Sequence[int]) -> np.ndarray:
    """A view of a box of an array (H, W, ...)."""
    top, left, height, width = box
    return array[top : top + height, left : left + width]


def choose_reduction(box: Box, size: tuple[int, int], shape: tuple[int, int]) -> tuple[int, Box]:
    """How far a JPEG may be scaled down while it is decoded, and the box that fits its pixels.

    A pixel of the reduced image covers factor x factor pixels of the frame, so the sides of the box
    move to multiples of the factor: by half of it at most (by less than one at the frame's end).
    The reduced box has at least the pixels of the output, which is thus never scaled up from less
    than is stored.

    Args:
        box: What is to be cut out of the frame.
        size: Output (width, height).
        shape: (height, width) of the frame.

    Returns:
        The factor (1, 2, 4 or 8) and the box, in pixels of the frame.
    """
    top, left, height, width = box
    for factor in _FLAGS:
        rows = _snapped(top, top + height, shape[0], factor)
        columns = _snapped(left, left + width, shape[1], factor)
        snapped = rows[0], columns[0], rows[1] - rows[0], columns[1] - columns[0]
        if min(height, snapped[2]) >= factor * size[1] and min(width, snapped[3]) >= (
            factor * size[0]
        ):
            return factor, snapped
    return 1, box


def _snapped(start: int, end: int, length: int, factor: int) -> tuple[int, int]:
    """Nearest multiples of the factor; a frame's last pixels may not fill one."""
    last = length // factor
    first, final = (min((side + factor // 2) // factor, last) * factor for side in (start, end))
    return first, final
