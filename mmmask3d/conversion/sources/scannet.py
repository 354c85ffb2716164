"""Convert ScanNet: ``.sens`` streams with their label archives, or ``scannet_frames_25k``."""

import argparse
import zlib
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from mmmask3d.conversion.converter import Converter, Plan, json_file
from mmmask3d.conversion.frame import Frame
from mmmask3d.conversion.options import UNITS, add_every, add_unit
from mmmask3d.conversion.paths import SourceError, require
from mmmask3d.conversion.sources.scannet_labels import read_label_map
from mmmask3d.conversion.sources.scannet_lists import (
    SCENE,
    draw_low_label_lists,
    read_given_lists,
    read_splits,
)
from mmmask3d.conversion.sources.scannet_scenes import FramesScene, SensScene
from mmmask3d.datasets.classes import NYU40_CLASSES, SCANNET18_CLASSES, SCANNET20_CLASSES
from mmmask3d.datasets.depth_io import FrameError
from mmmask3d.datasets.frame_files import folders_in

#: Folders of scenes, as the official download script and archives call them.
_ROOTS = ('scans', 'scans_test', 'scannet_frames_25k', 'scannet_frames_test')


class ScanNetConverter(Converter):
    """Convert ScanNet (.sens streams with label archives, or scannet_frames_25k)."""

    name = 'scannet'
    title = 'ScanNet'

    @classmethod
    def add_arguments(cls, parser: argparse._ActionsContainer) -> None:
        parser.add_argument(
            '--splits',
            type=Path,
            required=True,
            metavar='FOLDER',
            help='folder with the official scannetv2_{train,val,test}.txt',
        )
        parser.add_argument(
            '--unlisted',
            choices=['error', 'keep', 'skip'],
            default='error',
            help='scenes that are in none of these lists; "keep" lists them in all.txt only',
        )
        parser.add_argument(
            '--labels',
            choices=['none', 'semantic', 'instances'],
            default='instances',
            help='labels to read; "instances" includes "semantic"',
        )
        parser.add_argument(
            '--label-map',
            type=Path,
            metavar='TSV',
            help='scannetv2-labels.combined.tsv; for label archives, not for scannet_frames_25k',
        )
        add_every(parser, 25, 'a stream')
        # Of scannet_frames_25k and what is laid out like it; streams state theirs.
        add_unit(parser, default=UNITS['mm'])
        parser.add_argument(
            '--low-label-seed', type=int, default=0, metavar='SEED', help='of the low-label lists'
        )
        parser.add_argument(
            '--scene-lists',
            type=Path,
            nargs='+',
            default=[],
            metavar='TXT',
            help='published lists of training scenes; each becomes splits/<name of the file>.txt',
        )

    def __init__(self, args: argparse.Namespace) -> None:
        super().__init__(args)
        self.every = args.every
        self.unit: float = args.unit
        self.low_label_seed = args.low_label_seed
        self.labels = args.labels
        labels, instances = args.labels != 'none', args.labels == 'instances'
        self.suffixes = {'rgb': '.jpg', 'depth': '.png'}
        if labels:
            self.suffixes |= {'label20': '.png', 'label40': '.png'}
            self.classes = {'label20': SCANNET20_CLASSES, 'label40': NYU40_CLASSES}
        if instances:
            self.suffixes['instance'] = '.png'
            self.categories = dict(enumerate(SCANNET18_CLASSES, 1))
        splits = read_splits(args.splits)
        self.given_lists = read_given_lists(args.scene_lists, splits)
        self.scenes: list[SensScene | FramesScene] = self._find_scenes(splits, args.unlisted)
        self.label_map = self._label_map(args.label_map)

    def _find_scenes(
        self, splits: Mapping[str, str], unlisted: str
    ) -> list[SensScene | FramesScene]:
        require(self.source, 'ScanNet', 'Correct the path.')
        roots = [root for root in map(self.source.joinpath, _ROOTS) if root.is_dir()]
        folders = [
            folder
            for root in roots or [self.source]
            for folder in map(root.joinpath, folders_in(root))
            if SCENE.fullmatch(folder.name)
        ]
        if not folders:
            require(
                self.source / 'scene0000_00',
                'folders named like this one',
                f'Give the folder that holds them, or that of {", ".join(_ROOTS)}.',
            )
        others = [folder.name for folder in folders if folder.name not in splits]
        if others and unlisted == 'error':
            raise SourceError(
                f'{self.source}: {len(others)} of {len(folders)} scenes are in none of the lists, '
                f'the first is {others[0]}. Complete the lists, or say with --unlisted whether to '
                f'keep or to skip such scenes.'
            )
        scenes = [
            self._scene(folder, splits.get(folder.name, ''))
            for folder in folders
            if folder.name in splits or unlisted == 'keep'
        ]
        missing = [path for scene in scenes for path in scene.missing()]
        if missing:
            raise SourceError(
                f'{missing[0]} does not exist ({len(missing)} such files in all); every scene but '
                f'those of the test split is expected to have its labels. Complete them, or '
                f'choose with --labels what is read.'
            )
        return scenes

    def _scene(self, folder: Path, split: str) -> SensScene | FramesScene:
        streams = (folder / f'{folder.name}.sens').exists() or not (folder / 'color').is_dir()
        read = split != 'test'  # ScanNet keeps the labels of the test scenes to itself
        labels = dict(
            labels=read and self.labels != 'none',
            instances=read and self.labels == 'instances',
        )
        if streams:
            return SensScene(folder.name, folder, split, **labels)
        return FramesScene(folder.name, folder, split, **labels, scale=self.unit)

    def _label_map(self, path: Path | None) -> np.ndarray | None:
        if not any(isinstance(scene, SensScene) and scene.labels for scene in self.scenes):
            return None
        if path is None:
            raise SourceError(
                'The label archives need scannetv2-labels.combined.tsv, which comes with ScanNet: '
                'give it with --label-map, or choose --labels none.'
            )
        return read_label_map(path)

    def options(self) -> dict:
        """See :meth:`Converter.options`.

        Lists of scenes are not among them: they decide which index files name a frame, and index
        files are written again by every call.
        """
        streams = any(isinstance(scene, SensScene) for scene in self.scenes)
        return {
            'every': self.every if streams else None,
            'unit': None if all(isinstance(s, SensScene) for s in self.scenes) else self.unit,
            'labels': self.labels,
            'label_map_crc32': (
                None if self.label_map is None else zlib.crc32(self.label_map.tobytes())
            ),
        }

    def sources(self) -> Sequence[SensScene | FramesScene]:
        """See :meth:`Converter.sources`: the scenes."""
        return self.scenes

    def plan(self, source: SensScene | FramesScene) -> Plan:
        return source.plan(self.every)

    def open(self, source: SensScene | FramesScene) -> AbstractContextManager[Any]:
        return source.open(self.label_map)

    def read(self, opened: Any, locator: Any) -> Frame:
        return opened(locator)

    def splits(self, names: Mapping[str, str]) -> dict[str, list[str]]:
        """See :meth:`Converter.splits`; with the parts of the training scenes."""
        found = super().splits(names)
        for part, scenes in (self._drawn_lists(names) | self.given_lists).items():
            chosen = set(scenes)
            found[part] = [name for name in found.get('train', ()) if _scene_of(name) in chosen]
        return {split: listed for split, listed in found.items() if listed}

    def _drawn_lists(self, names: Mapping[str, str]) -> dict[str, list[str]]:
        train = {_scene_of(name) for name, split in names.items() if split == 'train'}
        return draw_low_label_lists(sorted(train), self.low_label_seed)

    def extra_files(self, names: Mapping[str, str]) -> dict[str, bytes]:
        """See :meth:`Converter.extra_files`: scenes of the low-label lists, and the cameras."""
        low_label = {'seed': self.low_label_seed, 'scenes': self._drawn_lists(names)}
        first: dict[str, int] = {}
        for name in names:
            first.setdefault(_scene_of(name), int(name.rpartition('/')[2]))
        try:
            cameras = {s.name: s.camera(first[s.name]) for s in self.scenes if s.name in first}
        except (FrameError, OSError) as error:
            raise SourceError(f'The calibration can no longer be read: {error}') from error
        return {
            'splits/low_label.json': json_file(low_label),
            'cameras.json': json_file(cameras),
        }


def _scene_of(name: str) -> str:
    return name.partition('/')[0]
