"""SUN RGB-D: the ``SUNRGBD`` tree and the labels of ``SUNRGBDtoolbox``."""

import argparse
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mmmask3d.conversion.converter import Converter, FrameRef, Plan
from mmmask3d.conversion.formats.mat5 import read_mat5
from mmmask3d.conversion.formats.mat73 import find_array, open_mat73, read_part
from mmmask3d.conversion.formats.source_image import check_size, read_map
from mmmask3d.conversion.frame import Frame
from mmmask3d.conversion.options import above_zero
from mmmask3d.conversion.paths import SourceError, path_inside, require, safe_name
from mmmask3d.datasets.classes import SUNRGBD37_CLASSES
from mmmask3d.datasets.depth_io import FrameError, read_header

TREE = 'SUNRGBD'
TOOLBOX = 'SUNRGBDtoolbox'
META = 'Metadata/SUNRGBDMeta.mat'
SEGMENTATION = 'Metadata/SUNRGBD2Dseg.mat'
ALL_SPLIT = 'traintestSUNRGBD/allsplit.mat'
_DOCS = 'See docs/datasets/sunrgbd.md.'
_REGISTERED = 'Expected one size, since they are registered.'
#: The lists name frames by paths of the authors' machine: /n/fs/sun3d/data/SUNRGBD/kv1/...
_BEFORE_TREE = re.compile(r'^(?:.*?/)?SUNRGBD/')


class SUNRGBDConverter(Converter):
    """Convert SUN RGB-D: colour, raw and in-filled depth, 37 classes, official split.

    Frames are named by their folder, ``kv1/NYUdata/NYU0001`` for example. Depth is stored with its
    bits rotated by three; it becomes millimetres with 0 for "no reading".
    """

    name = 'sunrgbd'
    title = 'SUN RGB-D'
    content_options = ('filled', 'labels', 'max_depth')

    def __init__(self, args: argparse.Namespace) -> None:
        super().__init__(args)
        self.toolbox: Path = args.toolbox or self.source / TOOLBOX
        self.filled, self.labels, self.max_depth = args.filled, args.labels, args.max_depth
        self.suffixes = {'rgb': '.jpg', 'depth': '.png'}
        if self.filled:
            self.suffixes['depth_filled'] = '.png'
        if self.labels:
            self.suffixes['label37'] = '.png'
            self.classes = {'label37': SUNRGBD37_CLASSES}

    @classmethod
    def add_arguments(cls, parser: argparse._ActionsContainer) -> None:
        parser.add_argument('--toolbox', type=Path, help=f'{TOOLBOX}, if not in the source')
        parser.add_argument(
            '--filled', action='store_true', help='also the in-filled depth (depth_bfx)'
        )
        parser.add_argument(
            '--no-labels',
            dest='labels',
            action='store_false',
            help=f'do without {Path(SEGMENTATION).name}',
        )
        parser.add_argument(
            '--max-depth',
            type=above_zero,
            default=8.0,
            metavar='METRES',
            help='depth from here on is no reading: the toolbox cuts it off at 8',
        )

    def sources(self) -> Sequence[Path]:
        """See :meth:`Converter.sources`: the one tree."""
        tree = require(self.source / TREE, f'the unpacked {TREE}.zip', _DOCS)
        for name in (META, ALL_SPLIT, *([SEGMENTATION] if self.labels else [])):
            require(self.toolbox / name, f'the unpacked {TOOLBOX}.zip', _DOCS)
        return [tree]

    def plan(self, source: Path) -> Plan:
        """See :meth:`Converter.plan`: the frames of ``SUNRGBDMeta``, whose order the labels share.

        A frame that is missing from the tree, or from the split, is a problem of its own.
        """
        listed = read_meta(self.toolbox / META)
        split = read_split(self.toolbox / ALL_SPLIT)
        if self.labels:
            with open_mat73(self.toolbox / SEGMENTATION) as file:
                count = label_references(file, self.toolbox / SEGMENTATION).size
            if count != len(listed):
                raise SourceError(
                    f'{self.toolbox / SEGMENTATION} has labels of {count} frames, but {META} lists '
                    f'{len(listed)}. Use both of one download.'
                )
        plan = Plan()
        for index, (folder, image, depth) in enumerate(listed):
            try:
                where = f'{self.toolbox / META}, entry {index + 1}'
                inside = path_inside(source, folder, where).relative_to(source).as_posix()
                if inside not in split:
                    raise SourceError(f'{where}: {inside} is in neither part of {ALL_SPLIT}.')
                paths = [
                    path_inside(source, f'{folder}/{kind}/{name}', where)
                    for kind, name in (('image', image), ('depth', depth), ('depth_bfx', depth))
                ]
                for path in paths if self.filled else paths[:2]:
                    require(path, f'a file of the frame {inside}', _DOCS)
                locator = (*paths, index)
                plan.frames.append(FrameRef(safe_name(inside), locator, split[inside]))
            except SourceError as error:
                plan.problems.append(str(error))
        return plan

    @contextmanager
    def open(self, source: Path) -> Iterator[tuple[h5py.File, np.ndarray] | None]:
        """See :meth:`Converter.open`: the labels, if they are wanted."""
        if not self.labels:
            yield None
            return
        path = self.toolbox / SEGMENTATION
        with open_mat73(path) as file:
            references = label_references(file, path)
            yield file, read_part(references, (), f'{path}: seglabel').ravel()

    def read(self, opened: tuple[h5py.File, np.ndarray] | None, locator: tuple) -> Frame:
        """See :meth:`Converter.read`; the colour file is kept as it is."""
        image_path, depth_path, filled_path, index = locator
        image = image_path.read_bytes()
        header = read_header(image, str(image_path), ('JPEG',))
        depth = read_depth(depth_path, self.max_depth)
        size = depth.shape[::-1]
        check_size(image_path, (header.width, header.height), size, depth_path, _REGISTERED)
        images: dict[str, np.ndarray | bytes] = {'rgb': image, 'depth': depth}
        if self.filled:
            filled = images['depth_filled'] = read_depth(filled_path, self.max_depth)
            check_size(filled_path, filled.shape[::-1], size, depth_path, _REGISTERED)
        if opened is not None:
            file, references = opened
            where = f'{self.toolbox / SEGMENTATION}, seglabel of frame {index + 1}'
            images['label37'] = read_label(file, references[index], depth.shape, where)
        return Frame(images)


# -------------------------------------------------------------------- toolbox


def folder_in_tree(path: str, where: str) -> str:
    """What a path of the lists names below ``SUNRGBD/``.

    Raises:
        SourceError: It does not lie below a folder of that name.
    """
    below = _BEFORE_TREE.sub('', path, count=1)
    if below == path or not below:
        raise SourceError(f'{where}: {path!r} does not lie in a folder {TREE}.')
    return below


def read_meta(path: Path) -> list[tuple[str, str, str]]:
    """Folder below the tree, colour and depth file name of each frame, in the order of the labels.

    Raises:
        SourceError: The file is damaged or of another kind.
    """
    fields = ('rgbpath', 'rgbname', 'depthname')
    name = 'SUNRGBDMeta'
    frames = []
    for i, record in enumerate(read_mat5(path, [name], {name: fields})[name], 1):
        where = f'{path}, entry {i}'
        try:
            rgbpath, image, depth = (str(record[field]) for field in fields)
        except (IndexError, KeyError, TypeError) as error:
            raise SourceError(
                f'{where}: {name} has no fields {", ".join(fields)}. Use the file as distributed.'
            ) from error
        # .../frame/image/name; the authors' paths have doubled slashes here and there.
        folder, kind = os.path.split(os.path.dirname(rgbpath))
        if os.path.basename(rgbpath) != image or kind != 'image':
            raise SourceError(f'{where}: rgbpath {rgbpath!r} does not end in image/{image}.')
        frames.append((folder_in_tree(folder + '/', where).rstrip('/'), image, depth))
    return frames


def read_split(path: Path) -> dict[str, str]:
    """Part, 'train' or 'test', of each folder below the tree.

    Raises:
        SourceError: The file is damaged, or a folder is listed twice.
    """
    variables = {'train': 'alltrain', 'test': 'alltest'}
    content = read_mat5(path, list(variables.values()))
    split: dict[str, str] = {}
    for part, variable in variables.items():
        for i, cell in enumerate(content[variable], 1):
            where = f'{path}: {variable}, entry {i}'
            folder = os.path.normpath(folder_in_tree(str(cell), where))
            if folder in split:
                raise SourceError(f'{where}: {folder} is listed twice.')
            split[folder] = part
    return split


def label_references(file: h5py.File, path: Path) -> h5py.Dataset:
    """Field ``seglabel`` of the struct array ``SUNRGBD2Dseg``: a reference per frame.

    Raises:
        SourceError: The file is damaged or of another kind.
    """
    where = f'{path}: SUNRGBD2Dseg.seglabel'
    return find_array(file, 'SUNRGBD2Dseg/seglabel', (None, None), 'O', where)


# -------------------------------------------------------------------- frames


def read_label(file: h5py.File, reference: Any, shape: tuple[int, int], where: str) -> np.ndarray:
    """Label map of a frame, (H, W) uint8, 0 = unlabelled.

    Raises:
        SourceError, FrameError: It cannot be read, has another size than ``shape``, or holds
            other values than ids.
    """
    stored = read_part(find_array(file, reference, shape[::-1], 'uif', where), (), where).T
    with np.errstate(invalid='ignore'):  # what is no number is told apart below
        label = stored.astype(np.uint8)
    if not np.array_equal(label, stored):
        raise FrameError(
            f'{where} holds {stored.dtype} from {stored.min()} to {stored.max()}, expected ids of '
            f'0 to {len(SUNRGBD37_CLASSES)}.'
        )
    return np.ascontiguousarray(label)


def unrotate(stored: np.ndarray) -> np.ndarray:
    """Millimetres of stored depth, uint16: ``read3dPoints.m`` of the toolbox makes its lowest three
    bits the highest.
    """
    return (stored >> 3) | (stored << 13)


def read_depth(path: Path, max_depth: float) -> np.ndarray:
    """Depth in millimetres, (H, W) uint16, 0 = no reading, as from ``max_depth`` metres on.

    Raises:
        FrameError: The PNG is damaged, or another kind of picture.
        OSError: It cannot be opened.
    """
    depth = unrotate(read_map(path, 16))
    return np.where(depth < 1000 * max_depth, depth, 0).astype(np.uint16)
