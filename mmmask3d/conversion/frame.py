"""One converted frame: how it is resized, encoded and measured."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import cv2
import numpy as np

from mmmask3d.datasets.depth_io import FrameError, decode_colour, decode_depth
from mmmask3d.datasets.image_header import JPEG_SIGNATURE, PNG_SIGNATURE, describe
from mmmask3d.datasets.nearest import resize_nearest
from mmmask3d.datasets.orientation import orientation_hint

JPEG_QUALITY = 95
#: How the colour files that are stored as they are begin, by suffix.
SIGNATURES = {'.jpg': JPEG_SIGNATURE, '.png': PNG_SIGNATURE}
_ASPECT_TOLERANCE = 0.03  # ScanNet's colour (1296x968) and depth (640x480) differ by 0.4 %


@dataclass
class Frame:
    """One frame as a converter read it.

    Attributes:
        images: By output folder. Colour: (H, W, 3) uint8 BGR, or the bytes of a JPEG or PNG file,
            which are stored unchanged where the size is right already. Depth: (H, W) uint16 in
            stored units (uint8 where the source holds no more) with 0 for "no reading", or
            float32 (stored as ``.npy``), where NaN, infinity and negative values are no reading
            either. Labels: (H, W) uint8, 0 = unlabelled. Instances: (H, W) uint16, 0 = none.
        categories: COCO category id of each id in ``images['instance']``. Ids that are left out
            get no annotation.
        crowds: Ids in ``images['instance']`` that are a group of things, COCO's ``iscrowd``.
        extra: Anything else worth keeping of this frame, as JSON: pose, time stamps. The lines of
            ``frames.jsonl`` in the output.
        unsure: Share of the readings of depth that were dropped for low confidence; None where
            there is no confidence.
    """

    images: dict[str, np.ndarray | bytes]
    categories: Mapping[int, int] = field(default_factory=dict)
    extra: dict = field(default_factory=dict)
    crowds: Collection[int] = ()
    unsure: float | None = None


class CheckedBytes(bytes):
    """Bytes of a colour file that were decoded without damage, so need not be once more.

    Attributes:
        shape: What they decode to, (H, W, 3).
    """

    shape: tuple[int, ...]

    def __new__(cls, content: bytes, shape: tuple[int, ...]) -> 'CheckedBytes':  # noqa: D102
        self = super().__new__(cls, content)
        self.shape = shape
        return self


def store_depth(depth: np.ndarray, valid: np.ndarray, scale: float) -> np.ndarray:
    """Turn metres into 16 bits; what does not fit becomes "no reading" instead of wrapping round.

    Args:
        depth: (H, W) float, metres; anything where ``valid`` is False.
        valid: (H, W) bool.
        scale: Stored units per metre.

    Returns:
        (H, W) uint16, 0 where there is no reading.
    """
    with np.errstate(invalid='ignore', over='ignore'):
        stored = np.rint(np.asarray(depth, np.float64) * scale)
        fits = np.asarray(valid, bool) & (stored >= 1) & (stored <= 65535)
    return np.where(fits, stored, 0).astype(np.uint16)


def bring_to_size(
    images: Mapping[str, np.ndarray | bytes], size: tuple[int, int] | None, where: str
) -> dict[str, Any]:
    """Bring all images of a frame to one size: colour by area, everything else nearest.

    Args:
        images: As in :class:`Frame`.
        size: (width, height); None for the size of ``depth``, or of ``rgb`` without depth.
        where: The frame, for messages.

    Returns:
        Arrays of one size; a colour file that has it already as :class:`CheckedBytes`.

    Raises:
        FrameError: A file cannot be decoded, or the size has another aspect ratio.
        TypeError: An image is not of a type that :class:`Frame` allows.
    """
    arrays = {
        kind: decode_colour(image, where) if isinstance(image, bytes) else image
        for kind, image in images.items()
    }
    for kind, array in arrays.items():
        _check_type(kind, array, where)
    if size is None:
        leading = next(kind for kind in ('depth', 'rgb', *arrays) if kind in arrays)
        size = arrays[leading].shape[1::-1]
    result: dict[str, Any] = {}
    for kind, array in arrays.items():
        original = images[kind]
        if array.shape[1::-1] != size:
            hint = orientation_hint(original) if isinstance(original, bytes) else ''
            result[kind] = _resized(kind, array, size, where, hint)
        elif isinstance(original, bytes):
            result[kind] = CheckedBytes(original, array.shape)
        else:
            result[kind] = array
    return result


def _check_type(kind: str, array: np.ndarray, where: str) -> None:
    """Raise where a converter gives what would be stored as something else."""
    if kind == 'rgb' or array.ndim == 3:
        fits = array.ndim == 3 and array.shape[2] == 3 and array.dtype == np.uint8
        expected = '(H, W, 3) uint8'
    else:
        depth = kind.startswith('depth')
        types = (np.uint8, np.uint16, np.float32) if depth else (np.uint8, np.uint16)
        fits = array.ndim == 2 and array.dtype in types
        expected = f'(H, W) of {", ".join(t.__name__ for t in types)}'
    if not fits or not array.size:
        raise TypeError(f'{where}: {kind} is {array.shape} {array.dtype}, expected {expected}')


def _resized(
    kind: str, array: np.ndarray, size: tuple[int, int], where: str, hint: str
) -> np.ndarray:
    height, width = array.shape[:2]
    if abs(width * size[1] / (height * size[0]) - 1) > _ASPECT_TOLERANCE:
        raise FrameError(
            f'{where}: {kind} of {width}x{height} (width x height) would be distorted by bringing '
            f'it to {size[0]}x{size[1]}.'
            + (hint or ' Choose --size with the aspect ratio of the data set.')
        )
    if array.ndim == 3:
        # Area averages over all source pixels, so that shrinking does not alias.
        return cv2.resize(array, size, interpolation=cv2.INTER_AREA)
    return resize_nearest(array, size)


def encode(image: np.ndarray | bytes, suffix: str, where: str) -> bytes:
    """Encode an image and check that what was encoded decodes to the same.

    Args:
        image: As in :attr:`Frame.images`.
        suffix: How the file's name ends: in '.jpg', '.png' or '.npy'.
        where: The frame, for messages.

    Raises:
        FrameError: Bytes given as they are do not decode, or are of another format than
            ``suffix``.
        TypeError: The suffix cannot hold the type of the image.
    """
    suffix = '.' + suffix.rpartition('.')[2]
    if isinstance(image, bytes):
        return _checked_bytes(image, suffix, where)
    if suffix == '.png' and image.dtype.kind == 'f':  # OpenCV would store 8 bits of it
        raise TypeError(f'{where}: {image.dtype} cannot be stored as .png; use .npy')
    if suffix == '.npy':
        buffer = BytesIO()
        np.save(buffer, image)
        data = buffer.getvalue()
    else:
        options = {
            '.jpg': [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY],
            '.png': [cv2.IMWRITE_PNG_COMPRESSION, 3],
        }[suffix]
        done, encoded = cv2.imencode(suffix, image, options)
        if not done:
            raise RuntimeError(f'{where}: OpenCV could not encode {image.shape} as {suffix}')
        data = encoded.tobytes()
    back = decode_colour(data, where) if image.ndim == 3 else decode_depth(data, where)
    same = back.shape == image.shape if suffix == '.jpg' else np.array_equal(back, image)
    if not same or (suffix != '.jpg' and back.dtype != image.dtype):
        raise RuntimeError(
            f'{where}: {suffix} decodes to {back.dtype}{back.shape} other than what was '
            f'encoded, {image.dtype}{image.shape}'
        )
    return data


def _checked_bytes(content: bytes, suffix: str, where: str) -> bytes:
    if not content.startswith(SIGNATURES[suffix]):
        raise FrameError(f'{where}: expected a {suffix} file, found {describe(content)}.')
    if not isinstance(content, CheckedBytes):
        decode_colour(content, where)
    return content


def measure(kind: str, image: np.ndarray | bytes) -> dict:
    """What the manifest sums up about one image.

    Returns:
        Depth: ``invalid`` (share), and of the readings, if there is any, ``low``, ``median``,
        ``high`` in stored units. Labels and instances: ``pixels``, by id. Colour: nothing.
    """
    if isinstance(image, bytes) or image.ndim == 3:
        return {}
    if not kind.startswith('depth'):
        counts = np.bincount(image.ravel())
        return {'pixels': {str(i): int(counts[i]) for i in np.flatnonzero(counts)}}
    readings = image[(image > 0) & (image < np.inf)]  # NaN compares False
    if not readings.size:
        return {'invalid': 1.0}
    return {
        'invalid': round(1 - readings.size / image.size, 6),
        'low': float(readings.min()),
        'median': float(np.median(readings)),
        'high': float(readings.max()),
    }
