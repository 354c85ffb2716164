"""Read one frame as a checker does: every file by itself, every defect noted, nothing raised."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from mmengine import fileio

from mmmask3d.datasets.confidence import nothing_sure, read_confidence
from mmmask3d.datasets.depth_io import (
    FrameError,
    decode_colour,
    decode_depth,
    to_readings,
    zero_where_invalid,
)
from mmmask3d.datasets.image_header import file_format, jpeg_damage, png_damage
from mmmask3d.datasets.orientation import orientation_hint
from mmmask3d.inspection.sources import LabelMaps, Source
from mmmask3d.visualization.edges import EdgePair, edge_pair

THUMBNAIL = (16, 12)  # (width, height) at which frames are compared


@dataclass
class Problem:
    """One defect of one file.

    Attributes:
        code: Code of the finding it belongs to.
        file: The file.
        message: What was found there.
    """

    code: str
    file: str
    message: str


@dataclass
class DepthMeasures:
    """What one depth map holds, depth in metres (or relative).

    Attributes:
        stored_type: Such as ``uint16``.
        stored_high: Greatest stored value of a reading.
        invalid: Share of pixels without a reading.
        beyond: Share of pixels dropped by ``max_depth`` alone.
        low: Least reading.
        near: Reading that a twentieth of the readings is nearer than.
        median: Median reading.
        high: Greatest reading.
        at_highest: Share of the readings that have the greatest value.
        at_next: Share of the readings that have the next lower value.
        at_limit: Share of the pixels that are readings of the greatest value of the stored type.
        distinct: Number of different readings; None for floats.
        unsure: Share of the readings dropped by ``min_confidence``; None without confidence maps.
        step: Greatest number that all stored values of readings are multiples of; 0 for floats.
    """

    stored_type: str
    stored_high: float
    invalid: float
    beyond: float
    low: float
    near: float
    median: float
    high: float
    at_highest: float
    at_next: float
    at_limit: float
    distinct: int | None
    step: int
    unsure: float | None = None


@dataclass
class Measures:
    """What is known of one frame; None where a file could not be read.

    Attributes:
        frame: Its name.
        img_path: Colour file.
        depth_path: Depth file.
        problems: Defects.
        img_hash: Of the colour file's bytes.
        depth_hash: Of the depth file's bytes.
        size: (width, height) of the colour image.
        spread: Standard deviation of the grey image.
        thumbnail: float32 (192,), grey, mean taken off.
        depth: Of the depth map.
        labels: Pixels by id, by kind of label map.
        unlabelled: Kinds whose file does not exist for this frame.
    """

    frame: str
    img_path: str
    depth_path: str
    problems: list[Problem] = field(default_factory=list)
    img_hash: str | None = None
    depth_hash: str | None = None
    size: tuple[int, int] | None = None
    spread: float = 0.0
    thumbnail: np.ndarray | None = None
    depth: DepthMeasures | None = None
    labels: dict[str, dict[int, int]] = field(default_factory=dict)
    unlabelled: list[str] = field(default_factory=list)

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
        found.problems.append(
            Problem(
                'size-mismatch',
                found.depth_path,
                f'depth is {depth.shape[1]}x{depth.shape[0]} (width x height), its colour image '
                f'{found.img_path} {colour.shape[1]}x{colour.shape[0]}.'
                + orientation_hint(bytes(fileio.get(found.img_path, source.backend_args))),
            )
        )
        return found, None
    return found, edge_pair(colour, depth, valid) if edges and valid.any() else None


def _read_colour(found: Measures, backend_args: dict | None) -> np.ndarray | None:
    content = _read(found, found.img_path, backend_args)
    if content is None:
        return None
    found.img_hash = _hash(content)
    try:
        image = decode_colour(content, found.img_path)
    except FrameError as error:
        found.problems.append(_from(error, 'unreadable', found.img_path))
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
    content = _read(found, found.depth_path, backend_args)
    if content is None:
        return None
    found.depth_hash = _hash(content)
    try:
        raw = decode_depth(content, found.depth_path)
    except FrameError as error:
        found.problems.append(_from(error, 'unreadable', found.depth_path))
        return None
    settings = {k: info[k] for k in ('depth_scale', 'depth_invalid', 'min_depth', 'depth_kind')}
    depth, valid = to_readings(raw, max_depth=info['max_depth'], **settings)
    if valid.any():
        unlimited = valid
        if info['max_depth'] is not None:
            unlimited = to_readings(raw, **settings)[1]
        beyond = float(np.count_nonzero(unlimited & ~valid) / raw.size)
        sure = _sure(found, info, valid, backend_args)
        if sure is None:
            return None
        if not sure.any():
            return zero_where_invalid(depth, sure), sure
        found.depth = _measure_depth(raw, depth, sure)
        found.depth.beyond = beyond
        if 'confidence_path' in info:
            found.depth.unsure = float(1 - np.count_nonzero(sure) / np.count_nonzero(valid))
        depth, valid = zero_where_invalid(depth, sure), sure
    else:
        finite = raw[np.isfinite(raw)]
        stored = f'{finite.min():g} to {finite.max():g}' if finite.size else 'not finite'
        found.problems.append(
            Problem('no-reading', found.depth_path, f'no reading; stored values are {stored}')
        )
    return depth, valid


def _sure(
    found: Measures, info: dict, valid: np.ndarray, backend_args: dict | None
) -> np.ndarray | None:
    """Readings that are sure enough, (H, W) bool; None where that cannot be told."""
    if 'confidence_path' not in info:
        return valid
    path, minimum = info['confidence_path'], info['min_confidence']
    content = _read(found, path, backend_args)
    if content is None:
        return None
    try:
        confidence = read_confidence(content, path, valid.shape)
    except FrameError as error:
        found.problems.append(_from(error, 'confidence-unusable', path))
        return None
    sure = valid & (confidence >= minimum)
    if not sure.any():
        message = nothing_sure(confidence, valid, minimum, path)
        found.problems.append(_from(FrameError(message), 'no-reading', path))
    return sure


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
        beyond=0.0,
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
    labels = _read_map(found, maps.path(found.frame), maps.kind)
    if labels is None:
        return
    if labels.dtype != np.uint8:
        found.problems.append(
            Problem(
                'label-unreadable',
                maps.path(found.frame),
                f'expected a label map of 8 bits, found {labels.dtype}',
            )
        )
        return
    counts = np.bincount(labels.ravel())
    found.labels[maps.kind] = {int(i): int(counts[i]) for i in np.flatnonzero(counts)}
    names = maps.names
    wrong = [i for i in found.labels[maps.kind] if i not in names]
    if wrong:
        shown = ', '.join(str(i) for i in wrong[:8]) + (', ...' if len(wrong) > 8 else '')
        found.problems.append(
            Problem(
                'label-range',
                maps.path(found.frame),
                f'ids {shown} outside {maps.ignore_id} (unlabelled), {maps.first_id} to '
                f'{maps.first_id + len(maps.classes) - 1}, 255 (ignored)',
            )
        )


def _read_map(found: Measures, path: str, kind: str) -> np.ndarray | None:
    """A label or instance map of the right size; None where it is missing or damaged."""
    if not os.path.exists(path):
        found.unlabelled.append(kind)
        return None
    content = _read(found, path, None)
    if content is None:
        return None
    try:
        labels = decode_depth(content, path)  # the same formats: PNG of 8 or 16 bits, one channel
    except FrameError as error:
        found.problems.append(_from(error, 'label-unreadable', path))
        return None
    if found.size and labels.shape != found.size[::-1]:
        found.problems.append(
            Problem(
                'label-size',
                path,
                f'{labels.shape[1]}x{labels.shape[0]} (width x height), its colour image '
                f'{found.size[0]}x{found.size[1]}',
            )
        )
        return None
    return labels


def _read(found: Measures, path: str, backend_args: dict | None) -> bytes | None:
    """The bytes of a file that is complete and undamaged as far as its format tells."""
    try:
        content = fileio.get(path, backend_args=backend_args)
    except OSError as error:
        found.problems.append(Problem('unreadable', path, f'cannot be read: {error}'))
        return None
    if content is None:  # how key-value backends report a missing key
        found.problems.append(Problem('missing-partner', path, 'does not exist'))
        return None
    content = bytes(content)
    if not content:
        found.problems.append(Problem('truncated', path, 'the file is empty'))
        return None
    kind = file_format(content)
    cut = {'PNG': png_damage, 'JPEG': jpeg_damage}.get(kind, lambda _: '')(content)
    if cut:
        found.problems.append(Problem('truncated', path, f'truncated {kind} file ({cut})'))
        return None
    damage = kind == 'PNG' and png_damage(content, checksums=True)
    if damage:
        found.problems.append(Problem('damaged', path, damage))
        return None
    return content


def _from(error: FrameError, code: str, path: str) -> Problem:
    """The problem without the file name that the error begins with."""
    return Problem(code, path, str(error).removeprefix(f'{path}: '))


def _hash(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def spread_indices(total: int, count: int) -> Sequence[int]:
    """``count`` indices evenly over ``total``, both ends included; all where there are fewer."""
    return sorted({round(i) for i in np.linspace(0, total - 1, min(count, total))})
