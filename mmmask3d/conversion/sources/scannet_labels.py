"""Labels and instances of ScanNet frames, in the two ways they are distributed.

``<scene>_2d-label-filt.zip`` and ``<scene>_2d-instance-filt.zip`` hold ids of ScanNet's own
categories (16 bits) and numbers of objects (8 bits, 1 + the id in ``<scene>.aggregation.json``);
``scannetv2-labels.combined.tsv`` maps the categories to NYU-40. ``scannet_frames_25k`` holds
NYU-40 ids (8 bits) and 1000 * NYU-40 id + number (16 bits). Sources, all in
https://github.com/ScanNet/ScanNet, commit 3830fce: README.md,
``AnnotationTools/ProjectAnnotations/Visualizer.cpp``,
``AnnotationTools/Filter2dAnnotations/Filter2dAnnotations.cpp``, and
``BenchmarkScripts/2d_helpers/convert_scannet_{label,instance}_image.py``.
"""

import csv
from pathlib import Path

import numpy as np

from mmmask3d.conversion.paths import SourceError
from mmmask3d.datasets.classes import NYU40_CLASSES, SCANNET18_CLASSES, SCANNET20_NYU40_IDS
from mmmask3d.datasets.depth_io import FrameError
from mmmask3d.datasets.text_lists import decode_text

_NUM_NYU40 = len(NYU40_CLASSES)
_UNKNOWN = 255
_COLUMNS = ('id', 'nyu40id')


def _positions(ids: tuple[int, ...]) -> np.ndarray:
    table = np.zeros(_NUM_NYU40 + 1, np.uint8)
    table[list(ids)] = np.arange(1, len(ids) + 1)
    return table


#: Label 0..20 of each NYU-40 id; 0 for "unlabelled" and for classes outside the benchmark.
LABEL20_OF_NYU40 = _positions(SCANNET20_NYU40_IDS)
#: Category 0..18 of each NYU-40 id: the benchmark's classes without wall and floor.
CATEGORY_OF_NYU40 = _positions(SCANNET20_NYU40_IDS[-len(SCANNET18_CLASSES) :])


def read_label_map(path: Path) -> np.ndarray:
    """Read ``scannetv2-labels.combined.tsv``.

    Args:
        path: The file. Categories without a ``nyu40id`` count as unlabelled.

    Returns:
        (65536,) uint8: NYU-40 id of each ScanNet id, 0 = unlabelled, 255 = not in the file.

    Raises:
        SourceError: It is not that file, or damaged; the message names the line.
    """
    table = np.full(65536, _UNKNOWN, np.uint8)
    table[0] = 0
    try:
        lines = decode_text(path.read_bytes(), path, SourceError).split('\n')
        rows = csv.DictReader(lines, delimiter='\t', quoting=csv.QUOTE_NONE)
        columns = rows.fieldnames or []
        if not set(_COLUMNS) <= set(columns):
            raise SourceError(
                f'{path}: expected tab-separated columns {", ".join(_COLUMNS)} as in '
                f'scannetv2-labels.combined.tsv, found {", ".join(columns[:8]) or "nothing"}.'
            )
        for row in rows:
            _add(table, row, f'{path}, line {rows.line_num}')
    except (OSError, csv.Error) as error:
        raise SourceError(f'{path}: cannot be read as the label map ({error}).') from error
    if np.all(table[1:] == _UNKNOWN):
        raise SourceError(f'{path}: has no category. Get the label map from its source again.')
    return table


def _add(table: np.ndarray, row: dict, where: str) -> None:
    try:
        number, label = int(row['id']), int(row['nyu40id'] or 0)
    except (TypeError, ValueError) as error:
        raise SourceError(f'{where}: id and nyu40id must be numbers ({error}).') from error
    if not (0 < number < len(table) and 0 <= label <= _NUM_NYU40):
        raise SourceError(
            f'{where}: maps id {number} to {label}, expected 1 to 65535 to 0 to {_NUM_NYU40}.'
        )
    if table[number] not in (_UNKNOWN, label):
        raise SourceError(f'{where}: maps id {number} to {label}, before to {table[number]}.')
    table[number] = label


def nyu40_of_ids(ids: np.ndarray, label_map: np.ndarray, where: str) -> np.ndarray:
    """Map (H, W) ScanNet ids to NYU-40, uint8, by :func:`read_label_map`; 0 = unlabelled.

    Raises:
        FrameError: An id is not in the label map.
    """
    labels = label_map[ids]
    if labels.max() == _UNKNOWN:
        unknown = np.unique(ids[labels == _UNKNOWN])
        raise FrameError(
            f'{where}: ids {", ".join(map(str, unknown[:5]))} are not in the label map. Is it that '
            f'of another release (scannetv2-labels.combined.tsv belongs to version 2)?'
        )
    return labels


def check_nyu40(labels: np.ndarray, where: str) -> np.ndarray:
    """Return NYU-40 labels, if that is what they are.

    Raises:
        FrameError: An id lies beyond 40.
    """
    if labels.max() > _NUM_NYU40:
        raise FrameError(
            f'{where}: has the label {labels.max()}, expected NYU-40 ids, 0 to {_NUM_NYU40}.'
        )
    return labels


def categories_by_label(instance: np.ndarray, labels: np.ndarray, where: str) -> dict[int, int]:
    """Category of each object: that of most of its labelled pixels.

    The filtered label images are made from the filtered instance images, one label an object, so
    "most" is a formality as long as the two belong together.

    Args:
        instance: (H, W) numbers of objects, 0 = none.
        labels: (H, W) uint8, NYU-40, 0 = unlabelled.
        where: The file of instances, for messages.

    Returns:
        Category 1..18 by number; objects of other classes are left out.

    Raises:
        FrameError: The two differ in size.
    """
    if instance.shape != labels.shape:
        raise FrameError(
            f'{where}: {instance.shape[1]}x{instance.shape[0]} pixels, its labels have '
            f'{labels.shape[1]}x{labels.shape[0]}.'
        )
    bins = _NUM_NYU40 + 1
    joint = np.bincount(instance.ravel().astype(np.int64) * bins + labels.ravel())
    joint = np.pad(joint, (0, -len(joint) % bins)).reshape(-1, bins)
    joint[:, 0] = 0  # unlabelled pixels have no say; where there are no others, argmax is 0
    found = CATEGORY_OF_NYU40[joint.argmax(axis=1)]
    return {int(i): int(found[i]) for i in np.flatnonzero(found) if i > 0}


def split_joint_ids(joint: np.ndarray, where: str) -> tuple[np.ndarray, dict[int, int]]:
    """Instances and their categories from 1000 * NYU-40 id + number.

    Args:
        joint: (H, W) uint16. Pixels of NYU-40 id 0 are numbered too (1, as a rule) but no object.
        where: The file, for messages.

    Returns:
        instance: (H, W) uint16, ``joint`` with 0 where there is no object.
        categories: Category 1..18 by id; other objects are left out.

    Raises:
        FrameError: A NYU-40 id lies beyond 40.
    """
    check_nyu40(joint // 1000, where)
    instance = np.where(joint >= 1000, joint, 0).astype(np.uint16)
    ids = np.flatnonzero(np.bincount(instance.ravel()))
    found = CATEGORY_OF_NYU40[ids // 1000]
    return instance, {int(i): int(c) for i, c in zip(ids, found, strict=True) if c > 0}
