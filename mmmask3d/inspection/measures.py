"""Read one frame as a checker does: every file by itself, every defect noted, nothing raised."""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from mmengine import fileio

from mmmask3d.datasets.confidence import NothingSure, sure_readings
from mmmask3d.datasets.depth_io import (
    FrameError,
    decode_colour,
    decode_depth,
    to_readings,
    zero_where_invalid,
)
from mmmask3d.datasets.frame_files import examples
from mmmask3d.datasets.image_header import file_format, jpeg_damage, png_damage
from mmmask3d.datasets.orientation import orientation_hint
from mmmask3d.inspection.sources import LabelMaps, Source
from mmmask3d.visualization.edges import EdgePair, edge_pair

THUMBNAIL = (16, 12)  # (width, height) at which frames are compared


@dataclass
class Problem:
    """One defect of one file."""

    code: str  # of the finding it belongs to
    file: str
    message: str


@dataclass
class DepthMeasures:
    """What one depth map holds, depth in metres (or relative); shares are of 1."""

    stored_type: str  # such as uint16
    stored_high: float  # greatest stored value of a reading
    invalid: float  # pixels without a reading
    low: float
    near: float  # a twentieth of the readings is nearer
    median: float
    high: float
    at_highest: float  # readings that have the greatest value
    at_next: float  # readings that have the next lower value
    at_limit: float  # pixels that are readings of the greatest value of the stored type
    distinct: int | None  # different readings; None for floats
    step: int  # greatest number that all stored readings are multiples of; 0 for floats
    unsure: float | None = None  # readings dropped by min_confidence; None without maps


@dataclass
class Measures:
    """What is known of one frame; None where a file could not be read."""

    frame: str
    img_path: str
    depth_path: str
    problems: list[Problem] = field(default_factory=list)
    img_hash: str | None = None  # of the bytes of the file
    depth_hash: str | None = None
    size: tuple[int, int] | None = None  # (width, height) of the colour image
    spread: float = 0.0  # standard deviation of the grey image
    thumbnail: np.ndarray | None = None  # float32 (192,), grey, mean taken off
    depth: DepthMeasures | None = None
    unlabelled: list[str] = field(default_factory=list)  # kinds whose file does not exist

    def note(self, code: str, file: str, message: str) -> None:
        """Add a defect."""
        self.problems.append(Problem(code, file, message))

    @property
    def readings(self) -> DepthMeasures:
        """``depth`` of a frame whose depth map was read."""
        assert self.depth is not None
        return self.depth


def measure(source: Source, index: int, edges: bool = False) -> tuple[Measures, EdgePair | None]:
    """Read a frame and all that belongs to it.

    Args:
        source: The set.
        index: Index of the frame.
        edges: Whether to find its edges as well, for registration.
    """
    info = source.frames.get_data_info(index)
    found = Measures(info['frame'], info['img_path'], info['depth_path'])
    colour = _read_colour(found, source.backend_args)
    readings = _read_depth(found, info, source.backend_args)
    for maps in source.labels:
        _read_labels(found, maps)
    if source.instances:
        _read_map(found, source.instances.path(found.frame), 'instance')
    if colour is None or readings is None:
        return found, None
    depth, valid = readings
    if colour.shape[:2] != depth.shape:
        found.note(
            'size-mismatch',
            found.depth_path,
            f'depth is {depth.shape[1]}x{depth.shape[0]} (width x height), its colour image '
            f'{found.img_path} {colour.shape[1]}x{colour.shape[0]}.'
            + orientation_hint(bytes(fileio.get(found.img_path, source.backend_args))),
        )
        return found, None
    return found, edge_pair(colour, depth, valid) if edges and valid.any() else None


def _read_colour(found: Measures, backend_args: dict | None) -> np.ndarray | None:
    path = found.img_path
    content = _read(found, path, backend_args)
    if content is None:
        return None
    found.img_hash = _hash(content)
    image = _decoded(found, 'unreadable', path, lambda: decode_colour(content, path))
    if image is None:
        return None
    found.size = image.shape[1], image.shape[0]
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    found.spread = float(grey.std())
    small = cv2.resize(grey.astype(np.float32), THUMBNAIL, interpolation=cv2.INTER_AREA).ravel()
    found.thumbnail = small - small.mean()
    return image


def _read_depth(
    found: Measures, info: dict, backend_args: dict | None
) -> tuple[np.ndarray, np.ndarray] | None:
    path = found.depth_path
    content = _read(found, path, backend_args)
    if content is None:
        return None
    found.depth_hash = _hash(content)
    raw = _decoded(found, 'unreadable', path, lambda: decode_depth(content, path))
    if raw is None:
        return None
    names = ('depth_scale', 'depth_invalid', 'min_depth', 'max_depth', 'depth_kind')
    depth, valid = to_readings(raw, **{name: info[name] for name in names})
    if not valid.any():
        finite = raw[np.isfinite(raw)]
        stored = f'{finite.min():g} to {finite.max():g}' if finite.size else 'not finite'
        found.note('no-reading', path, f'no reading; stored values are {stored}')
        return depth, valid
    sure = _sure(found, info, valid, backend_args)
    if sure is None:
        return None
    found.depth = _measure_depth(raw, depth, sure)
    if 'confidence_path' in info:
        found.depth.unsure = float(1 - np.count_nonzero(sure) / np.count_nonzero(valid))
    return zero_where_invalid(depth, sure), sure


def _sure(
    found: Measures, info: dict, valid: np.ndarray, backend_args: dict | None
) -> np.ndarray | None:
    """Readings that are sure enough, (H, W) bool; None where that cannot be told."""
    if 'confidence_path' not in info:
        return valid
    path = info['confidence_path']
    content = _read(found, path, backend_args)
    if content is None:
        return None
    try:
        return sure_readings(content, path, valid, info['min_confidence'])
    except FrameError as error:
        code = 'no-reading' if isinstance(error, NothingSure) else 'confidence-unusable'
        found.note(code, path, str(error).removeprefix(f'{path}: '))
        return None


def _measure_depth(raw: np.ndarray, depth: np.ndarray, valid: np.ndarray) -> DepthMeasures:
    readings, stored = depth[valid], raw[valid]
    integers = raw.dtype.kind in 'ui'
    highest = readings.max()
    lower = readings[readings < highest]
    at_next = np.count_nonzero(lower == lower.max()) if lower.size else 0
    values = np.flatnonzero(np.bincount(stored)) if integers and stored.max() < 1 << 16 else None
    near, median = np.quantile(readings, [0.05, 0.5])
    return DepthMeasures(
        stored_type=str(raw.dtype),
        stored_high=float(stored.max()),
        invalid=1 - readings.size / raw.size,
        low=float(readings.min()),
        near=float(near),
        median=float(median),
        high=float(highest),
        at_highest=float(np.count_nonzero(readings == highest) / readings.size),
        at_next=at_next / readings.size,
        at_limit=float(np.mean(valid & (raw == np.iinfo(raw.dtype).max))) if integers else 0.0,
        distinct=None if values is None else values.size,
        step=int(np.gcd.reduce(stored if values is None else values)) if integers else 0,
    )


def _read_labels(found: Measures, maps: LabelMaps) -> None:
    path = maps.path(found.frame)
    labels = _read_map(found, path, maps.kind)
    if labels is None:
        return
    if labels.dtype != np.uint8:
        message = f'expected a label map of 8 bits, found {labels.dtype}'
        found.note('label-unreadable', path, message)
        return
    present = np.flatnonzero(np.bincount(labels.ravel()))
    wrong = [str(i) for i in present if i not in maps.names]
    if wrong:
        found.note(
            'label-range',
            path,
            f'ids {examples(wrong, 8)} outside {maps.ignore_id} (unlabelled), {maps.first_id} to '
            f'{maps.first_id + len(maps.classes) - 1}, 255 (ignored)',
        )


def _read_map(found: Measures, path: str, kind: str) -> np.ndarray | None:
    """A label or instance map of the right size; None where it is missing or damaged."""
    if not os.path.exists(path):
        found.unlabelled.append(kind)
        return None
    content = _read(found, path, None)
    if content is None:
        return None
    # The same formats as depth: PNG of 8 or 16 bits, one channel.
    labels = _decoded(found, 'label-unreadable', path, lambda: decode_depth(content, path))
    if labels is not None and found.size and labels.shape != found.size[::-1]:
        found.note(
            'label-size',
            path,
            f'{labels.shape[1]}x{labels.shape[0]} (width x height), its colour image '
            f'{found.size[0]}x{found.size[1]}',
        )
        return None
    return labels


def _read(found: Measures, path: str, backend_args: dict | None) -> bytes | None:
    """The bytes of a file that is complete and undamaged as far as its format tells."""
    try:
        content = fileio.get(path, backend_args=backend_args)
    except OSError as error:
        found.note('unreadable', path, f'cannot be read: {error}')
        return None
    if content is None:  # how key-value backends report a missing key
        found.note('missing-partner', path, 'does not exist')
        return None
    content = bytes(content)
    if not content:
        found.note('truncated', path, 'the file is empty')
        return None
    kind = file_format(content)
    cut = {'PNG': png_damage, 'JPEG': jpeg_damage}.get(kind, lambda _: '')(content)
    if cut:
        found.note('truncated', path, f'truncated {kind} file ({cut})')
        return None
    damage = kind == 'PNG' and png_damage(content, checksums=True)
    if damage:
        found.note('damaged', path, damage)
        return None
    return content


def _decoded(
    found: Measures, code: str, path: str, decode: Callable[[], np.ndarray]
) -> np.ndarray | None:
    """What a file holds; None, and a defect, where it cannot be used."""
    try:
        return decode()
    except FrameError as error:  # which begins with the name of the file
        found.note(code, path, str(error).removeprefix(f'{path}: '))
        return None


def _hash(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def spread_indices(total: int, count: int) -> Sequence[int]:
    """``count`` indices evenly over ``total``, both ends included; all where there are fewer."""
    return sorted({round(i) for i in np.linspace(0, total - 1, min(count, total))})
