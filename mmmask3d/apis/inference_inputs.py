"""What a user gives for inference, paths, arrays or a folder, as frames of the data pipeline."""

import logging
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mmengine import fileio
from mmengine.logging import print_log

from mmmask3d.datasets.depth_io import (
    FrameError,
    check_reading_settings,
    decode_colour,
    decode_depth,
    to_readings,
)
from mmmask3d.datasets.frame_files import files_below
from mmmask3d.datasets.rgbd_dataset import RGBDDataset
from mmmask3d.datasets.transforms.loading import doubtful_unit

Source = str | os.PathLike | np.ndarray

_IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png')
_DEPTH_SUFFIXES = ('.png', '.npy')
_MILLIMETRES = 1000.0


@dataclass(frozen=True)
class DepthReading:
    """How stored depth becomes readings; the words of :class:`~mmmask3d.datasets.RGBDDataset`.

    Attributes:
        depth_scale: Stored units per metre. None: floats are metres, integers millimetres;
            relative depth is taken as stored.
        depth_kind: 'metric' or 'relative'.
        depth_invalid: Stored values that mean "no reading". NaN, infinities and negative values
            never are a reading, nor is metric depth 0.
        min_depth: Readings below are none.
        max_depth: Readings beyond are none; None for no limit.

    Raises:
        ValueError: See :func:`~mmmask3d.datasets.depth_io.check_reading_settings`.
    """

    depth_scale: float | None = None
    depth_kind: str = 'metric'
    depth_invalid: Sequence[float] = (0,)
    min_depth: float = 0.0
    max_depth: float | None = None

    def __post_init__(self) -> None:
        """Check."""
        check_reading_settings(
            1.0 if self.depth_scale is None else self.depth_scale,
            self.depth_invalid,
            self.min_depth,
            self.max_depth,
            self.depth_kind,
        )

    def __call__(self, raw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Depth (H, W) float32, 0 where there is no reading, and validity (H, W) bool."""
        scale = self.depth_scale
        if scale is None:
            stored = raw.dtype.kind in 'ui' and self.depth_kind == 'metric'
            scale = _MILLIMETRES if stored else 1.0
        return to_readings(
            raw,
            scale,
            tuple(self.depth_invalid),
            self.min_depth,
            self.max_depth,
            self.depth_kind,
        )


@dataclass(frozen=True)
class InputFrame:
    """One frame as given, not yet read.

    Attributes:
        name: Its name in results and pictures, unlike those of the other frames.
        label: What messages call it.
        img: Path, or (H, W, 3) uint8 in BGR order.
        depth: Path, or (H, W); None without depth.
    """

    name: str
    label: str
    img: Source
    depth: Source | None = None

    def load(self, reading: DepthReading, with_depth: bool = True) -> dict:
        """Read it: the keys of :class:`~mmmask3d.datasets.LoadRGBD`; no depth is no reading.

        Raises:
            FileNotFoundError: A file is missing.
            FrameError: A file cannot be read, an array has another type or shape than expected,
                the sizes differ, or depth is given and holds no reading.
        """
        img = self._image()
        size = img.shape[:2]
        depth, valid = np.zeros(size, np.float32), np.zeros(size, bool)
        if with_depth and self.depth is not None:
            raw = self._stored_depth()
            if raw.shape != size:
                raise FrameError(
                    f'{self.label}: colour and depth differ in size: {size[0]}x{size[1]} and '
                    f'{raw.shape[0]}x{raw.shape[1]} (height x width). Register depth to colour '
                    f'and resize it (nearest) first.'
                )
            depth, valid = reading(raw)
            if not valid.any():
                raise FrameError(
                    f'{self.label}: depth has no reading (0, NaN, infinite, negative and '
                    f'depth_invalid are none). Check depth_scale, min_depth and max_depth, or '
                    f'give depth=None to predict from colour alone.'
                )
            doubt = doubtful_unit(depth, valid) if reading.depth_kind == 'metric' else ''
            if doubt:
                print_log(
                    f'{self.label}: {doubt} Without depth_scale, floats are metres '
                    f'and integers millimetres.',
                    logger='current',
                    level=logging.WARNING,
                )
        return dict(
            img=img,
            depth=depth,
            valid=valid,
            img_shape=size,
            ori_shape=size,
            frame=self.name,
            img_path=self.label,
            depth_path=self.label,
            depth_kind=reading.depth_kind,
        )

    def _image(self) -> np.ndarray:
        if not isinstance(self.img, np.ndarray):
            return decode_colour(self._read(self.img), os.fspath(self.img))
        fits = self.img.dtype == np.uint8 and self.img.ndim == 3 and self.img.shape[2] == 3
        return self._array('img', self.img, fits, 'uint8 of shape (H, W, 3), in BGR order')

    def _stored_depth(self) -> np.ndarray:
        if isinstance(self.depth, str | os.PathLike):
            return decode_depth(self._read(self.depth), os.fspath(self.depth))
        assert self.depth is not None
        fits = self.depth.dtype.kind in 'uif' and self.depth.ndim == 2
        return self._array('depth', self.depth, fits, 'numbers of shape (H, W)')

    def _array(self, name: str, array: np.ndarray, fits: bool, expected: str) -> np.ndarray:
        if not fits or not array.size:
            raise FrameError(
                f'{self.label}: {name} is {array.dtype} of shape {array.shape}, expected '
                f'{expected}.'
            )
        return np.ascontiguousarray(array)

    def _read(self, path: str | os.PathLike) -> bytes:
        path = os.fspath(path)
        try:
            return bytes(fileio.get(path))
        except FileNotFoundError as error:
            raise FileNotFoundError(f'{self.label}: {path} does not exist.') from error
        except OSError as error:
            raise FrameError(f'{self.label}: {path} cannot be read: {error}') from error


def read_inputs(
    inputs: Any,
    img_suffix: str | None = None,
    depth_suffix: str | None = None,
    with_depth: bool = True,
) -> list[InputFrame]:
    """Frames that are meant; arrays are looked at and files read by :meth:`InputFrame.load`.

    Args:
        inputs: One frame, a list of frames, or a folder with ``rgb/`` and ``depth/``. A frame is
            ``dict(img=..., depth=...)``, a tuple ``(img, depth)``, or an image alone.
        img_suffix: Suffix of a folder's colour files; None where all have the same.
        depth_suffix: Suffix of its depth files; None where all have the same.
        with_depth: Whether a folder's depth is wanted; if not, ``rgb/`` or, without one, the
            images of the folder itself are taken.

    Raises:
        TypeError: Something is none of these; says which input.
        ValueError: The list is empty, or a folder has several suffixes.
        FileNotFoundError: A folder lacks files, see :class:`~mmmask3d.datasets.RGBDDataset`.
    """
    if isinstance(inputs, str | os.PathLike) and os.path.isdir(inputs):
        if with_depth:
            return _read_folder(Path(inputs), img_suffix, depth_suffix)
        inputs = _images_below(Path(inputs))
    given = inputs if isinstance(inputs, list) else [inputs]
    if not given:
        raise ValueError('the list of inputs is empty.')
    frames, taken = [], set()
    for i, item in enumerate(given):
        img, depth = _as_pair(item, i)
        path = None if isinstance(img, np.ndarray) else os.fspath(img)
        name = f'frame_{i:04d}' if path is None else Path(path).stem
        while name in taken:  # files of one name in several folders
            name = f'{name}_{i}'
        taken.add(name)
        label = f'input {i}' if path is None else f'input {i} ({path})'
        frames.append(InputFrame(name, label, img, depth))
    return frames


def _as_pair(item: Any, number: int) -> tuple[Source, Source | None]:
    pair = item if isinstance(item, tuple) else (item, None)
    if isinstance(item, dict) and {'img'} <= set(item) <= {'img', 'depth'}:
        pair = (item['img'], item.get('depth'))
    if len(pair) != 2 or not isinstance(pair[0], Source) or not isinstance(pair[1], Source | None):
        parts = [*item] if isinstance(item, dict) else [type(part).__name__ for part in pair]
        raise TypeError(
            f'input {number}: expected dict(img=..., depth=...), (img, depth) or an image alone, '
            f'each a path or a numpy array, several of them as a list; found a '
            f'{type(item).__name__}: {", ".join(map(str, parts))}.'
        )
    return pair


def _read_folder(
    folder: Path, img_suffix: str | None, depth_suffix: str | None
) -> list[InputFrame]:
    """The frames of a folder with ``rgb/`` and ``depth/``, as the data set pairs them."""
    for part in ('rgb', 'depth'):
        if not (folder / part).is_dir():
            raise FileNotFoundError(
                f'{folder} has no folder {part}/; expected rgb/ and depth/ with files of the same '
                f'names. Images alone are given as a list of paths.'
            )
    suffixes: dict[str, Any] = dict(
        img_suffix=img_suffix or _only_suffix(folder / 'rgb', _IMAGE_SUFFIXES, 'img_suffix'),
        depth_suffix=depth_suffix
        or _only_suffix(folder / 'depth', _DEPTH_SUFFIXES, 'depth_suffix'),
    )
    dataset = RGBDDataset(data_root=str(folder), **suffixes)
    frames = []
    for i in range(len(dataset)):
        info = dataset.get_data_info(i)
        label = f"frame '{info['frame']}' ({info['img_path']})"
        frames.append(InputFrame(info['frame'], label, info['img_path'], info['depth_path']))
    return frames


def _images_below(folder: Path) -> list[Path]:
    root = folder / 'rgb' if (folder / 'rgb').is_dir() else folder
    found = [root / f for f in sorted(files_below(root)) if f.lower().endswith(_IMAGE_SUFFIXES)]
    if not found:
        raise FileNotFoundError(f'{root} holds no file that ends in {", ".join(_IMAGE_SUFFIXES)}.')
    return found


def _only_suffix(folder: Path, known: Sequence[str], option: str) -> str:
    suffixes = (os.path.splitext(name)[1].lower() for name in files_below(folder))
    found = Counter(suffix for suffix in suffixes if suffix in known)
    if len(found) > 1:
        counts = ', '.join(f"{n} '{suffix}'" for suffix, n in sorted(found.items()))
        raise ValueError(f'{folder} holds files of several kinds: {counts}. Give {option}.')
    return next(iter(found), known[0])  # where there is none, the data set says what is missing
