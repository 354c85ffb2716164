"""Frames that encoders are compared on: what they show, and where the camera stood."""

import json
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmmask3d.datasets.transforms.geometry import whole_view
from mmmask3d.models.surface_normals import plane_normals

Classes = tuple[str, ...]
"""Names of the classes of a data set, which tell apart several kinds of labels of one frame."""
_LEVELS = 6  # of folders above a picture in which frames.jsonl is looked for


@dataclass(frozen=True)
class Camera:
    """Where a frame was taken."""

    # (3, 3) from camera axes to pixels of the frame as it was read; (0, 0) is the centre of the
    # first pixel. None where it is not known
    intrinsic: np.ndarray | None
    # (4, 4) from camera axes (x right, y down, z forward) to the world; None where it is not known
    to_world: np.ndarray | None
    scene: str  # name of the world


@dataclass
class Frame:
    """A frame, as the data set's pipeline gives it."""

    path: str  # of the colour picture
    image: Tensor  # (3, H, W) uint8, BGR
    # (H', W') uint8, 255 = unlabelled, by the names of the classes
    labels: dict[Classes, Tensor] = field(default_factory=dict)
    # (H", W") float32, metres or relative, 0 = no reading; None without depth
    depth: Tensor | None = None
    depth_kind: str = 'metric'  # 'metric' or 'relative'
    camera: Camera | None = None  # None where frames.jsonl says nothing of the frame
    native: tuple[int, int] | None = None  # (height, width) before it was resized

    def field_of_view(self, otherwise: float) -> float:
        """Horizontal field of view in degrees, from the intrinsics where they are known."""
        if self.camera is None or self.camera.intrinsic is None:
            return otherwise
        focal = float(self.camera.intrinsic[0, 0])
        return math.degrees(2 * math.atan(0.5 * self.image.shape[-1] / focal))

    def view(self) -> Tensor:
        """What the picture shows, ``(1, 4)``: see
        :func:`~mmmask3d.models.surface_normals.plane_normals`.

        By the intrinsics where they are known; else with square pixels before it was resized.
        """
        height, width = self.image.shape[1:]
        if self.camera is None or self.camera.intrinsic is None:
            return torch.tensor([whole_view(self.native or (height, width))])
        (fx, _, cx), (_, fy, cy), _ = self.camera.intrinsic
        borders = [(at - 0.5 - cx) / width for at in (0, width)]
        borders += [(at - 0.5 - cy) / width * fx / fy for at in (0, height)]
        left, right, top, bottom = borders
        return torch.tensor([[left, top, right, bottom]])


def read_frames(datasets: Sequence[Sequence[dict]], limit: int | None = None) -> list[Frame]:
    """Read the frames of one or several data sets; a frame that is in several is read together.

    Labels and depth of a frame may so come from two data sets: that of segmentation, and that of
    pre-training over the same pictures; and labels of 13 and of 40 classes from two more.

    Args:
        datasets: of samples packed by mmseg's ``PackSegInputs`` (with ``gt_sem_seg``, or
            ``gt_depth_map`` in metres, 0 = no reading) or by ``PackRGBDInputs``.
        limit: at most so many frames of each, spread evenly.

    Raises:
        ValueError: no frame, a sample without a target, or pictures of one frame that differ in
            shape beyond their size.
    """
    found: dict[str, Frame] = {}
    for dataset in datasets:
        classes = tuple(getattr(dataset, 'metainfo', {}).get('classes') or ())
        for sample in _chosen(dataset, limit):
            frame = _frame(sample, len(found), classes)
            known = found.setdefault(frame.path, frame)
            if known is frame:
                continue
            _check_shapes(known, frame)
            known.labels |= frame.labels
            if frame.depth is not None:
                known.depth, known.depth_kind = frame.depth, frame.depth_kind
    if not found:
        raise ValueError('the data set to probe on has no frame.')
    return list(found.values())


def _chosen(dataset: Sequence[dict], limit: int | None) -> Iterable[dict]:
    total = len(dataset)
    if limit is None or limit >= total:
        return (dataset[i] for i in range(total))
    return (dataset[round(i * (total - 1) / max(1, limit - 1))] for i in range(limit))


def _check_shapes(known: Frame, frame: Frame) -> None:
    (h, w), (h2, w2) = known.image.shape[1:], frame.image.shape[1:]
    if abs(h * w2 - w * h2) > max(w, w2, h, h2):
        raise ValueError(
            f'{frame.path}: read as {h}x{w} and as {h2}x{w2} (height x width), which differ in '
            f'more than size: one of the pipelines crops. Resize only.'
        )


def _frame(sample: Mapping, number: int, classes: Classes) -> Frame:
    inputs, info = sample['inputs'], sample['data_samples']
    path = info.metainfo.get('img_path')
    packed = isinstance(inputs, dict)
    image = inputs['img'] if packed else inputs
    native = tuple(info.metainfo.get('ori_shape', image.shape[1:])[:2])
    frame = Frame(os.path.realpath(path) if path else f'frame {number}', image, native=native)
    if path:
        # As given first: a link may lead away from the folder that has the frames.jsonl, or to it.
        size = tuple(image.shape[1:])
        frame.camera = read_camera(os.path.abspath(path), native, size)
        frame.camera = frame.camera or read_camera(frame.path, native, size)
    if packed:
        frame.depth = torch.where(inputs['valid'], inputs['depth'], 0)[0]
        frame.depth_kind = info.metainfo['depth_kind']
    elif 'gt_sem_seg' in info or 'gt_depth_map' in info:
        if 'gt_sem_seg' in info:
            frame.labels[classes] = info.gt_sem_seg.data[0].byte()
        if 'gt_depth_map' in info:
            frame.depth = info.gt_depth_map.data[0]
    else:
        raise ValueError(
            'a sample has neither gt_sem_seg nor depth; the pipeline has to load labels or depth.'
        )
    return frame


def read_camera(path: str, native: Sequence[int], size: Sequence[int]) -> Camera | None:
    """What the ``frames.jsonl`` of a converted folder says of a picture.

    Args:
        path: of the picture, ``<folder>/rgb/<name>.<suffix>``.
        native: its ``(height, width)``.
        size: ``(height, width)`` that it was resized to.
    """
    folder = Path(path).parent
    for root in [folder, *folder.parents][:_LEVELS]:
        if (root / 'frames.jsonl').is_file():
            break
    else:
        return None
    name = '/'.join(Path(path).relative_to(root).with_suffix('').parts[1:])
    record = _records(str(root)).get(name)
    if record is None:
        return None
    # Without folders, as in generated rooms, the name says the room.
    scene = name.rpartition('/')[0] or re.sub(r'_view_\d+$', '', name)
    intrinsic, pose = record.get('intrinsic'), record.get('camera_to_world')
    if intrinsic is None:
        colour = _cameras(str(root)).get(name.partition('/')[0], {}).get('colour', {})
        intrinsic, native = colour.get('intrinsic'), colour.get('size', native[::-1])[::-1]
    return Camera(
        None if intrinsic is None else _resized(np.array(intrinsic)[:3, :3], native, size),
        None if pose is None else np.array(pose),
        f'{root}/{scene}',
    )


def _resized(intrinsic: np.ndarray, native: Sequence[int], size: Sequence[int]) -> np.ndarray:
    found = intrinsic.astype(float).copy()
    for row, (old, new) in enumerate(zip(native[::-1], size[::-1], strict=True)):
        found[row] *= new / old
        found[row, 2] += 0.5 * (new / old - 1)  # pixel centres are whole numbers
    return found


@lru_cache(maxsize=8)
def _records(root: str) -> dict[str, dict[str, Any]]:
    lines = (Path(root) / 'frames.jsonl').read_text(encoding='utf-8').splitlines()
    records = [json.loads(line) for line in lines if line.strip()]
    return {record['name']: record for record in records}


@lru_cache(maxsize=8)
def _cameras(root: str) -> dict[str, dict]:
    path = Path(root) / 'cameras.json'
    return dict(json.loads(path.read_text(encoding='utf-8'))) if path.is_file() else {}


@dataclass
class Targets:
    """What is probed of some frames."""

    kind: str  # 'labels', 'metric' (depth in metres), 'relative' (depth) or 'normals'
    indices: list[int]  # of the frames that have it, among all that were read
    # of each of these, (H, W) class ids (uint8) or depth (float32), or (3, H, W) unit normals
    # (float16)
    values: list[Tensor]
    # of each, (H, W) bool: labelled pixels, readings, or where a normal is known
    valid: list[Tensor]

    def any(self) -> bool:
        """Whether any pixel of any frame can be probed."""
        return any(bool(known.any()) for known in self.valid)


def label_targets(frames: Sequence[Frame]) -> dict[Classes, Targets]:
    """Labels by their classes, each of the frames that have some."""
    found: dict[Classes, Targets] = {}
    for i, frame in enumerate(frames):
        for classes, labels in frame.labels.items():
            targets = found.setdefault(classes, Targets('labels', [], [], []))
            targets.indices.append(i)
            targets.values.append(labels)
            targets.valid.append(labels != 255)
    return found


def depth_targets(frames: Sequence[Frame]) -> Targets:
    """Depth of the frames that have some.

    Raises:
        ValueError: some are metric and some relative.
    """
    having = [(i, f.depth) for i, f in enumerate(frames) if f.depth is not None]
    kinds = {frames[i].depth_kind for i, _ in having}
    if len(kinds) > 1:
        raise ValueError(
            f'depth of several kinds, {sorted(kinds)}, in one set; probe them one by one.'
        )
    values = [depth for _, depth in having]
    kind = kinds.pop() if kinds else 'metric'
    return Targets(kind, [i for i, _ in having], values, [d > 0 for d in values])


def normal_targets(frames: Sequence[Frame], fov: float = 57.0) -> Targets:
    """Surface normals of the frames that have depth.

    Args:
        frames: with metric depth, or depth that is proportional to it.
        fov: horizontal field of view in degrees where the intrinsics are not known.
    """
    found = Targets('normals', [], [], [])
    for i, frame in enumerate(frames):
        if frame.depth is None:
            continue
        depth = frame.depth[None, None]
        angle = frame.field_of_view(fov)
        normals, known = plane_normals(depth, depth > 0, angle, view=frame.view())
        found.indices.append(i)
        found.values.append(normals[0].half())
        found.valid.append(known[0, 0])
    return found
