"""Decode colour and depth files and turn stored depth into readings, naming the file on failure.

Everything that knows how depth is stored (bit depth, "no reading" codes, units) lives here, so
the loader, the checker and the converters cannot disagree about what a reading is.
"""

from collections.abc import Sequence
from io import BytesIO
from typing import Any

import cv2
import numpy as np
from PIL import Image

from mmmask3d.datasets.frame_error import FrameError as FrameError
from mmmask3d.datasets.image_header import (
    DeclaredImage,
    declared_image,
    describe,
    file_format,
    jpeg_damage,
    png_damage,
)
from mmmask3d.datasets.tiff import read_tiff

#: Pixels a file may declare, 134 million: five times the largest frames of public RGB-D data sets
#: (ETH3D, 24 million), decoded into 400 MB at most.
MAX_PIXELS = 2**27
#: Colour formats that Pillow decodes, by its names of them.
_PILLOW_FORMATS = {
    'AVIF': 'AVIF',
    'BMP': 'BMP',
    'GIF': 'GIF',
    'JPEG 2000': 'JPEG2000',
    'PNM': 'PPM',
    'WebP': 'WEBP',
}
_PILLOW_MODES = '1', 'L', 'LA', 'P', 'PA', 'RGB', 'RGBA', 'RGBX'
_NO_DEPTH = {
    'JPEG': 'JPEG is lossy: it blends readings with holes',
    'ZIP or NPZ': 'an archive does not say which of its arrays is depth',
    'PFM': 'PFM files differ in their order of rows',
}
_COLOUR_AS_STORED = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION


def read_header(
    content: bytes, path: str, formats: Sequence[str] = ('PNG', 'JPEG')
) -> DeclaredImage:
    """Read the header of a complete PNG or JPEG file, without decoding it.

    OpenCV releases differ: some return the half they could decode of a file that ends too early,
    filled up with zeros or grey, which would pass for a frame. And a file of a few bytes can
    declare any size.

    Args:
        content: The bytes of the file.
        path: Its name, for the message.
        formats: Those that are expected.

    Raises:
        FrameError: It has another format, ends before its end marker, or declares no pixel or more
            than :data:`MAX_PIXELS`.
    """
    kind = file_format(content)
    if kind not in formats:
        raise FrameError(
            f'{path}: expected a {" or ".join(formats)} image, found {describe(content)}. Convert '
            f'it, or unpack the data set again.'
        )
    damage = png_damage(content) if kind == 'PNG' else jpeg_damage(content)
    if damage:
        raise FrameError(
            f'{path}: truncated {kind} file ({len(content)} bytes, {damage}). '
            f'Copy or convert the file again.'
        )
    header = declared_image(content)
    if header is None:
        raise FrameError(
            f'{path}: a damaged {kind} file, no header says its size. Copy or convert it again.'
        )
    _check_pixels((header.height, header.width), path)
    return header


def _check_pixels(size: tuple[int, int], path: str) -> None:
    if not 0 < size[0] * size[1] <= MAX_PIXELS:
        raise FrameError(
            f'{path}: declares {size[1]}x{size[0]} pixels (width x height), expected 1 to '
            f'{MAX_PIXELS} in all. The file is damaged; copy or convert it again.'
        )


def decode_colour(content: bytes, path: str) -> np.ndarray:
    """Decode a colour image.

    Pixels come as they are stored. EXIF orientation is ignored: the depth file carries none, so
    turning only the colour image would tear the pair apart. Grey becomes three equal channels,
    alpha is left out, and of 16 bits per channel the upper 8 are taken.

    JPEG, PNG, TIFF (8 or 16 bits), BMP, GIF, WebP, AVIF, JPEG 2000 and PNM, told apart by their
    first bytes. docs/data_format.md says what is refused.

    Args:
        content: The bytes of the file.
        path: Its name, for the message.

    Returns:
        (H, W, 3) uint8, channels in BGR order.

    Raises:
        FrameError: The file is empty, truncated, too large, not one image, or its values are no
            RGB.
    """
    if not content:
        raise FrameError(f'{path}: the file is empty, expected a colour image.')
    kind = file_format(content)
    if kind == 'TIFF':
        return _tiff_colour(content, path)
    if kind in _PILLOW_FORMATS:
        return _decode_with_pillow(content, path, kind)
    if kind not in ('JPEG', 'PNG'):
        raise FrameError(
            f'{path}: expected a colour image, found {describe(content)}, which is not read. Save '
            f'colour as JPEG or PNG first.'
        )
    read_colour_header(content, path)
    return decode_with_opencv(content, path, _COLOUR_AS_STORED, 'a colour image')


def read_colour_header(content: bytes, path: str) -> DeclaredImage:
    """As :func:`read_header`, of a file that :func:`decode_colour` takes.

    Raises:
        FrameError: See :func:`read_header`; or no RGB follows from what the file holds.
    """
    found = read_header(content, path)
    if found.format == 'JPEG' and (found.bits != 8 or found.kind not in ('grey', 'colour')):
        raise FrameError(
            f'{path}: a JPEG of {found.kind} with {found.bits} bits, expected grey or colour of 8 '
            f'bits. What its RGB is depends on the program that converts it; save it as RGB first.'
        )
    if found.bits == 16 and found.kind in ('grey', 'grey with alpha'):
        raise FrameError(_grey_of_16_bits(path))
    return found


def decode_with_opencv(content: bytes, path: str, flags: int, what: str) -> np.ndarray:
    """Decode a complete file; :class:`FrameError` where OpenCV cannot."""
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error as error:
        raise FrameError(f'{path}: cannot be decoded as {what} ({error}).') from error
    if image is None:
        raise FrameError(
            f'{path}: cannot be decoded as {what} ({len(content)} bytes). The file is damaged; '
            f'copy or convert it again.'
        )
    return image


def _grey_of_16_bits(path: str) -> str:
    return (
        f'{path}: expected a colour image, found grey of 16 bits, as depth is stored. Are the '
        f"colour and depth folders swapped (data_prefix['img_path'])? Save an infrared image as 8 "
        f'bits.'
    )


def _tiff_colour(content: bytes, path: str) -> np.ndarray:
    image = read_tiff(content, path, MAX_PIXELS)
    channels = 1 if image.ndim == 2 else image.shape[2]
    if image.dtype == np.uint16 and channels <= 2:
        raise FrameError(_grey_of_16_bits(path))
    if image.dtype not in (np.uint8, np.uint16) or channels > 4:
        raise FrameError(
            f'{path}: expected a colour image of 8 bits, found a TIFF file of {channels} channels '
            f'of {image.dtype}. Save colour as JPEG or PNG first.'
        )
    if image.dtype == np.uint16:
        image = (image >> 8).astype(np.uint8)
    if channels <= 2:
        grey = image.reshape(*image.shape[:2], channels)[..., :1]
        return np.repeat(grey, 3, axis=2)
    return np.ascontiguousarray(image[..., 2::-1])


def _decode_with_pillow(content: bytes, path: str, kind: str) -> np.ndarray:
    try:
        with Image.open(BytesIO(content), formats=[_PILLOW_FORMATS[kind]]) as image:
            _check_pixels((image.height, image.width), path)
            frames = getattr(image, 'n_frames', 1)
            if frames > 1 or image.mode not in _PILLOW_MODES:
                raise FrameError(
                    f'{path}: a {kind} file of {frames} image(s) of mode {image.mode}, expected '
                    f'one of 8 bits per channel. Save colour as JPEG or PNG first.'
                )
            return np.ascontiguousarray(np.asarray(image.convert('RGB'))[..., ::-1])
    except FrameError:
        raise
    except Exception as error:
        # Pillow lets through whatever damage leads to: OSError, SyntaxError, struct.error, ...
        raise FrameError(
            f'{path}: cannot be decoded as a {kind} image ({type(error).__name__}: {error}). Copy '
            f'the file again if it is damaged, or save it as JPEG or PNG first.'
        ) from error


def decode_depth(content: bytes, path: str) -> np.ndarray:
    """Decode a stored depth map without interpreting its values.

    8- or 16-bit single-channel PNG, ``.npy`` or TIFF of any integer or float type; told apart by
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
    kind = file_format(content)
    if kind == 'NPY':
        return _decode_npy(content, path)
    if kind == 'PNG':
        return _decode_png(content, path)
    if kind == 'TIFF':
        raw = read_tiff(content, path, MAX_PIXELS)
        if raw.ndim != 2:
            raise FrameError(_several_channels(path, f'{raw.shape[2]} channels'))
        return raw
    reason = f' ({_NO_DEPTH[kind]})' if kind in _NO_DEPTH else ''
    raise FrameError(
        f'{path}: expected depth as 8- or 16-bit single-channel PNG, .npy or TIFF, found '
        f'{describe(content)}{reason}. Save depth as (H, W) float32 with numpy.save, or as 16-bit '
        f"PNG, first; or check depth_suffix and data_prefix['depth_path']."
    )


def _several_channels(path: str, found: str) -> str:
    return (
        f'{path}: expected a single-channel depth map, found {found}. This looks like a colour '
        f'image or a colour-mapped rendering of depth; give the raw depth files '
        f"(data_prefix['depth_path'], depth_suffix)."
    )


def _decode_npy(content: bytes, path: str) -> np.ndarray:
    try:
        raw = np.load(BytesIO(content), allow_pickle=False)
    except Exception as error:
        # The header is a Python literal; numpy lets through whatever a damaged one leads to:
        # tokenize.TokenError, TypeError, RecursionError, MemoryError, ...
        raise FrameError(
            f'{path}: unreadable .npy file ({len(content)} bytes; {error}). Copy or convert the '
            f'file again.'
        ) from error
    if raw.ndim != 2 or not raw.size:
        raise FrameError(f'{path}: expected a depth map of shape (H, W), found {raw.shape}.')
    if raw.dtype.kind not in 'uif' or raw.dtype.itemsize > 8:
        raise FrameError(
            f'{path}: expected depth of an integer or float type, found {raw.dtype}. '
            f'Save it as uint16 or float32.'
        )
    return raw


def _decode_png(content: bytes, path: str) -> np.ndarray:
    found = read_header(content, path)
    if found.kind != 'grey':
        raise FrameError(_several_channels(path, found.kind))
    if found.bits not in (8, 16):  # OpenCV widens 1, 2 and 4 bits, which changes the values
        raise FrameError(
            f'{path}: expected 8 or 16 bits per depth value, found {found.bits}. Save the values '
            f'as 8 bits.'
        )
    return decode_with_opencv(content, path, cv2.IMREAD_UNCHANGED, 'a depth map')


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


def check_reading_settings(
    depth_scale: Any, depth_invalid: Any, min_depth: Any, max_depth: Any, depth_kind: Any
) -> None:
    """Refuse arguments of :func:`to_readings` that leave no reading or mean nothing.

    Raises:
        ValueError: Says which and what is expected.
    """

    def is_number(value: Any) -> bool:
        return isinstance(value, int | float | np.number) and not isinstance(value, bool)

    if depth_kind not in ('metric', 'relative'):
        raise ValueError(f"depth_kind must be 'metric' or 'relative', got {depth_kind!r}.")
    if not (is_number(depth_scale) and 0 < depth_scale < np.inf):
        raise ValueError(
            f'depth_scale is the number of stored units per metre and must be > 0, got '
            f'{depth_scale!r}.'
        )
    if not (isinstance(depth_invalid, list | tuple) and all(map(is_number, depth_invalid))):
        raise ValueError(
            f'depth_invalid holds stored values that mean "no reading", such as (0, 65535); got '
            f'{depth_invalid!r}.'
        )
    farthest = np.inf if max_depth is None else max_depth
    if not (is_number(min_depth) and is_number(farthest) and 0 <= min_depth < farthest):
        raise ValueError(
            f'expected numbers with 0 <= min_depth < max_depth (metres), got {min_depth!r} and '
            f'{max_depth!r}.'
        )


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
