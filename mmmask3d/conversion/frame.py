"""One converted frame: how it is resized, encoded and measured."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from io import BytesIO

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
) -> tuple[dict[str, np.ndarray], dict[str, bytes]]:
    """Bring all images of a frame to one size: colour by area, everything else nearest.

    Args:
        images: As in :class:`Frame`.
        size: (width, height); None for the size of ``depth``, or of ``rgb`` without depth.
        where: The frame, for messages.

    Returns:
        Arrays of one size, and the files among ``images`` that have it already.

    Raises:
        FrameError: A file cannot be decoded, or the size has another aspect ratio.
    """
    arrays = {
        kind: decode_colour(image, where) if isinstance(image, bytes) else image
        for kind, image in images.items()
    }
    if size is None:
        leading = next(kind for kind in ('depth', 'rgb', *arrays) if kind in arrays)
        size = arrays[leading].shape[1::-1]
    files = {}
    for kind, array in arrays.items():
        original = images[kind]
        if array.shape[1::-1] != size:
            hint = orientation_hint(original) if isinstance(original, bytes) else ''
            arrays[kind] = _resized(kind, array, size, where, hint)
        elif isinstance(original, bytes):
            files[kind] = original
    return arrays, files


def same_aspect(size: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two sizes (width, height) have one shape, to 3 %."""
    return abs(size[0] * other[1] / (size[1] * other[0]) - 1) <= _ASPECT_TOLERANCE


def _resized(
    kind: str, array: np.ndarray, size: tuple[int, int], where: str, hint: str
) -> np.ndarray:
    height, width = array.shape[:2]
    if not same_aspect((width, height), size):
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
        image: An array as in :attr:`Frame.images`; or a colour file that :func:`bring_to_size` has
            decoded, which stays as it is.
        suffix: How the file's name ends: in '.jpg', '.png' or '.npy'.
        where: The frame, for messages.

    Raises:
        FrameError: The file is of another format than ``suffix``.
        RuntimeError: The suffix cannot hold the image.
    """
    suffix = '.' + suffix.rpartition('.')[2]
    if isinstance(image, bytes):
        if not image.startswith(SIGNATURES[suffix]):
            raise FrameError(f'{where}: expected a {suffix} file, found {describe(image)}.')
        return image
    if suffix == '.npy':
        buffer = BytesIO()
        np.save(buffer, image)
        data = buffer.getvalue()
    else:
        options = {
            '.jpg': [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY],
            '.png': [cv2.IMWRITE_PNG_COMPRESSION, 3],
        }[suffix]
        data = cv2.imencode(suffix, image, options)[1].tobytes()
    back = decode_colour(data, where) if image.ndim == 3 else decode_depth(data, where)
    same = back.shape == image.shape if suffix == '.jpg' else np.array_equal(back, image)
    if not same or (suffix != '.jpg' and back.dtype != image.dtype):
        raise RuntimeError(
            f'{where}: {suffix} decodes to {back.dtype}{back.shape} other than what was '
            f'encoded, {image.dtype}{image.shape}'
        )
    return data


def measure(kind: str, image: np.ndarray) -> dict:
    """What the manifest sums up about one image.

    Returns:
        Depth: ``invalid`` (share), and of the readings, if there is any, ``low``, ``median``,
        ``high`` in stored units. Labels and instances: ``pixels``, by id. Colour: nothing.
    """
    if image.ndim == 3:
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
