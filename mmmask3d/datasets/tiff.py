"""Read TIFF files as they are stored.

OpenCV and Pillow give the first page of several, turn an image by its orientation, invert 8 bits
where 0 is white, spread 10, 12 or 14 bits over 16, and multiply colour by alpha. tifffile does none
of this, and reads every number type.
"""

from io import BytesIO
from typing import TYPE_CHECKING

import cv2
import numpy as np

from mmmask3d.datasets.frame_error import FrameError

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage

_SAVE_AGAIN = "Save it with tifffile.imwrite(path, array, compression='zlib')"
_LOSSLESS = 'NONE', 'LZW', 'ADOBE_DEFLATE', 'DEFLATE', 'PACKBITS', 'LZMA'
_AS_STORED = 'MINISBLACK', 'RGB'


def read_tiff(content: bytes, path: str, max_pixels: int) -> np.ndarray:
    """Read the one image of a TIFF file; its orientation is ignored.

    Args:
        content: The bytes of the file.
        path: Its name, for messages.
        max_pixels: Pixels it may declare.

    Returns:
        (H, W), or (H, W, C) in the order in which channels are stored, of any number type.

    Raises:
        FrameError: It is damaged, or what it holds is not one image whose values are meant as they
            are stored.
        ImportError: tifffile is not installed.
    """
    try:
        import tifffile
    except ImportError as error:
        raise ImportError(
            f'{path}: reading TIFF files needs tifffile: pip install tifffile.'
        ) from error
    try:
        with tifffile.TiffFile(BytesIO(content)) as file:
            page = file.pages[0]
            refused = _refused(file, page, max_pixels)
            if refused:
                raise FrameError(f'{path}: {refused}')
            if any(
                count == 0 or start + count > len(content)
                for start, count in zip(page.dataoffsets, page.databytecounts, strict=True)
            ):
                raise EOFError('the pixels end beyond the end of the file')
            if page.compression.name == 'LZW' or page.predictor == 3:
                return _read_with_opencv(content, page, path)
            image = page.asarray()
            # Planes that are stored one after the other come first in it.
            return np.moveaxis(image, 0, -1) if page.axes == 'SYX' else image
    except FrameError:
        raise
    except Exception as error:
        # tifffile lets through whatever damage leads to: struct.error, IndexError, MemoryError, ...
        raise FrameError(
            f'{path}: cannot be decoded as a TIFF file ({type(error).__name__}: {error}). The file '
            f'is damaged or truncated; copy or convert it again.'
        ) from error


def _refused(file: 'TiffFile', page: 'TiffPage', max_pixels: int) -> str:
    """Why a sound file is not read, and the way out; '' if it is."""
    pages = len(file.pages) + len(page.subifds or ())
    if pages > 1 or page.imagedepth > 1 or file.series[0].size != page.size:
        sizes = ', '.join(f'{p.dtype} {p.shape}' for p in list(file.pages)[:4])
        return (
            f'a TIFF file of several images ({sizes}), which may be previews, expected one. Save '
            f'the one that is meant: tifffile.imwrite(path, tifffile.imread(this, key=NUMBER)).'
        )
    if not 0 < page.imagewidth * page.imagelength <= max_pixels:
        return (
            f'declares {page.imagewidth}x{page.imagelength} pixels (width x height), expected 1 to '
            f'{max_pixels} in all. The file is damaged; copy or convert it again.'
        )
    bits = page.bitspersample
    if page.dtype is None or page.dtype.kind not in 'uif' or bits != 8 * page.dtype.itemsize:
        return (
            f'a TIFF file of {bits} bits per value, expected 8, 16, 32 or 64. {_SAVE_AGAIN}, '
            f'values unchanged.'
        )
    if page.photometric.name not in _AS_STORED:
        return (
            f'a TIFF file of photometric interpretation {page.photometric.name}, expected '
            f'{" or ".join(_AS_STORED)}, where values mean what is stored. {_SAVE_AGAIN}.'
        )
    if page.compression.name not in _LOSSLESS:
        return (
            f'a TIFF file with {page.compression.name} compression, expected none, deflate, LZW, '
            f'LZMA or PackBits. {_SAVE_AGAIN}.'
        )
    return ''


def _read_with_opencv(content: bytes, page: 'TiffPage', path: str) -> np.ndarray:
    """Decode what tifffile cannot without a further package, where OpenCV leaves values alone."""
    image = None
    if page.tags.valueof('Orientation', 1) == 1 and page.samplesperpixel in (1, 3):
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None or image.dtype != page.dtype or image.shape[:2] != page.shape[-3:][:2]:
        raise FrameError(
            f'{path}: a TIFF file of {page.dtype} {page.shape} with {page.compression.name} '
            f'compression and predictor {int(page.predictor)}, which OpenCV does not read as it is '
            f'stored. {_SAVE_AGAIN}.'
        )
    return image[..., ::-1] if image.ndim == 3 else image
