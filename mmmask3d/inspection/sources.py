"""Open a data folder or a config as the RGB-D sets it describes, with labels and splits."""

import argparse
import json
import os
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config

from mmmask3d.config_files import read_config_file
from mmmask3d.datasets.classes import NYU13_CLASSES, NYU40_CLASSES, SCANNET20_CLASSES
from mmmask3d.datasets.frame_files import by_stem, existing, files_in
from mmmask3d.datasets.rgbd_dataset import RGBDDataset
from mmmask3d.datasets.text_lists import read_lines

LOADERS = ('train', 'val', 'test')
_IGNORED = 255
_MEANINGLESS = 254
_CLASS_SETS = {'nyu13': NYU13_CLASSES, 'nyu40': NYU40_CLASSES, 'scannet20': SCANNET20_CLASSES}
_SETTINGS = (
    'img_suffix',
    'depth_suffix',
    'depth_scale',
    'depth_kind',
    'depth_invalid',
    'min_depth',
    'max_depth',
    'confidence_suffix',
    'min_confidence',
    'ann_file',
)


class SourceOptionsError(ValueError):
    """The folder, the config or the options do not say what there is to look at."""


class FoundFrames(RGBDDataset):
    """``RGBDDataset`` that remembers what it leaves out instead of stopping or warning.

    Attributes:
        noted: Paths of files that are 'missing' though their partner, or the index, says they
            should exist; of pictures that are 'left_over' because of their suffix; of 'links' that
            are passed over, to folders that are listed already.
    """

    def __init__(self, **settings: Any) -> None:
        self.noted: dict[str, list[str]] = {'missing': [], 'left_over': [], 'links': []}
        super().__init__(**settings, on_error='drop')

    def _note(self, kind: str, paths: Sequence[str], message: str) -> None:
        self.noted[kind] += paths

    def listed(self) -> list[str]:
        """Colour files that the index names, existing or not, in its order."""
        names = [files[0] for files in self._parse_index()]
        files = self._existing('img_path', set(names))
        return [
            posixpath.join(self.data_prefix['img_path'], files.get(name, name)) for name in names
        ]


@dataclass(frozen=True)
class LabelMaps:
    """A folder of label maps: by default 0 = unlabelled, 1..C the classes, 255 ignored."""

    kind: str
    folder: str
    suffix: str
    classes: tuple[str, ...]
    first_id: int = 1  # stored id of the first class
    ignore_id: int = 0  # stored id of unlabelled pixels

    def path(self, frame: str) -> str:
        """File of a frame."""
        return existing(posixpath.join(self.folder, frame + self.suffix))

    @property
    def names(self) -> dict[int, str]:
        """What each stored id means."""
        classes = dict(enumerate(self.classes, self.first_id))
        return {_IGNORED: 'ignored', self.ignore_id: 'unlabelled', **classes}

    def from_one(self, ids: np.ndarray) -> np.ndarray:
        """Bring stored ids to 0 = unlabelled, 1..C, 255 ignored; ids of no meaning become 254.

        Args:
            ids: uint8, any shape.
        """
        table = np.full(256, _MEANINGLESS, np.uint8)
        table[_IGNORED] = _IGNORED
        table[self.ignore_id] = 0
        count = len(self.classes)
        table[self.first_id : self.first_id + count] = np.arange(1, count + 1)
        return table[ids]


@dataclass
class Source:
    """One set of frames with one unit."""

    title: str  # in reports
    frames: FoundFrames  # those without partner are not among them
    backend_args: dict | None = None
    labels: list[LabelMaps] = field(default_factory=list)
    instances: LabelMaps | None = None  # 0 = none
    annotations: dict[str, str] = field(default_factory=dict)  # COCO files by split
    splits: dict[str, list[str]] = field(default_factory=dict)  # colour files, as listed
    unsure: float | None = None  # share of the readings a conversion dropped for low confidence

    @property
    def metric(self) -> bool:
        """Whether depth is in metres."""
        return self.frames.depth_kind == 'metric'

    @property
    def unit(self) -> str:
        """Label of the depth scale, as the panels write it."""
        return 'm' if self.metric else 'relative'


def open_sources(args: argparse.Namespace, split: str | None = None) -> list[Source]:
    """Open what the command line names.

    Args:
        args: With the arguments of :func:`mmmask3d.cli.source_options.add_source_arguments`,
            ``cfg_options`` read into a dict.
        split: Only the frames of this split.

    Raises:
        SourceOptionsError: It cannot be opened; the message says what to change.
    """
    given = {
        name: getattr(args, name) for name in _SETTINGS if getattr(args, name, None) is not None
    }
    folders = [n for n in ('rgb', 'depth', 'confidence', 'labels') if getattr(args, n)]
    try:
        if str(args.source).endswith('.py'):
            if given or folders:
                options = [f'--{name}'.replace('_', '-') for name in (*given, *folders)]
                raise SourceOptionsError(
                    f'{", ".join(options)}: options of a data folder; {args.source} is a config. '
                    f'Change its settings with --cfg-options.'
                )
            cfg = read_config_file(args.source, args.cfg_options)
            return open_config(cfg, [split] if split else LOADERS)
        if args.cfg_options:
            raise SourceOptionsError('--cfg-options belongs to a config file, not to a folder.')
        places = args.rgb, args.depth, args.labels
        return [open_folder(args.source, given, *places, split, args.confidence)]
    except (FileNotFoundError, ValueError) as error:
        raise SourceOptionsError(str(error)) from error


# ---------------------------------------------------------------- folders


def open_folder(
    root: str | Path,
    given: Mapping[str, Any] | None = None,
    rgb: str | None = None,
    depth: str | None = None,
    labels: Sequence[str] = (),
    split: str | None = None,
    confidence: str | None = None,
) -> Source:
    """Open a data folder.

    Args:
        root: The folder; ``manifest.json`` of a converter is used where it has one.
        given: Settings of :class:`~mmmask3d.datasets.RGBDDataset` that differ.
        rgb: Colour folder, that of the manifest or ``rgb`` by default.
        depth: Depth folder, that of the manifest or ``depth`` by default.
        labels: Label folders as ``FOLDER=CLASSES``.
        split: Only the frames of ``splits/<split>.txt``.
        confidence: Folder of confidence maps; none by default.
    """
    root = str(root)
    if not os.path.isdir(root):
        raise SourceOptionsError(f'{root} is no folder, and no config file (.py).')
    manifest = _read_manifest(root)
    noted: dict[str, Any] = {k: manifest[k] for k in ('depth_scale', 'depth_kind') if k in manifest}
    noted |= manifest.get('rgbd_dataset', {})
    kinds, named = {'img_path': 'rgb', 'depth_path': 'depth'}, manifest.get('folders', {})
    folders = {key: str(named.get(kind, kind)) for key, kind in kinds.items()}
    folders |= noted.pop('data_prefix', {})
    listed, home = noted.pop('ann_file', None), noted.pop('data_root', root)
    in_place = home != root  # an index over files that stayed where they were
    rgb, depth = rgb or folders['img_path'], depth or folders['depth_path']
    prefix = {**folders, 'img_path': rgb, 'depth_path': depth}
    if confidence:
        prefix['confidence_path'] = confidence
    img_suffix = _suffix_in(rgb, manifest, noted.pop('img_suffix', '.jpg'))
    depth_suffix = _suffix_in(depth, manifest, noted.pop('depth_suffix', '.png'))
    settings = {**noted, 'img_suffix': img_suffix, 'depth_suffix': depth_suffix, **(given or {})}
    lists_folder = os.path.abspath(f'{root}/splits') if in_place else 'splits'
    if split:
        if 'ann_file' in settings:
            raise SourceOptionsError('give either a split or --ann-file, not both.')
        settings['ann_file'] = f'{lists_folder}/{split}.txt'
    elif in_place:
        settings.setdefault('ann_file', listed)
    place = dict(data_root=home, data_prefix=prefix)
    source = Source(root, FoundFrames(**settings, **place))
    _describe(source, root, manifest)
    for text in labels:
        maps = _parse_labels(text, root)
        source.labels = [m for m in source.labels if m.kind != maps.kind] + [maps]
    folder = Path(root, 'splits')
    lists = by_stem(files_in(folder), '.txt', folder) if folder.is_dir() else {}
    for name, file in lists.items():
        index = FoundFrames(
            **{**settings, 'ann_file': f'{lists_folder}/{file}'}, **place, lazy_init=True
        )
        source.splits[name] = index.listed()
    return source


def _suffix_in(folder: str, manifest: Mapping, default: str) -> str:
    """How the files of a folder end."""
    folders = manifest.get('folders', {})
    suffixes = manifest.get('suffixes', {}).items()
    return next((s for kind, s in suffixes if folders.get(kind, kind) == folder), default)


def _describe(source: Source, root: str, manifest: Mapping) -> None:
    """Add what a folder says about itself, and its COCO files."""
    folders, suffixes = manifest.get('folders', {}), manifest.get('suffixes', {})
    source.unsure = manifest.get('depth', {}).get('depth', {}).get('unsure_share')
    source.labels = [
        LabelMaps(
            kind,
            posixpath.join(root, folders.get(kind, kind)),
            suffixes.get(kind, '.png'),
            tuple(classes),
            manifest.get('first_ids', {}).get(kind, 1),
            manifest.get('ignore_ids', {}).get(kind, 0),
        )
        for kind, classes in manifest.get('classes', {}).items()
    ]
    if 'instance' in suffixes:
        place = posixpath.join(root, folders.get('instance', 'instance'))
        source.instances = LabelMaps('instance', place, suffixes['instance'], ())
    folder = Path(root, 'annotations')
    files = by_stem(files_in(folder), '.json', folder) if folder.is_dir() else {}
    source.annotations = {
        name.removeprefix('instances_'): str(folder / file)
        for name, file in files.items()
        if name.startswith('instances_')
    }


def _read_manifest(root: str) -> dict:
    """What a converter noted about a folder; {} for others."""
    path = Path(root, 'manifest.json')
    try:
        manifest = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise SourceOptionsError(f'{path} is no JSON ({error}).') from error
    needed = {'depth_kind', 'depth_scale', 'suffixes', 'classes'}
    missing = needed - set(manifest) if isinstance(manifest, dict) else needed
    if missing:
        raise SourceOptionsError(
            f'{path} is no manifest of a converter of this project ({", ".join(sorted(missing))} '
            'missing). Move it away and give the options instead.'
        )
    return dict(manifest)


def _parse_labels(text: str, root: str) -> LabelMaps:
    kind, _, classes = text.partition('=')
    if classes in _CLASS_SETS:
        names = _CLASS_SETS[classes]
    elif classes.isdigit() and 0 < int(classes) < 255:
        names = tuple(f'class {i}' for i in range(1, int(classes) + 1))
    elif os.path.isfile(classes):
        names = tuple(name for _, name in read_lines(classes))
    else:
        raise SourceOptionsError(
            f'--labels {text!r}: expected FOLDER=CLASSES, with CLASSES one of '
            f'{", ".join(_CLASS_SETS)}, a number from 1 to 254, or a text file of one name a line.'
        )
    folder = posixpath.join(root, kind)
    if not kind or not os.path.isdir(folder):
        raise SourceOptionsError(f'--labels {text!r}: the folder {folder} does not exist.')
    return LabelMaps(kind, folder, '.png', names)


# ---------------------------------------------------------------- configs


def open_config(cfg: Config, loaders: Sequence[str] = LOADERS) -> list[Source]:
    """Open the RGB-D sets of a config, one source for each, ``ConcatDataset`` included.

    A loader that reads the same as one before (``test_dataloader = val_dataloader``) adds its name
    to the splits of that source.
    """
    sources: list[Source] = []
    seen: list[dict] = []
    for loader in loaders:
        content = cfg.get(f'{loader}_dataloader')
        if not content:
            if len(loaders) == 1:
                raise SourceOptionsError(f'{cfg.filename} has no {loader}_dataloader.')
            continue
        for leaf in rgbd_configs(content['dataset'], f'{cfg.filename}: {loader}_dataloader'):
            settings = _reading_settings(leaf)
            if settings in seen:
                known = sources[seen.index(settings)]
                known.splits[loader] = next(iter(known.splits.values()))
                continue
            seen.append(settings)
            frames = FoundFrames(**settings)
            root = str(settings.get('data_root', ''))
            index = settings.get('ann_file', '')
            title = f'{loader}: {root}' + (f', {index}' if index else '')
            source = Source(title, frames, backend_args=_frame_backend(leaf))
            if os.path.isdir(root):
                _describe(source, root, _read_manifest(root))
            source.splits[loader] = [
                frames.get_data_info(i)['img_path'] for i in range(len(frames))
            ]
            sources.append(source)
    return sources


def rgbd_configs(dataset: Mapping, where: str) -> Iterator[Mapping]:
    """Configs of the ``RGBDDataset`` inside a data set config, wrappers taken off.

    Raises:
        SourceOptionsError: There is a data set of another type.
    """
    kind = str(dataset.get('type', '')).rpartition('.')[2]
    if kind == 'RGBDDataset':
        yield dataset
    elif kind == 'ConcatDataset':
        for number, part in enumerate(dataset['datasets']):
            yield from rgbd_configs(part, f'{where}.datasets[{number}]')
    elif 'dataset' in dataset:  # RepeatDataset and the like
        yield from rgbd_configs(dataset['dataset'], where)
    else:
        raise SourceOptionsError(
            f'{where}: expected RGBDDataset (possibly in ConcatDataset or RepeatDataset), found '
            f'{dataset.get("type")!r}. Give a pre-training config, or the data folder.'
        )


def _reading_settings(leaf: Mapping) -> dict:
    """Settings that decide which frames are read and how, without pipeline and seeds."""
    # `_scope_` is what mmengine adds to a config that inherits from a package.
    left_out = {'type', '_scope_', 'pipeline', 'test_mode', 'on_error', 'seed'}
    left_out |= {'max_refetch', 'lazy_init'}
    return {key: value for key, value in dict(leaf).items() if key not in left_out}


def _frame_backend(leaf: Mapping) -> dict | None:
    for transform in leaf.get('pipeline', ()):
        if str(transform.get('type', '')).rpartition('.')[2] == 'LoadRGBD':
            return transform.get('backend_args')
    return None
