"""Cityscapes: metric depth from disparity, and the labels that mmseg and mmdet expect."""

import argparse
import json
import math
from pathlib import Path

import numpy as np

from mmmask3d.conversion.converter import Converter, FrameRef, Plan
from mmmask3d.conversion.formats.source_image import check_size, read_colour, read_map
from mmmask3d.conversion.frame import Frame, store_depth
from mmmask3d.conversion.paths import SourceError, require, safe_name
from mmmask3d.datasets.depth_io import FrameError
from mmmask3d.datasets.frame_files import by_stem, files_in, folders_in, match_names

#: The 19 classes by their id in ``labelIds``, in the order of their train ids: the published table,
#: mcordts/cityscapesScripts, cityscapesscripts/helpers/labels.py. Other ids are not evaluated.
CLASSES = {
    7: 'road', 8: 'sidewalk', 11: 'building', 12: 'wall', 13: 'fence', 17: 'pole',
    19: 'traffic light', 20: 'traffic sign', 21: 'vegetation', 22: 'terrain', 23: 'sky',
    24: 'person', 25: 'rider', 26: 'car', 27: 'truck', 28: 'bus', 31: 'train', 32: 'motorcycle',
    33: 'bicycle',
}  # fmt: skip
#: The eight of them whose instances are told apart and evaluated.
THINGS = {i: name for i, name in CLASSES.items() if i >= 24}
#: Labels under which a disparity is no reading: the car that carries the cameras (1) is not the
#: scene, views were rectified (2) or do not overlap (3), and the sky (23) has no depth. 'static',
#: 'dynamic', 'ground' and 'unlabeled' are surfaces without a class, and keep their readings.
WITHOUT_DEPTH = (1, 2, 3, 23)

_TRAIN_IDS = np.full(256, 255, np.uint8)
_TRAIN_IDS[list(CLASSES)] = range(len(CLASSES))
_LAST_ID = 33

_SPLITS = ('train', 'val', 'test', 'train_extra')
_LABELLED = ('train', 'val')  # what is there for the others masks borders, and holds no classes
_COLOUR = '_leftImg8bit.png'
_DISPARITY_PER_PIXEL = 256
_SIZES = 'Convert the data set as distributed; --size makes it smaller.'
_INSTANCES_PER_LABEL = 1000


class CityscapesConverter(Converter):
    """Convert Cityscapes: depth in metres, 19 classes and instances, named as distributed.

    Output folders and names are those that mmseg's and mmdet's configs for Cityscapes read.
    """

    name = 'cityscapes'
    title = 'Cityscapes'
    # As in KITTI: 4 mm steps up to 256 m, where the matcher's errors are tens of metres.
    depth_scale = 256.0
    folders = {'rgb': 'leftImg8bit', 'label': 'gtFine', 'instance': 'gtFine'}
    smallest_instance = 1

    def __init__(self, args: argparse.Namespace) -> None:
        super().__init__(args)
        self.labels: bool = args.labels
        self.wanted: tuple[str, ...] = tuple(args.splits)
        self.suffixes = {'rgb': _COLOUR, 'depth': '_depth.png'}
        if self.labels:
            self.suffixes |= {
                'label': '_gtFine_labelTrainIds.png',
                'instance': '_gtFine_instanceIds.png',
            }
            self.classes = {'label': tuple(CLASSES.values())}
            self.first_ids, self.ignore_ids = {'label': 0}, {'label': 255}
            self.categories = THINGS

    @classmethod
    def add_arguments(cls, parser: argparse._ActionsContainer) -> None:
        parser.add_argument(
            '--splits',
            nargs='+',
            choices=_SPLITS,
            default=[],
            help='splits to convert (default: those that are there)',
        )
        parser.add_argument(
            '--no-labels',
            dest='labels',
            action='store_false',
            help='do without gtFine in train and val: no classes and instances in the output; sky '
            'and ego vehicle lose their depth only where label files are found',
        )

    def options(self) -> dict:
        return {'labels': self.labels, 'splits': sorted(self.wanted)}

    def sources(self) -> list[str]:
        """The cities of the splits, as ``train/aachen``."""
        root = self.source / 'leftImg8bit'
        require(root, 'the colour images', 'Unpack leftImg8bit_trainvaltest.zip there.')
        there = [s for s in _SPLITS if (root / s).is_dir()]
        if not there:
            raise SourceError(f'{root}: holds none of the folders {", ".join(_SPLITS)}.')
        absent = sorted(set(self.wanted) - set(there))
        if absent:
            raise SourceError(f'{root}: --splits asks for {absent}, there are only {there}.')
        wanted = [split for split in there if not self.wanted or split in self.wanted]
        return [f'{split}/{city}' for split in wanted for city in folders_in(root / split)]

    def plan(self, source: str) -> Plan:
        """Find the frames of a city."""
        folder = self.source / 'leftImg8bit' / source
        stems = sorted(by_stem(files_in(folder), _COLOUR, folder, SourceError))
        if not stems:
            raise SourceError(f'{folder}: no file ends in {_COLOUR}. Unpack the city again.')
        return Plan([FrameRef(safe_name(f'{source}/{s}'), s, _split(source)) for s in stems])

    def _find(self, city: str, package: str, file: str) -> Path | None:
        """A file of a city, whatever the case of its suffix; None if there is none."""
        folder = self.source / package / city
        if not (folder / file).exists() and folder.is_dir():
            file = match_names([file], files_in(folder), folder, FrameError).get(file, file)
        return folder / file if (folder / file).is_file() else None

    def _file(self, city: str, package: str, file: str) -> Path:
        """As :meth:`_find`, of a file that every frame has."""
        found = self._find(city, package, file)
        if found is None:
            archive = f'{package}_trainvaltest.zip'
            cure = f'Unpack {archive} (or _trainextra.zip)'
            if package == 'gtFine':
                cure = f'Convert with --no-labels, or unpack {archive}'
            raise FrameError(
                f'{self.source / package / city / file} does not exist, but its colour image does. '
                f'{cure} next to leftImg8bit.'
            )
        return found

    def read(self, opened: str, locator: str) -> Frame:
        """Read a frame: depth, and labels where they are public."""
        stem, labelled = locator, self.labels and _split(opened) in _LABELLED
        colour_path = self._file(opened, 'leftImg8bit', stem + _COLOUR)
        image, size = read_colour(colour_path, '.png')

        def read(path: Path, bits: int) -> np.ndarray:
            stored = read_map(path, bits)
            check_size(path, stored.shape[::-1], size, colour_path, _SIZES)
            return stored

        stored = read(self._file(opened, 'disparity', f'{stem}_disparity.png'), 16)
        camera = read_camera(self._file(opened, 'camera', f'{stem}_camera.json'))
        depth, valid = depth_from_disparity(stored, *camera)
        frame = Frame({'rgb': image}, extra={'baseline': camera[0], 'fx': camera[1]})
        find = self._file if labelled else self._find
        labels = find(opened, 'gtFine', f'{stem}_gtFine_labelIds.png') or self._find(
            opened, 'gtCoarse', f'{stem}_gtCoarse_labelIds.png'
        )
        if labels:
            ids = read(labels, 8)
            if ids.max() > _LAST_ID:
                raise FrameError(
                    f'{labels}: has the label {ids.max()}, expected 0 to {_LAST_ID}. Is it a map '
                    f'of train ids?'
                )
            valid &= ~np.isin(ids, WITHOUT_DEPTH)
        frame.images['depth'] = store_depth(depth, valid, self.depth_scale)
        if labelled:
            path = self._file(opened, 'gtFine', f'{stem}_gtFine_instanceIds.png')
            instances = read(path, 16)
            frame.images |= {'label': _TRAIN_IDS[ids], 'instance': instances}
            frame.categories, frame.crowds = self._things(instances, path)
        return frame

    def _things(self, instances: np.ndarray, path: Path) -> tuple[dict[int, int], frozenset[int]]:
        """Category of each instance, and the ids that stand for groups."""
        found = {}
        for instance in np.unique(instances).tolist():
            label = (
                instance // _INSTANCES_PER_LABEL if instance >= _INSTANCES_PER_LABEL else instance
            )
            if label > _LAST_ID:
                raise FrameError(
                    f'{path}: has the instance {instance}, expected a label of 0 to {_LAST_ID}, or '
                    f'{_INSTANCES_PER_LABEL} times the label and a number.'
                )
            if label in self.categories:
                found[instance] = label
        return found, frozenset(i for i in found if i < _INSTANCES_PER_LABEL)

    def annotation_file(self, split: str) -> tuple[str, str]:
        """Name and folder that mmdet's configs for Cityscapes have."""
        if split not in _SPLITS:
            return super().annotation_file(split)
        return f'annotations/instancesonly_filtered_gtFine_{split}.json', split


def _split(city: str) -> str:
    return city.partition('/')[0]


def depth_from_disparity(
    stored: np.ndarray, baseline: float, focal_length: float
) -> tuple[np.ndarray, np.ndarray]:
    """Turn stored disparity into depth.

    Disparity is ``(p - 1) / 256`` pixels, and ``p = 0`` no measurement (README of
    mcordts/cityscapesScripts); ``p = 1`` is infinitely far and no reading either.

    Args:
        stored: (H, W) uint16.
        baseline: Between the two cameras, in metres.
        focal_length: Across, in pixels of the full-size image.

    Returns:
        depth: (H, W) float64, metres, 0 where there is no reading.
        valid: (H, W) bool.
    """
    valid = stored > 1
    disparity = np.where(valid, (stored.astype(np.float64) - 1) / _DISPARITY_PER_PIXEL, 1.0)
    return np.where(valid, baseline * focal_length / disparity, 0.0), valid


def read_camera(path: Path) -> tuple[float, float]:
    """Baseline in metres and focal length in pixels from a ``_camera.json``.

    Raises:
        FrameError: The file is no JSON, or one of the two is missing or no positive number.
        OSError: The file cannot be read.
    """
    try:
        content = json.loads(path.read_bytes())
        found = float(content['extrinsic']['baseline']), float(content['intrinsic']['fx'])
        if not all(0 < value < math.inf for value in found):
            raise ValueError(f'found {found[0]:g} and {found[1]:g}')
    except (KeyError, TypeError, ValueError) as error:
        raise FrameError(
            f'{path}: expected JSON with extrinsic.baseline and intrinsic.fx, numbers > 0 '
            f'({type(error).__name__}: {error}). Unpack the camera package again.'
        ) from error
    return found
