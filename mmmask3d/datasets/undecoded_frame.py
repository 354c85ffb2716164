"""A frame that is read and checked but not decoded: what is cut away need not be worked on."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import mmcv
import numpy as np

from mmmask3d.datasets.depth_io import to_readings
from mmmask3d.datasets.frame_error import FrameError
from mmmask3d.datasets.nearest import resize_nearest

Box = tuple[int, int, int, int]  # top, left, height, width

_JPEG_FACTORS = 8, 4, 2  # of the decoder's inverse transform
_FLAGS = {
    1: cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION,
    2: cv2.IMREAD_REDUCED_COLOR_2 | cv2.IMREAD_IGNORE_ORIENTATION,
    4: cv2.IMREAD_REDUCED_COLOR_4 | cv2.IMREAD_IGNORE_ORIENTATION,
    8: cv2.IMREAD_REDUCED_COLOR_8 | cv2.IMREAD_IGNORE_ORIENTATION,
}


def decode_jpeg(
    content: bytes, path: str, shape: tuple[int, int], reduction: int = 1
) -> np.ndarray:
    """Decode a JPEG file at its size or a fraction of it.

    Args:
        content: The bytes of the file, checked to be complete.
        path: Its name, for the message.
        shape: (height, width) after its header.
        reduction: 1, or 2, 4 or 8 for that fraction of the size, where each pixel is about the mean
            of as many.

    Returns:
        (ceil(height / reduction), ceil(width / reduction), 3) uint8, channels in BGR order.

    Raises:
        FrameError: It cannot be decoded, or has another size.
    """
    try:
        img = cv2.imdecode(np.frombuffer(content, np.uint8), _FLAGS[reduction])
    except cv2.error as error:
        raise FrameError(f'{path}: cannot be decoded as a colour image ({error}).') from error
    expected = tuple(-(-side // reduction) for side in shape)
    if img is None or img.shape[:2] != expected:
        found = 'nothing' if img is None else f'{img.shape[0]}x{img.shape[1]}'
        raise FrameError(
            f'{path}: cannot be decoded as a colour image ({len(content)} bytes): expected '
            f'{expected[0]}x{expected[1]} (height x width) after its header, decoded {found}. '
            f'The file is damaged.'
        )
    return img


def choose_reduction(
    box: Box, size: tuple[int, int], shape: tuple[int, int], snap: bool
) -> tuple[int, Box]:
    """How far a JPEG may be scaled down while it is decoded, and the box that fits its pixels.

    A pixel of the reduced image covers factor x factor pixels of the frame, so a box can only be
    cut out of it where its sides are multiples of the factor: they move by half a factor at most
    (by less than one at the frame's end). The reduced box has at least the pixels of the output,
    which is thus never scaled up from less than is stored.

    Args:
        box: What is to be cut out of the frame.
        size: Output (width, height).
        shape: (height, width) of the frame.
        snap: Whether the box may be moved to multiples of the factor. If not, only factors are
            considered that divide its sides.

    Returns:
        The factor (1, 2, 4 or 8) and the box, in pixels of the frame.
    """
    top, left, height, width = box
    for factor in _JPEG_FACTORS:
        if height < factor * size[1] or width < factor * size[0]:
            continue
        rows = _snapped(top, top + height, shape[0], factor)
        columns = _snapped(left, left + width, shape[1], factor)
        snapped = rows[0], columns[0], rows[1] - rows[0], columns[1] - columns[0]
        if (
            snapped[2] >= factor * size[1]
            and snapped[3] >= factor * size[0]
            and (snap or snapped == box)
        ):
            return factor, snapped
    return 1, box


def _snapped(start: int, end: int, length: int, factor: int) -> tuple[int, int]:
    """Nearest multiples of the factor; a frame's last pixels may not fill one."""
    last = length // factor
    first, final = (min((side + factor // 2) // factor, last) * factor for side in (start, end))
    return first, final


def _inside(box: Box) -> tuple[slice, slice]:
    top, left, height, width = box
    return slice(top, top + height), slice(left, left + width)


@dataclass
class UndecodedFrame:
    """Files of a frame after the checks of :class:`~mmmask3d.datasets.LoadRGBD`.

    Attributes:
        img_path: For messages.
        img: The bytes of a JPEG file, or the image (H, W, 3) uint8.
        shape: (H, W).
        depth: (H, W), the values as stored, or depth where ``valid`` is given.
        valid: (H, W) bool; None where depth is not interpreted yet.
        settings: Further arguments of :func:`~mmmask3d.datasets.depth_io.to_readings`.
    """

    img_path: str
    img: bytes | np.ndarray
    shape: tuple[int, int]
    depth: np.ndarray
    valid: np.ndarray | None
    settings: tuple[float, Sequence[float], float, float | None, str]

    def take(
        self, box: Box, size: tuple[int, int], interpolation: str, snap: bool = True
    ) -> dict[str, np.ndarray]:
        """Cut out a box and resize it, the same for colour, depth and validity.

        Where a JPEG is larger than needed it is decoded at 1/2, 1/4 or 1/8 of its size, which
        averages over as many pixels and costs less, see :func:`choose_reduction`.

        Args:
            box: What to cut out, in pixels of the frame.
            size: Output (width, height).
            interpolation: Of the colour image, see :func:`mmcv.imresize`.
            snap: Whether the box may be moved to fit the pixels of a reduced image.

        Returns:
            ``img``, ``depth`` and ``valid`` as from :class:`~mmmask3d.datasets.LoadRGBD`.

        Raises:
            FrameError: The colour image cannot be decoded.
        """
        factor = 1
        if isinstance(self.img, bytes):
            factor, box = choose_reduction(box, size, self.shape, snap)
        img = self._decoded(factor)
        top, left, height, width = (side // factor for side in box)
        cut = img[_inside((top, left, height, width))]
        img = mmcv.imresize(cut, size, interpolation=interpolation, backend='cv2')
        depth = resize_nearest(self.depth[_inside(box)], size)
        if self.valid is None:
            depth, valid = to_readings(depth, *self.settings)
        else:
            valid = resize_nearest(self.valid[_inside(box)], size)
        return dict(img=img, depth=depth, valid=valid)

    def decode(self) -> dict[str, np.ndarray]:
        """The whole frame, as from :class:`~mmmask3d.datasets.LoadRGBD`.

        Raises:
            FrameError: The colour image cannot be decoded.
        """
        depth, valid = self.depth, self.valid
        if valid is None:
            depth, valid = to_readings(depth, *self.settings)
        return dict(img=self._decoded(1), depth=depth, valid=valid)

    def _decoded(self, factor: int) -> np.ndarray:
        if not isinstance(self.img, bytes):
            return self.img
        return decode_jpeg(self.img, self.img_path, self.shape, factor)
