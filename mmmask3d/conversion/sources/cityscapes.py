"""Cityscapes: metric depth from disparity, and the labels that mmseg and mmdet expect."""

import argparse
import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmmask3d.conversion.converter import Converter, FrameRef, Plan
from mmmask3d.conversion.formats.source_image import read_colour, read_map
from mmmask3d.conversion.frame import Frame, store_depth
from mmmask3d.conversion.paths import SourceError, require, safe_name
from mmmask3d.datasets.depth_io import FrameError
from mmmask3d.datasets.frame_files import by_stem, files_in, folders_in, match_names


@dataclass(frozen=True)
class Label:
    """A label of the published table.

    Attributes:
        name: As published.
        id: In ``labelIds``; thousands in ``instanceIds``.
        train_id: Class of the 19-class benchmark, 255 = not evaluated.
        is_thing: Whether it is one of the eight classes of the instance benchmark: its instances
            are told apart, and it is evaluated.
    """

    name: str
    id: int
    train_id: int = 255
    is_thing: bool = False


#: The published table, mcordts/cityscapesScripts, cityscapesscripts/helpers/labels.py. Left out is
#: 'license plate', whose id -1 stands in no label map.
LABELS = (
    Label('unlabeled', 0),
    Label('ego vehicle', 1),
    Label('rectification border', 2),
    Label('out of roi', 3),
    Label('static', 4),
    Label('dynamic', 5),
    Label('ground', 6),
    Label('road', 7, 0),
    Label('sidewalk', 8, 1),
    Label('parking', 9),
    Label('rail track', 10),
    Label('building', 11, 2),
    Label('wall', 12, 3),
    Label('fence', 13, 4),
    Label('guard rail', 14),
    Label('bridge', 15),
    Label('tunnel', 16),
    Label('pole', 17, 5),
    Label('polegroup', 18),
    Label('traffic light', 19, 6),
    Label('traffic sign', 20, 7),
    Label('vegetation', 21, 8),
    Label('terrain', 22, 9),
    Label('sky', 23, 10),
    Label('person', 24, 11, is_thing=True),
    Label('rider', 25, 12, is_thing=True),
    Label('car', 26, 13, is_thing=True),
    Label('truck', 27, 14, is_thing=True),
    Label('bus', 28, 15, is_thing=True),
    Label('caravan', 29),
    Label('trailer', 30),
    Label('train', 31, 16, is_thing=True),
    Label('motorcycle', 32, 17, is_thing=True),
    Label('bicycle', 33, 18, is_thing=True),
)
#: Labels under which a disparity is no reading: the sky has no depth, the car that carries the
#: cameras is not the scene, and the other two are borders where the views were rectified or do not
#: overlap. 'static', 'dynamic', 'ground' and 'unlabeled' are surfaces without a class, and keep
#: their readings.
WITHOUT_DEPTH = ('sky', 'ego vehicle', 'rectification border', 'out of roi')

_TRAIN_IDS = np.full(256, 255, np.uint8)
_TRAIN_IDS[[label.id for label in LABELS]] = [label.train_id for label in LABELS]
_WITHOUT_DEPTH = np.isin(np.arange(256), [b.id for b in LABELS if b.name in WITHOUT_DEPTH])
_LAST_ID = LABELS[-1].id

_SPLITS = ('train', 'val', 'test', 'train_extra')
_LABELLED = ('train', 'val')  # what is there for the others masks borders, and holds no classes
_COLOUR = '_leftImg8bit.png'
_DISPARITY_PER_PIXEL = 256
_INSTANCES_PER_LABEL = 1000


@dataclass(frozen=True)
class City:
    """The frames of one city.

    Attributes:
        split: Folder of the split.
        name: Folder of the city.
    """

    split: str
    name: str

    def __str__(self) -> str:
        return f'{self.split}/{self.name}'


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
            ordered = sorted((b for b in LABELS if b.train_id != 255), key=lambda b: b.train_id)
            self.classes = {'label': tuple(label.name for label in ordered)}
            self.first_ids, self.ignore_ids = {'label': 0}, {'label': 255}
            self.categories = {label.id: label.name for label in LABELS if label.is_thing}

    @classmethod
    def add_arguments(cls, parser: argparse._ActionsContainer) -> None:
        """Add the options of this data set."""
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
        """Options that decide the content of the output."""
        return {'labels': self.labels, 'splits': sorted(self.wanted)}

    def sources(self) -> list[City]:
        """The cities of the splits."""
        root = self.source / 'leftImg8bit'
        require(root, 'the colour images', 'Unpack leftImg8bit_trainvaltest.zip there.')
        there = [s for s in _SPLITS if (root / s).is_dir()]
        if not there:
            raise SourceError(f'{root}: holds none of the folders {", ".join(_SPLITS)}.')
        absent = sorted(set(self.wanted) - set(there))
        if absent:
            raise SourceError(f'{root}: --splits asks for {absent}, there are only {there}.')
        found = []
        for split in (s for s in there if not self.wanted or s in self.wanted):
            folder = root / split
            found += [City(split, name) for name in folders_in(folder)]
        return found

    def plan(self, source: City) -> Plan:
        """Find the frames of a city."""
        folder = self._path(source, 'leftImg8bit', '')
        stems = sorted(by_stem(files_in(folder), _COLOUR, folder, SourceError))
        plan = Plan()
        for stem in stems:
            problem = self._missing(source, stem)
            if problem:
                plan.problems.append(problem)
            else:
                name = safe_name(f'{source.split}/{source.name}/{stem}')
                plan.frames.append(FrameRef(name, stem, source.split))
        if not stems:
            plan.problems.append(f'{folder}: no file ends in {_COLOUR}. Unpack the city again.')
        return plan

    def _path(self, city: City, package: str, file: str) -> Path:
        """A file of a city, or the one there is with another case of the suffix."""
        folder = self.source / package / city.split / city.name
        if file and not (folder / file).exists() and folder.is_dir():
            file = match_names([file], files_in(folder), folder, FrameError).get(file, file)
        return folder / file

    def _missing(self, city: City, stem: str) -> str:
        """What is wrong with a frame whose colour image is there; '' for nothing."""
        expected = {'disparity': 'png', 'camera': 'json'}
        for package, suffix in expected.items():
            path = self._path(city, package, f'{stem}_{package}.{suffix}')
            if not path.is_file():
                return (
                    f'{path} does not exist, but its colour image does. Unpack '
                    f'{package}_trainvaltest.zip (or _trainextra.zip) next to leftImg8bit.'
                )
        if self.labels and city.split in _LABELLED:
            for kind in ('labelIds', 'instanceIds'):
                path = self._path(city, 'gtFine', f'{stem}_gtFine_{kind}.png')
                if not path.is_file():
                    return (
                        f'{path} does not exist, but its colour image does. Unpack '
                        f'gtFine_trainvaltest.zip next to leftImg8bit, or convert with --no-labels.'
                    )
        return ''

    def read(self, opened: City, locator: str) -> Frame:
        """Read a frame: depth, and labels where they are public."""
        stem = locator
        colour_path = self._path(opened, 'leftImg8bit', stem + _COLOUR)
        image, size = read_colour(colour_path, '.png')
        disparity_path = self._path(opened, 'disparity', f'{stem}_disparity.png')
        stored = read_map(disparity_path, 16)
        _check_size(stored, disparity_path, size, colour_path)
        camera = read_camera(self._path(opened, 'camera', f'{stem}_camera.json'))
        depth, valid = depth_from_disparity(stored, *camera)
        frame = Frame({'rgb': image}, extra={'baseline': camera[0], 'fx': camera[1]})
        ids = self._label_ids(opened, stem, size, colour_path)
        if ids is not None:
            valid &= ~_WITHOUT_DEPTH[ids]
        frame.images['depth'] = store_depth(depth, valid, self.depth_scale)
        if self.labels and opened.split in _LABELLED:
            frame.images['label'] = _TRAIN_IDS[ids]
            path = self._path(opened, 'gtFine', f'{stem}_gtFine_instanceIds.png')
            instances = read_map(path, 16)
            _check_size(instances, path, size, colour_path)
            frame.images['instance'] = instances
            frame.categories, frame.crowds = self._things(instances, path)
        return frame

    def _label_ids(
        self, city: City, stem: str, size: tuple[int, int], colour_path: Path
    ) -> np.ndarray | None:
        """Labels of a frame: fine ones, else coarse ones, else none."""
        for package in ('gtFine', 'gtCoarse'):
            path = self._path(city, package, f'{stem}_{package}_labelIds.png')
            if path.is_file():
                ids = read_map(path, 8)
                _check_size(ids, path, size, colour_path)
                if ids.max() > _LAST_ID:
                    raise FrameError(
                        f'{path}: has the label {ids.max()}, expected 0 to {_LAST_ID}. Is it a map '
                        f'of train ids?'
                    )
                return ids
        return None

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
    except (KeyError, TypeError, ValueError) as error:
        raise FrameError(
            f'{path}: expected JSON with extrinsic.baseline and intrinsic.fx '
            f'({type(error).__name__}: {error}). Unpack the camera package again.'
        ) from error
    if not all(0 < value < math.inf for value in found):
        raise FrameError(
            f'{path}: extrinsic.baseline and intrinsic.fx are {found[0]:g} and {found[1]:g}, '
            f'expected numbers > 0. Unpack the camera package again.'
        )
    return found


def _check_size(image: np.ndarray, path: Path, size: tuple[int, int], colour_path: Path) -> None:
    if image.shape[::-1] != size:
        raise FrameError(
            f'{path}: {image.shape[1]}x{image.shape[0]} pixels, {colour_path} has '
            f'{size[0]}x{size[1]}. Convert the data set as distributed; --size makes it smaller.'
        )
