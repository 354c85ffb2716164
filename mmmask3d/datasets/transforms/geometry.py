"""Geometric transforms that move colour, depth and validity together.

Colour is interpolated. Depth and validity are picked from the nearest source pixel, so no value
is ever blended with its neighbour or with a hole, and resizing does not change depth values.
"""

from collections.abc import Sequence

import cv2
import mmcv
import numpy as np
from mmcv.transforms import RandomFlip, Resize
from mmpretrain.datasets.transforms import RandomResizedCrop

from mmmask3d.datasets.lazy_frame import LazyDepth, LazyJpeg, choose_reduction, cut
from mmmask3d.datasets.nearest import resize_nearest
from mmmask3d.registry import TRANSFORMS

_FLIP_CODES = {'horizontal': 1, 'vertical': 0, 'diagonal': -1}  # of cv2.flip

View = tuple[float, float, float, float]
"""What an image shows of its frame: left, top, right and bottom border, measured from the frame's
centre in widths of the frame. Geometry that depends on the camera (normals) needs it."""


def whole_view(shape: Sequence[int]) -> View:
    """The view of a whole frame of (height, width)."""
    half = 0.5 * shape[0] / shape[1]
    return -0.5, -half, 0.5, half


def _as_size(value: int | Sequence[int], name: str) -> tuple[int, int]:
    """Check a size given as int or (width, height) and return (width, height)."""
    size = tuple(value) if isinstance(value, Sequence) else (value, value)
    if len(size) != 2 or not all(isinstance(s, int) and s > 0 for s in size):
        raise ValueError(f'{name} must be a positive int or (width, height), got {value!r}.')
    return size


@TRANSFORMS.register_module()
class RGBDRandomResizedCrop(RandomResizedCrop):
    """Crop a random box and resize it to a fixed size, the same for colour, depth and validity.

    The box is drawn by mmpretrain's ``RandomResizedCrop``. **Unlike there, ``scale`` is (width,
    height)**, as in all sizes of this package.

    Right after :class:`LoadRGBD` in a pipeline of :class:`~mmmask3d.datasets.RGBDDataset`, the
    box is drawn before a JPEG is decoded, see
    :func:`~mmmask3d.datasets.lazy_frame.choose_reduction`.

    Required and modified keys: ``img``, ``depth``, ``valid``, ``img_shape``; ``view`` is added.

    Args:
        scale: Output size: an int for a square, or (width, height).
        crop_ratio_range: Range of the area of the box, relative to the frame's.
        aspect_ratio_range: Range of width / height of the box.
        max_attempts: Attempts to find a box that fits before the central one is taken.
        interpolation: Of the colour image: 'bilinear', 'bicubic', 'area', 'lanczos', 'nearest'.
    """

    def __init__(
        self,
        scale: int | Sequence[int],
        crop_ratio_range: tuple[float, float] = (0.2, 1.0),
        aspect_ratio_range: tuple[float, float] = (3 / 4, 4 / 3),
        max_attempts: int = 10,
        interpolation: str = 'bilinear',
    ) -> None:
        size = _as_size(scale, 'RGBDRandomResizedCrop: scale')
        super().__init__(
            scale=size,
            crop_ratio_range=crop_ratio_range,
            aspect_ratio_range=aspect_ratio_range,
            max_attempts=max_attempts,
            interpolation=interpolation,
        )

    def transform(self, results: dict) -> dict:
        """Crop and resize the frame."""
        img, factor = results['img'], 1
        shape = img.shape[:2]
        box = self.rand_crop_params(img)  # which looks at its shape only
        if isinstance(img, LazyJpeg):
            factor, box = choose_reduction(box, self.scale, img.shape)
            img = img.decode(factor)
        if isinstance(results['depth'], LazyDepth):
            results['depth'], results['valid'] = results['depth'].take(box, self.scale)
        else:
            for key in ('depth', 'valid'):
                results[key] = resize_nearest(cut(results[key], box), self.scale)
        results['view'] = _view_of_box(results.get('view') or whole_view(shape), box, shape)
        inside = cut(img, [side // factor for side in box])
        results['img'] = mmcv.imresize(
            inside, self.scale, interpolation=self.interpolation, backend='cv2'
        )
        results['img_shape'] = results['img'].shape[:2]
        return results


def _view_of_box(view: View, box: Sequence[int], shape: Sequence[int]) -> View:
    """The view of a box (top, left, height, width) of an image of (height, width)."""
    left, top, right, bottom = view
    across, down = (right - left) / shape[1], (bottom - top) / shape[0]
    left, top = left + across * box[1], top + down * box[0]
    return left, top, left + across * box[3], top + down * box[2]


@TRANSFORMS.register_module()
class RGBDResize(Resize):
    """mmcv's ``Resize`` that also resizes depth and validity, nearest.

    Required and modified keys: ``img``, ``depth``, ``valid``, ``img_shape``; mmcv's further keys
    (``gt_seg_map``, ``gt_bboxes``, ...) are resized as there where present.

    Args:
        scale: Output (width, height), or an int for a square. With ``keep_ratio`` the frame is
            made as large as fits.
        scale_factor: Alternative to ``scale``: a factor, or (width factor, height factor).
        keep_ratio: Whether to keep the aspect ratio.
        interpolation: Of the colour image: 'bilinear', 'bicubic', 'area', 'lanczos', 'nearest'.
    """

    def __init__(
        self,
        scale: int | tuple[int, int] | None = None,
        scale_factor: float | tuple[float, float] | None = None,
        keep_ratio: bool = False,
        interpolation: str = 'bilinear',
    ) -> None:
        super().__init__(
            scale=None if scale is None else _as_size(scale, 'RGBDResize: scale'),
            scale_factor=scale_factor,
            keep_ratio=keep_ratio,
            interpolation=interpolation,
        )

    def transform(self, results: dict) -> dict:
        """Resize the frame."""
        results = super().transform(results)
        height, width = results['img'].shape[:2]
        for key in ('depth', 'valid'):
            results[key] = resize_nearest(results[key], (width, height))
        return results


@TRANSFORMS.register_module()
class RGBDRandomFlip(RandomFlip):
    """mmcv's ``RandomFlip`` that also flips depth and validity.

    Required and modified keys: ``img``, ``depth``, ``valid``, and ``view`` where present; ``flip``
    and ``flip_direction`` are added.

    Args:
        prob: Probability of a flip, or one per direction.
        direction: 'horizontal', 'vertical', 'diagonal', or a list of them.
    """

    def __init__(
        self,
        prob: float | list[float] = 0.5,
        direction: str | list[str] = 'horizontal',
    ) -> None:
        super().__init__(prob=prob, direction=direction)

    def _flip(self, results: dict) -> None:
        img = results['img']
        super()._flip(results)  # boxes, label maps and keypoints, where present
        # mmcv flips to a view of negative strides, which is slow to pack (0.6 ms for 240x320).
        code = _FLIP_CODES[results['flip_direction']]
        results['img'] = cv2.flip(img, code)
        results['depth'] = cv2.flip(results['depth'], code)
        results['valid'] = cv2.flip(results['valid'].view(np.uint8), code).view(bool)
        if 'view' in results:
            left, top, right, bottom = results['view']
            if code != 0:
                left, right = -right, -left
            if code != 1:
                top, bottom = -bottom, -top
            results['view'] = left, top, right, bottom
