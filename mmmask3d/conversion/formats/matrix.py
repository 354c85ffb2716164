"""Poses and intrinsics that data sets store as text."""

from pathlib import Path

import numpy as np

from mmmask3d.datasets.depth_io import FrameError
from mmmask3d.datasets.text_lists import decode_text


def read_matrix(path: Path) -> np.ndarray:
    """Read a matrix, (4, 4) float64; -inf, which stands for a lost pose, is kept.

    Raises:
        FrameError: The file is no text of 16 numbers.
        OSError: The file cannot be read.
    """
    try:
        values = [float(v) for v in decode_text(path.read_bytes(), path).split()]
    except ValueError as error:
        raise FrameError(f'{path}: cannot be read as a matrix ({error}).') from error
    if len(values) != 16:
        raise FrameError(f'{path}: {len(values)} numbers, expected 16 of a 4 x 4 matrix.')
    return np.array(values).reshape(4, 4)
