"""The EXIF orientation of colour files: depth has none, so pixels are used as they are stored."""

from io import BytesIO

import numpy as np
from PIL import Image, ImageOps

_TAG = 0x0112


def exif_orientation(content: bytes) -> int:
    """EXIF orientation of a colour file, 1 (as stored) to 8; 1 where there is none.

    Args:
        content: The bytes of a file that can be decoded.
    """
    try:
        with Image.open(BytesIO(content)) as image:
            found = image.getexif().get(_TAG, 1)
    except Exception:  # Pillow raises whatever damaged EXIF leads to; such a tag says nothing
        return 1
    return found if found in range(1, 9) else 1


def as_shown(image: np.ndarray, orientation: int) -> np.ndarray:
    """Turn a stored image, (H, W, 3) uint8, the way that its EXIF orientation has it shown."""
    if orientation == 1:
        return image
    turned = Image.fromarray(image)
    turned.getexif()[_TAG] = orientation
    return np.array(ImageOps.exif_transpose(turned))


def orientation_hint(content: bytes) -> str:
    """What to do where depth may fit a colour file as it is shown; '' if its sides are the same."""
    orientation = exif_orientation(content)
    if orientation < 5:
        return ''
    return (
        f' The colour file has EXIF orientation {orientation}: it is stored lying and shown '
        f'upright. If depth is upright, mmmask3d convert folder --orientation shown turns colour.'
    )
