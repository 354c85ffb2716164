"""Load one RGB-D frame: colour, depth in metres (or relative) and validity."""

import logging

import numpy as np
from mmcv.transforms import BaseTransform
from mmengine import fileio
from mmengine.logging import print_log

from mmmask3d.datasets.confidence import sure_readings
from mmmask3d.datasets.depth_io import (
    decode_colour,
    decode_depth,
    read_colour_header,
    to_readings,
    zero_where_invalid,
)
from mmmask3d.datasets.frame_error import FrameError
from mmmask3d.datasets.image_header import JPEG_SIGNATURE
from mmmask3d.datasets.lazy_frame import LazyDepth, LazyJpeg
from mmmask3d.datasets.orientation import orientation_hint
from mmmask3d.registry import TRANSFORMS

# No RGB-D camera reads a whole frame closer than 5 cm or half a frame beyond 100 m. A metres file
# read as millimetres puts an 8 m room at 8 mm, the opposite mistake at 8 km.
_NEAREST_PLAUSIBLE_MAX = 0.05
_FARTHEST_PLAUSIBLE_MEDIAN = 100.0
_FARTHEST_POSSIBLE = 1000.0  # renderers store 1e10, 1e5 or 65504 where they see nothing


@TRANSFORMS.register_module()
class LoadRGBD(BaseTransform):
    """Load the colour and the depth file of a frame.

    Required keys: ``img_path``, ``depth_path``, ``frame``, ``depth_scale``, ``depth_invalid``,
    ``min_depth``, ``max_depth``, ``depth_kind`` (all written by
    :class:`~mmmask3d.datasets.RGBDDataset`). With ``confidence_path`` and ``min_confidence``,
    readings whose confidence is lower are none, see
    :func:`~mmmask3d.datasets.confidence.read_confidence`.

    Added keys:

    - ``img``: (H, W, 3) uint8, BGR as everywhere in mmcv.
    - ``depth``: (H, W) float32, metres (or relative), 0 where there is no reading.
    - ``valid``: (H, W) bool, True where there is a reading; somewhere there is one.
    - ``img_shape``, ``ori_shape``: (H, W).

    Where ``decode_later`` says that ``RGBDRandomResizedCrop`` comes next, which works on no more
    than it needs, ``img`` and ``depth`` may be those of :mod:`mmmask3d.datasets.lazy_frame`.

    The first metric frame whose largest reading is below 5 cm, or whose median reading is beyond
    100 m, is reported: the unit is probably wrong.

    Args:
        backend_args: File backend, see :func:`mmengine.fileio.get`.
        reduced_decoding: Whether a JPEG that ``RGBDRandomResizedCrop`` scales down at least twofold
            right after this may be decoded at 1/2, 1/4 or 1/8 of its size.

    Raises:
        FileNotFoundError: One of the files is missing.
        FrameError: One of them cannot be read, their sizes differ, or depth holds no reading.
    """

    def __init__(
        self,
        backend_args: dict | None = None,
        reduced_decoding: bool = True,
    ) -> None:
        self.reduced_decoding = reduced_decoding
        self.backend_args = None if backend_args is None else dict(backend_args)
        self._warned = False

    def transform(self, results: dict) -> dict:
        """Load the frame."""
        later = results.pop('decode_later', False)
        img_path, depth_path = results['img_path'], results['depth_path']
        content = read_file(img_path, results, self.backend_args)
        raw = decode_depth(read_file(depth_path, results, self.backend_args), depth_path)
        img: np.ndarray | LazyJpeg
        if later and self.reduced_decoding and content.startswith(JPEG_SIGNATURE):
            header = read_colour_header(content, img_path)
            img = LazyJpeg(content, img_path, (header.height, header.width))
        else:
            img = decode_colour(content, img_path)
        size = img.shape[:2]
        if size != raw.shape:
            raise FrameError(
                f"frame '{results['frame']}': colour and depth differ in size: {img_path} is "
                f'{size[0]}x{size[1]}, {depth_path} is {raw.shape[0]}x{raw.shape[1]} '
                f'(height x width). Register depth to colour and resize it (nearest) first.'
                + orientation_hint(content)
            )
        settings = (
            results['depth_scale'],
            tuple(results['depth_invalid']),
            results['min_depth'],
            results['max_depth'],
            results['depth_kind'],
        )
        unsure = results.get('confidence_path')
        depth: np.ndarray | LazyDepth
        if later and not unsure and _surely_plausible(raw, settings):
            depth, valid = LazyDepth(raw, settings), None
        else:
            depth, valid = to_readings(raw, *settings)
            if not valid.any():
                raise FrameError(_no_reading(raw, results))
            if unsure:
                path = results['confidence_path']
                map_file = read_file(path, results, self.backend_args)
                valid = sure_readings(map_file, path, valid, results['min_confidence'])
                depth = zero_where_invalid(depth, valid)
            if results['depth_kind'] == 'metric':
                self._check_unit(depth, valid, results)
        results.update(img=img, depth=depth, valid=valid, img_shape=size, ori_shape=size)
        return results

    def _check_unit(self, depth: np.ndarray, valid: np.ndarray, results: dict) -> None:
        doubt = None if self._warned else doubtful_unit(depth, valid)
        if doubt:
            self._warned = True
            print_log(
                f"frame '{results['frame']}' ({results['depth_path']}) with depth_scale="
                f'{results["depth_scale"]:g}: {doubt} Further frames are not reported by this '
                f'process.',
                logger='current',
                level=logging.WARNING,
            )

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(backend_args={self.backend_args}, '
            f'reduced_decoding={self.reduced_decoding})'
        )


def read_file(path: str, results: dict, backend_args: dict | None) -> bytes:
    """Read a file of a frame.

    Raises:
        FileNotFoundError: It does not exist.
        FrameError: It cannot be read.
    """
    try:
        content = fileio.get(path, backend_args=backend_args)
        if content is None:  # how key-value backends (LMDB) report a missing key
            raise FileNotFoundError(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"frame '{results['frame']}': {path} does not exist. Check data_root, data_prefix, "
            f"the suffixes and the index file, or set on_error='drop'."
        ) from error
    except OSError as error:
        raise FrameError(f"frame '{results['frame']}': {path} cannot be read: {error}") from error
    return bytes(content)  # some backends give a memoryview; bytes are not copied


def _surely_plausible(raw: np.ndarray, settings: tuple) -> bool:
    """Whether some of the pixels and the largest show a reading of a possible unit."""
    depth, valid = to_readings(raw[::8, ::8], *settings)
    depth_scale, depth_kind = settings[0], settings[-1]
    plausible = (
        depth.max() >= _NEAREST_PLAUSIBLE_MAX
        and raw.max() <= _FARTHEST_PLAUSIBLE_MEDIAN * depth_scale
    )
    return bool(valid.any() and (plausible or depth_kind == 'relative'))


def _no_reading(raw: np.ndarray, results: dict) -> str:
    """Message for a depth map without a reading: what is stored and what the settings allow."""
    scale, max_depth = results['depth_scale'], results['max_depth']
    stored = raw[np.isfinite(raw)]
    if stored.size:
        low, high = float(stored.min()), float(stored.max())
        found = f'from {low:g} to {high:g}, with depth_scale={scale:g} that is '
        found += f'{low / scale:g} to {high / scale:g}'
    else:
        found = 'NaN or infinite'
    return (
        f"frame '{results['frame']}': {results['depth_path']} has no depth reading: all stored "
        f'values are {found}. No reading are depth_invalid={results["depth_invalid"]}, values '
        f'below min_depth={results["min_depth"]:g}'
        + ('' if max_depth is None else f' and beyond max_depth={max_depth:g}')
        + ". Correct what is wrong of these, or leave such frames out with on_error='drop'."
    )


def doubtful_unit(depth: np.ndarray, valid: np.ndarray) -> str:
    """What about metric depth makes its unit doubtful; '' for nothing.

    Args:
        depth: (H, W) in metres, 0 where there is no reading.
        valid: (H, W) bool, with at least one reading.
    """
    largest = float(depth.max())
    # "More than half of the readings are too far" is the median without sorting.
    too_far = largest > _FARTHEST_PLAUSIBLE_MEDIAN and (
        2 * np.count_nonzero(depth > _FARTHEST_PLAUSIBLE_MEDIAN) > np.count_nonzero(valid)
    )
    if largest > _FARTHEST_POSSIBLE and not too_far:
        return (
            f'the largest depth is {largest:g} m where most is below {_FARTHEST_PLAUSIBLE_MEDIAN} '
            f'm: probably a code for "no reading", which would enter every average. Set '
            f'depth_invalid or max_depth.'
        )
    if largest >= _NEAREST_PLAUSIBLE_MAX and not too_far:
        return ''
    guess = 'beyond 100 m: millimetres' if too_far else 'below 5 cm: metres'
    other = 'metres' if too_far else 'millimetres'
    median = float(np.median(depth[valid]))
    return (
        f'depth unit looks wrong: largest depth {largest:g} m, median {median:g} m ({guess} read '
        f"as {other}?). Set depth_scale to the data set's unit (1000 for millimetres, 1 for "
        f"metres), or depth_kind='relative' if it has none."
    )
