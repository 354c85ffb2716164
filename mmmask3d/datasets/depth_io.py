"""Decode colour and depth files and turn stored depth into readings, naming the file on failure.

Everything that knows how depth is stored (bit depth, "no reading" codes, units) lives here, so
the loader, the checker and the converters cannot disagree about what a reading is.
"""

from collections.abc import Sequence
from functools import lru_cache
from io import BytesIO

import cv2
import numpy as np

from mmmask3d.datasets.image_header import (
    JPEG_SIGNATURE,
    PNG_SIGNATURE,
    declared_size,
    png_damage,
)

#: Pixels a file may declare, 134 million: five times the largest frames of public RGB-D data sets
#: (ETH3D, 24 million), decoded into 400 MB at most.
MAX_PIXELS = 2**27
_PNG_COLOUR_TYPES = {
    2: '3 channels (RGB)',
    3: 'a colour palette',
    4: '2 channels (grey and alpha)',
    6: '4 channels (RGBA)',
}
_COLOUR_AS_STORED = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
_NPY_SIGNATURE = b'\x93NUMPY'
_NPY_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
_JPEG_START_OF_SCAN = b'\xff\xda'
_JPEG_END = b'\xff\xd9'


class FrameError(ValueError):
    """One frame of a data set cannot be used: unreadable file, wrong type, sizes that differ.

    A class of its own so that ``on_error='drop'`` skips bad *frames* only and never hides a
    wrong configuration or a programming error.
    """


def check_complete(content: bytes, path: str) -> None:
    """Raise where a PNG or JPEG file ends too early.

    OpenCV releases differ: some return the half they could decode, filled up with zeros or grey,
    which would pass for a frame. Other formats are not looked at.

    Args:
        content: The bytes of the file.
        path: Its name, for the message.

    Raises:
        FrameError: The end marker is missing.
    """
    if content.startswith(PNG_SIGNATURE):
        kind, damage = 'PNG', png_damage(content)
    elif content.startswith(JPEG_SIGNATURE):
        # An embedded thumbnail has an end marker too, hence "after the last scan began".
        complete = content.endswith(_JPEG_END) or (
            content.rfind(_JPEG_END) > content.rfind(_JPEG_START_OF_SCAN) > 0
        )
        kind, damage = 'JPEG', '' if complete else 'no end-of-image marker'
    else:
        return
    if damage:
        raise FrameError(
            f'{path}: truncated {kind} file ({len(content)} bytes, {damage}). '
            f'Copy or convert the file again.'
        )


def check_size(content: bytes, path: str) -> None:
    """Raise where a PNG or JPEG file declares a size that no frame has.

    Without decoding it, since a file of a few bytes can declare any. Other formats are not looked
    at; OpenCV refuses them beyond 2^30 pixels.

    Args:
        content: The bytes of the file.
        path: Its name, for the message.

    Raises:
        FrameError: It declares no pixel, or more than :data:`MAX_PIXELS`.
    """
    size = declared_size(content)
    if size is not None and not 0 < size[0] * size[1] <= MAX_PIXELS:
        raise FrameError(
            f'{path}: declares {size[1]}x{size[0]} pixels (width x height), expected 1 to '
            f'{MAX_PIXELS} in all. The file is damaged; copy or convert it again.'
        )


def decode_colour(content: bytes, path: str, backend: str = 'cv2') -> np.ndarray:
    """Decode a colour image.

    EXIF orientation is ignored: the depth file carries none, so turning only the colour image
    would tear the pair apart.

    Args:
        content: The bytes of the file.
        path: Its name, for the message.
        backend: Decoder of :func:`mmcv.imfrombytes` ('cv2', 'turbojpeg', 'pillow').

    Returns:
        (H, W, 3) uint8, channels in BGR order.

    Raises:
        FrameError: The file is empty, truncated, not an image, or too large.
    """
    if not content:
        raise FrameError(f'{path}: the file is empty, expected a colour image.')
    check_complete(content, path)
    check_size(content, path)
    flag = 'color' if backend == 'turbojpeg' else 'color_ignore_orientation'
    try:
        if backend == 'cv2':
            image = cv2.imdecode(np.frombuffer(content, np.uint8), _COLOUR_AS_STORED)
        else:
            import mmcv  # imports torch, which converters do without

            image = mmcv.imfrombytes(content, flag=flag, backend=backend)
    except (cv2.error, OSError) as error:  # pillow reports unreadable data as OSError
        raise FrameError(f'{path}: cannot be decoded as a colour image ({error}).') from error
    if image is None:
        raise FrameError(
            f'{path}: cannot be decoded as a colour image ({len(content)} bytes, starts with '
            f'{content[:8]!r}). The file is damaged or no image.'
        )
    return image


def decode_depth(content: bytes, path: str) -> np.ndarray:
    """Decode a stored depth map without interpreting its values.

    8- or 16-bit single-channel PNG, or ``.npy`` of any integer or float type; told apart by
    their first bytes, not by the file name. JPEG is refused: lossy compression blends readings
    with the "no reading" code.

    Args:
        content: The bytes of the file.
        path: Its name, for the message.

    Returns:
        (H, W), in the type it is stored in.

    Raises:
        FrameError: Unreadable, not single-channel, or of a type that holds no depth.
    """
    if not content:
        raise FrameError(f'{path}: the file is empty, expected a depth map.')
    if content.startswith(_NPY_SIGNATURE):
        return _decode_npy(content, path)
    if content.startswith(PNG_SIGNATURE):
        return _decode_png(content, path)
    what = 'a JPEG, which is lossy' if content.startswith(JPEG_SIGNATURE) else 'something else'
    raise FrameError(
        f'{path}: expected depth as 8- or 16-bit single-channel PNG or as .npy, found {what} '
        f'(starts with {content[:8]!r}). Convert the depth files, or check depth_suffix and '
        f"data_prefix['depth_path']."
    )


def _decode_npy(content: bytes, path: str) -> np.ndarray:
    stream = BytesIO(content)
    try:
        shape, _, dtype = _NPY_HEADERS[np.lib.format.read_magic(stream)](stream)
    except KeyError as error:
        raise FrameError(f'{path}: unreadable .npy file (version {error}).') from error
    except Exception as error:
        # The header is a Python literal; numpy lets through whatever a damaged one leads to:
        # tokenize.TokenError, TypeError, RecursionError, ...
        raise FrameError(f'{path}: unreadable .npy file ({error}).') from error
    if len(shape) != 2 or 0 in shape:
        raise FrameError(f'{path}: expected a depth map of shape (H, W), found {shape}.')
    if dtype.kind not in 'uif':
        raise FrameError(
            f'{path}: expected depth of an integer or float type, found {dtype}. '
            f'Save it as uint16 or float32.'
        )
    needed, found = shape[0] * shape[1] * dtype.itemsize, len(content) - stream.tell()
    # Before loading, which would make room for what the header says.
    if found < needed or min(shape) < 0:
        raise FrameError(
            f'{path}: unreadable .npy file: {shape} of {dtype} takes {needed} bytes from byte '
            f'{stream.tell()} on, found {found}. Copy or convert the file again.'
        )
    stream.seek(0)
    return np.load(stream, allow_pickle=False)


def _decode_png(content: bytes, path: str) -> np.ndarray:
    check_complete(content, path)
    check_size(content, path)
    # IHDR is always the first chunk: byte 24 is the bit depth, byte 25 the colour type. Asked
    # here because OpenCV widens 1, 2 and 4 bits, which changes the stored values.
    if content[12:16] != b'IHDR':
        raise FrameError(f'{path}: damaged PNG file (no IHDR chunk). Copy or convert it again.')
    bits, colour_type = content[24], content[25]
    if colour_type in _PNG_COLOUR_TYPES:
        raise FrameError(
            f'{path}: expected a single-channel depth map, found {_PNG_COLOUR_TYPES[colour_type]}. '
            f'This looks like a colour image or a colour-mapped rendering of depth; give the raw '
            f"depth files (data_prefix['depth_path'], depth_suffix)."
        )
    if bits not in (8, 16):
        raise FrameError(f'{path}: expected 8 or 16 bits per depth value, found {bits}.')
    try:
        raw = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise FrameError(f'{path}: cannot be decoded as a depth map ({error}).') from error
    if raw is None:
        raise FrameError(
            f'{path}: cannot be decoded as a depth map ({len(content)} bytes). '
            f'The file is damaged; copy or convert it again.'
        )
    if raw.ndim != 2:
        raise FrameError(f'{path}: expected a single-channel depth map, found {raw.shape}.')
    return raw


def to_readings(
    raw: np.ndarray,
    depth_scale: float,
    depth_invalid: Sequence[float] = (0,),
    min_depth: float = 0.0,
    max_depth: float | None = None,
    depth_kind: str = 'metric',
) -> tuple[np.ndarray, np.ndarray]:
    """Turn stored values into depth and validity.

    Not a reading are: the values of ``depth_invalid``, NaN, infinities, negative values,
    depth below ``min_depth`` or beyond ``max_depth``, and, for metric depth, 0 m.

    Args:
        raw: (H, W), as stored.
        depth_scale: Stored units per metre (relative depth: the stored value of 1.0).
        depth_invalid: Stored values that mean "no reading", compared before scaling.
        min_depth: In metres (relative depth: after scaling).
        max_depth: In metres (relative depth: after scaling); None for no limit.
        depth_kind: 'metric' or 'relative'.

    Returns:
        depth: (H, W) float32, 0 where there is no reading.
        valid: (H, W) bool, True where there is one.
    """
    limits = stored_limits(
        raw.dtype, depth_scale, tuple(depth_invalid), min_depth, max_depth, depth_kind
    )
    if limits is not None:
        low, high = limits
        depth = np.divide(raw, depth_scale, dtype=np.float32)
        valid = raw >= low
        if high < np.iinfo(raw.dtype).max:
            valid &= raw <= high
        elif low <= 1:
            return depth, valid  # only 0 is no reading, and it is 0 already
        return zero_where_invalid(depth, valid), valid
    return _to_readings(raw, depth_scale, depth_invalid, min_depth, max_depth, depth_kind)


@lru_cache(maxsize=64)
def stored_limits(
    dtype: np.dtype,
    depth_scale: float,
    depth_invalid: tuple[float, ...] = (0,),
    min_depth: float = 0.0,
    max_depth: float | None = None,
    depth_kind: str = 'metric',
) -> tuple[int, int] | None:
    """Smallest and largest stored value that is a reading, where all between are readings too.

    Comparing 8 or 16 bits with two numbers takes a fraction of the time of comparing metres. The
    limits are found by trying every value, so they cannot differ from the definition.

    Args:
        dtype: Type that depth is stored in.
        depth_scale: See :func:`to_readings`.
        depth_invalid: Likewise.
        min_depth: Likewise.
        max_depth: Likewise.
        depth_kind: Likewise.

    Returns:
        The limits, (1, 0) where no value is a reading; None for other types than uint8 and uint16
        and where ``depth_invalid`` leaves gaps.
    """
    if dtype not in (np.uint8, np.uint16):
        return None
    values = np.arange(np.iinfo(dtype).max + 1).astype(dtype)
    valid = _to_readings(values, depth_scale, depth_invalid, min_depth, max_depth, depth_kind)[1]
    readings = np.flatnonzero(valid)
    if not len(readings):
        return 1, 0
    low, high = int(readings[0]), int(readings[-1])
    return (low, high) if len(readings) == high - low + 1 else None


def _to_readings(
    raw: np.ndarray,
    depth_scale: float,
    depth_invalid: Sequence[float],
    min_depth: float,
    max_depth: float | None,
    depth_kind: str,
) -> tuple[np.ndarray, np.ndarray]:
    """:func:`to_readings` for every type."""
    # Float64 input stays float64 until it is divided; 8 and 16 bits are exact in float32.
    wide = raw.dtype == np.float64 or (raw.dtype.kind in 'ui' and raw.dtype.itemsize > 2)
    with np.errstate(over='ignore', invalid='ignore'):
        depth = np.divide(raw, depth_scale, dtype=np.float64 if wide else np.float32)
        depth = depth.astype(np.float32, copy=False)
    # Comparisons with NaN are False, so NaN leaves here already.
    valid = depth > 0 if depth_kind == 'metric' else depth >= 0
    if max_depth is not None:
        valid &= depth <= np.float32(max_depth)
    elif raw.dtype.kind == 'f':
        valid &= depth < np.inf
    if min_depth > 0:
        valid &= depth >= np.float32(min_depth)
    for value in depth_invalid:
        if value == 0 and depth_kind == 'metric':
            continue  # excluded by depth > 0
        valid &= raw != value
    return zero_where_invalid(depth, valid), valid


def zero_where_invalid(depth: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Copy of a depth map with 0 where there is no reading.

    Args:
        depth: (H, W) float32; anything, NaN included, where ``valid`` is False.
        valid: (H, W) bool.

    Returns:
        (H, W) float32, contiguous.
    """
    # A masked copy into a zeroed array: a tenth of the time of np.where, and NaN * 0 is NaN.
    return cv2.copyTo(depth, valid.view(np.uint8))
