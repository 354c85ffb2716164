"""Load one RGB-D frame: colour, depth in metres (or relative) and validity."""

import logging

import numpy as np
from mmcv.transforms import BaseTransform
from mmengine import fileio
from mmengine.logging import print_log

from mmmask3d.datasets.depth_io import FrameError, decode_colour, decode_depth, to_readings
from mmmask3d.registry import TRANSFORMS

# No RGB-D camera reads a whole frame closer than 5 cm or half a frame beyond 100 m. A metres file
# read as millimetres puts an 8 m room at 8 mm, the opposite mistake at 8 km.
_NEAREST_PLAUSIBLE_MAX = 0.05
_FARTHEST_PLAUSIBLE_MEDIAN = 100.0
_MAX_UNIT_WARNINGS = 5


@TRANSFORMS.register_module()
class LoadRGBD(BaseTransform):
    """Load the colour and the depth file of a frame.

    Required keys: ``img_path``, ``depth_path``, ``frame``, ``depth_scale``, ``depth_invalid``,
    ``min_depth``, ``max_depth``, ``depth_kind`` (all written by
    :class:`~mmmask3d.datasets.RGBDDataset`).

    Added keys:

    - ``img``: (H, W, 3) uint8, BGR as everywhere in mmcv.
    - ``depth``: (H, W) float32, metres (or relative), 0 where there is no reading.
    - ``valid``: (H, W) bool, True where there is a reading; somewhere there is one.
    - ``img_shape``, ``ori_shape``: (H, W).

    A metric frame whose largest reading is below 5 cm, or whose median reading is beyond 100 m,
    is reported once (and at most five frames by one loader of one process): its unit is
    probably wrong.

    Args:
        imdecode_backend: Decoder of the colour image, see :func:`mmcv.imfrombytes`.
        backend_args: File backend, see :func:`mmengine.fileio.get`.

    Raises:
        FileNotFoundError: One of the two files is missing.
        FrameError: One of them cannot be read, their sizes differ, or depth holds no reading.
    """

    def __init__(self, imdecode_backend: str = 'cv2', backend_args: dict | None = None) -> None:
        self.imdecode_backend = imdecode_backend
        self.backend_args = None if backend_args is None else dict(backend_args)
        self._warned: set[str] = set()

    def transform(self, results: dict) -> dict:
        """Load the frame."""
        img_path, depth_path = results['img_path'], results['depth_path']
        img = decode_colour(self._read(img_path, results), img_path, self.imdecode_backend)
        raw = decode_depth(self._read(depth_path, results), depth_path)
        if img.shape[:2] != raw.shape:
            raise FrameError(
                f"frame '{results['frame']}': colour and depth differ in size: {img_path} is "
                f'{img.shape[0]}x{img.shape[1]}, {depth_path} is {raw.shape[0]}x{raw.shape[1]} '
                f'(height x width). Register depth to colour and resize it (nearest) first.'
            )
        depth, valid = to_readings(
            raw,
            results['depth_scale'],
            results['depth_invalid'],
            results['min_depth'],
            results['max_depth'],
            results['depth_kind'],
        )
        if not valid.any():
            raise FrameError(_no_reading(raw, results))
        if results['depth_kind'] == 'metric':
            self._check_unit(depth, valid, results)
        results['img'] = img
        results['depth'] = depth
        results['valid'] = valid
        results['img_shape'] = results['ori_shape'] = img.shape[:2]
        return results

    def _read(self, path: str, results: dict) -> bytes:
        try:
            content = fileio.get(path, backend_args=self.backend_args)
            if content is None:  # how key-value backends (LMDB) report a missing key
                raise FileNotFoundError(path)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"frame '{results['frame']}': {path} does not exist. Check data_root, "
                f"data_prefix, the suffixes and the index file, or set on_error='drop'."
            ) from error
        except OSError as error:
            raise FrameError(
                f"frame '{results['frame']}': {path} cannot be read: {error}"
            ) from error
        return bytes(content)  # some backends give a memoryview; bytes are not copied

    def _check_unit(self, depth: np.ndarray, valid: np.ndarray, results: dict) -> None:
        frame = results['frame']
        largest = float(depth.max())
        if len(self._warned) >= _MAX_UNIT_WARNINGS or frame in self._warned:
            return
        # "More than half of the readings are too far" is the median without sorting.
        too_far = largest > _FARTHEST_PLAUSIBLE_MEDIAN and (
            2 * np.count_nonzero(depth > _FARTHEST_PLAUSIBLE_MEDIAN) > np.count_nonzero(valid)
        )
        if largest >= _NEAREST_PLAUSIBLE_MAX and not too_far:
            return
        self._warned.add(frame)
        median = float(np.median(depth[valid]))
        guess = (
            'Are the median readings beyond 100 m because depth_scale is too small (millimetres '
            'read as metres)?'
            if too_far
            else 'Is depth_scale too large (a metres file read as millimetres)?'
        )
        last = len(self._warned) == _MAX_UNIT_WARNINGS
        print_log(
            f"frame '{frame}' ({results['depth_path']}): depth unit looks wrong: largest depth "
            f'{largest:g} m, median {median:g} m, with depth_scale={results["depth_scale"]:g} '
            f"stored units per metre. {guess} Set depth_scale to the data set's unit (1000 for "
            f"millimetres, 1 for metres), or depth_kind='relative' if it has none."
            + (' Further frames are not reported by this process.' if last else ''),
            logger='current',
            level=logging.WARNING,
        )

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(imdecode_backend={self.imdecode_backend!r}, '
            f'backend_args={self.backend_args})'
        )


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
