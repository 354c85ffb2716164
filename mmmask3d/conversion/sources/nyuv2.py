"""NYU Depth v2: the labelled frames of ``nyu_depth_v2_labeled.mat``."""

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from mmmask3d.conversion.converter import Converter, FrameRef, Plan
from mmmask3d.conversion.formats.mat5 import read_mat5
from mmmask3d.conversion.formats.mat73 import find_array, open_mat73, read_part, read_text
from mmmask3d.conversion.frame import Frame, store_depth
from mmmask3d.conversion.options import above_zero
from mmmask3d.conversion.paths import SourceError, require
from mmmask3d.conversion.sources.nyuv2_classes import (
    CATEGORY_SETS,
    NUM_RAW_CLASSES,
    NYU40_TO_NYU13,
    RAW_TO_NYU40,
    category_of_raw,
    instance_categories,
    normal_name,
)
from mmmask3d.datasets.classes import NYU13_CLASSES, NYU40_CLASSES
from mmmask3d.datasets.depth_io import FrameError

LABELLED = 'nyu_depth_v2_labeled.mat'
SPLITS = 'splits.mat'
#: Rows and columns that depth reaches after its projection to the colour camera: the official
#: toolbox's get_projection_mask.m, 45:471 and 41:601 counted from 1, 561x427 pixels.
VALID_REGION = (slice(44, 471), slice(40, 601))
_FULL_SIZE = (480, 640)
#: Variables: axes between frame and width (as stored, reversed), kind of type.
_ARRAYS = {
    'images': ((3,), 'u'),
    'rawDepths': ((), 'f'),
    'depths': ((), 'f'),
    'labels': ((), 'u'),
    'instances': ((), 'u'),
}


@dataclass(frozen=True)
class LabelledFile:
    """The file and what its raw labels (0 = unlabelled) become.

    Attributes:
        path: The file.
        to40: (raw ids,) uint8, NYU-40 id.
        category: (raw ids,) int64, COCO category id; 0 for none.
    """

    path: Path
    to40: np.ndarray
    category: np.ndarray

    def __str__(self) -> str:
        return str(self.path)


class NYUv2Converter(Converter):
    """Convert NYU Depth v2: colour, raw and in-filled depth, 40 and 13 classes, instances.

    Frames are named by their official ids, 0001 to 1449. ``depth`` is the raw depth in
    millimetres with 0 for "no reading", ``depth_filled`` the in-filled one. An instance is a pair
    of raw label and instance number, as the official toolbox counts.
    """

    name = 'nyuv2'
    title = 'NYU Depth v2'
    content_options = ('rgb', 'crop_border', 'max_depth', 'categories')
    classes = {'label40': NYU40_CLASSES, 'label13': NYU13_CLASSES}

    def __init__(self, args: argparse.Namespace) -> None:
        super().__init__(args)
        self.splits_file: Path | None = args.splits
        self.max_depth: float = args.max_depth
        self.category_set: str = args.categories
        self.categories = instance_categories(self.category_set)
        self.suffixes = {
            'rgb': f'.{args.rgb}',
            **dict.fromkeys(('depth', 'depth_filled', 'label40', 'label13', 'instance'), '.png'),
        }

    @classmethod
    def add_arguments(cls, parser: argparse._ActionsContainer) -> None:
        parser.add_argument(
            '--splits', type=Path, help=f'{SPLITS}, if not in the folder of {LABELLED}'
        )
        parser.add_argument(
            '--rgb', choices=['jpg', 'png'], default='jpg', help='the source is uncompressed'
        )
        parser.add_argument(
            '--crop-border',
            action='store_true',
            help='cut to the 561x427 pixels that depth reaches, without the white border',
        )
        parser.add_argument(
            '--max-depth',
            type=above_zero,
            default=10.0,
            metavar='METRES',
            help='raw depth from here on is no reading: the toolbox cuts it off at 10',
        )
        parser.add_argument(
            '--categories', choices=CATEGORY_SETS, default='nyu40', help='of the COCO files'
        )

    def sources(self) -> Sequence[LabelledFile]:
        """See :meth:`Converter.sources`: the one file, with its class tables.

        Raises:
            SourceError: It cannot be read, or its raw classes are others than the 894.
        """
        path = self.source / LABELLED if self.source.is_dir() else self.source
        require(path, f'the labelled data set, {LABELLED}', 'See docs/datasets/nyuv2.md.')
        try:
            with open_mat73(path) as file:
                names = read_raw_names(file, path)
        except OSError as error:
            raise SourceError(f'{path}: {error}') from error
        unknown = [n for n in names if normal_name(n) not in RAW_TO_NYU40]
        if unknown:
            raise SourceError(
                f'{path}: {len(unknown)} of its class names are not among the 894 of NYU Depth v2, '
                f'for example {unknown[:5]}. Use the file as distributed.'
            )
        to40 = np.array([0, *(RAW_TO_NYU40[normal_name(n)] for n in names)], np.uint8)
        category = np.array([0, *(category_of_raw(n, self.category_set) for n in names)])
        return [LabelledFile(path, to40, category)]

    def plan(self, source: LabelledFile) -> Plan:
        with open_mat73(source.path) as file:
            arrays = find_arrays(file, source.path)
        count, width, height = arrays['labels'].shape
        if self.args.crop_border and (height, width) != _FULL_SIZE:
            raise SourceError(
                f'{source.path}: frames of {width}x{height}, but --crop-border is the region of '
                f'frames of 640x480.'
            )
        splits = self.splits_file or source.path.parent / SPLITS
        split = read_splits(splits, count)
        return Plan([FrameRef(f'{i:04d}', i - 1, split.get(i, '')) for i in range(1, count + 1)])

    @contextmanager
    def open(self, source: LabelledFile) -> Iterator[tuple[LabelledFile, dict]]:
        with open_mat73(source.path) as file:
            yield source, find_arrays(file, source.path)

    def read(self, opened: tuple[LabelledFile, dict], locator: int) -> Frame:
        """See :meth:`Converter.read`; of every array, one frame is read."""
        source, arrays = opened
        where = f'{source.path}, frame {locator + 1}'
        region = VALID_REGION if self.args.crop_border else (slice(None), slice(None))
        # Stored as (3, width, height) and (width, height).
        stored = {n: read_part(a, locator, f'{where}, {n}') for n, a in arrays.items()}
        image = stored.pop('images').transpose(2, 1, 0)[region]
        maps = {name: array.T[region] for name, array in stored.items()}
        labels = maps['labels'].astype(np.int64)
        if labels.max() >= len(source.to40):
            raise FrameError(
                f'{where}: the label {labels.max()} stands for none of the '
                f'{len(source.to40) - 1} classes of this file.'
            )
        raw, filled = maps['rawDepths'], maps['depths']
        instance, categories = number_instances(labels, maps['instances'], source.category)
        images: dict[str, np.ndarray | bytes] = {
            'rgb': np.ascontiguousarray(image[..., ::-1]),
            # False where it is not a number.
            'depth': store_depth(raw, (raw > 0) & (raw < self.max_depth), self.depth_scale),
            'depth_filled': store_depth(filled, filled > 0, self.depth_scale),
            'label40': source.to40[labels],
            'label13': NYU40_TO_NYU13[source.to40[labels]],
            'instance': instance,
        }
        return Frame(images, categories)


def find_arrays(file: h5py.File, path: Path) -> dict[str, h5py.Dataset]:
    """The per-frame arrays of the labelled file, checked to be of one size.

    Raises:
        SourceError: One is missing, or declared otherwise than the data set has it.
    """
    labels = find_array(file, 'labels', (None, None, None), 'u', f'{path}: labels')
    count, width, height = labels.shape
    return {
        name: find_array(file, name, (count, *axes, width, height), kinds, f'{path}: {name}')
        for name, (axes, kinds) in _ARRAYS.items()
    }


def read_raw_names(file: h5py.File, path: Path) -> list[str]:
    """Names of the raw classes, in the order of the ids from 1.

    Raises:
        SourceError: There are not 894, or they cannot be read.
    """
    where = f'{path}: names'
    cells = find_array(file, 'names', (None, None), 'O', where)
    if cells.size != NUM_RAW_CLASSES:
        raise SourceError(
            f'{where} has {cells.size} entries, expected the {NUM_RAW_CLASSES} of the data set. '
            f'Use the file as distributed.'
        )
    references = read_part(cells, (), where).ravel()
    return [read_text(file, r, f'{where}, entry {i}') for i, r in enumerate(references, 1)]


def read_splits(path: Path, count: int) -> dict[int, str]:
    """Split, 'train' or 'test', by official id (from 1).

    Raises:
        SourceError: The file is damaged, or ids are impossible or in both parts.
    """
    require(path, 'the official split, splits.mat', 'See docs/datasets/nyuv2.md, or --splits.')
    variables = {'train': 'trainNdxs', 'test': 'testNdxs'}
    content = read_mat5(path, list(variables.values()))
    split: dict[int, str] = {}
    for part, variable in variables.items():
        ids = np.ravel(content[variable])
        wrong = ids[~np.isin(ids, np.arange(1, count + 1))].tolist()
        if wrong:
            raise SourceError(
                f'{path}: {variable} holds {wrong[:5]}, expected whole numbers from 1 to {count}. '
                f'Is it of another file?'
            )
        both = [int(i) for i in ids if i in split]
        if both:
            raise SourceError(f'{path}: frame {both[0]} is listed in trainNdxs and testNdxs.')
        split |= dict.fromkeys(map(int, ids), part)
    return split


def number_instances(
    labels: np.ndarray, instances: np.ndarray, category: np.ndarray
) -> tuple[np.ndarray, dict[int, int]]:
    """Number the pairs of label and instance number, which restart for every label.

    Args:
        labels: (H, W) int64, raw labels; 0 = unlabelled.
        instances: (H, W) unsigned; 0 = none.
        category: COCO category of each raw label; 0 for none.

    Returns:
        Ids from 1 in the order of label and instance number, (H, W) uint16, 0 where either is 0;
        and the category of each id whose label has one.
    """
    shift = 1 << (8 * instances.dtype.itemsize)
    pairs, inverse = np.unique(labels * shift + instances.astype(np.int64), return_inverse=True)
    label, number = np.divmod(pairs, shift)
    counted = (label > 0) & (number > 0)
    ids = np.where(counted, np.cumsum(counted), 0)
    categories = {int(i): int(category[k]) for i, k in zip(ids, label, strict=True) if i}
    instance = ids[inverse.reshape(labels.shape)].astype(np.uint16)
    return instance, {i: c for i, c in categories.items() if c}
