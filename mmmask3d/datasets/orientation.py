"""The EXIF orientation of colour files: depth has none, so pixels are used as they are stored."""

from collections.abc import Callable
from io import BytesIO

import numpy as np
from PIL import Image

_TAG = 0x0112
#: How a stored image becomes the one that is shown (EXIF 2.32, 4.6.4); 1 is as stored.
_TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.swapaxes(0, 1),
    6: lambda image: np.rot90(image, -1),
    7: lambda image: image[::-1, ::-1].swapaxes(0, 1),
    8: lambda image: np.rot90(image),
}


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
    return found if found in _TURNS else 1


def as_shown(image: np.ndarray, orientation: int) -> np.ndarray:
    """Turn a stored image (H, W, C) the way that its EXIF orientation has it shown."""
    return np.ascontiguousarray(_TURNS[orientation](image)) if orientation > 1 else image


def orientation_hint(content: bytes) -> str:
    """What to do where depth may fit a colour file as it is shown; '' if its sides are the same."""
    orientation = exif_orientation(content)
    if orientation < 5:
        return ''
    return (
        f' The colour file has EXIF orientation {orientation}: it is stored lying and shown '
        f'upright. If depth is upright, mmmask3d convert folder --orientation shown turns colour.'
    )
