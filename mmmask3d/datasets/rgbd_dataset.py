"""Pairs of colour and depth files as an mmengine data set."""

import logging
import os
import pickle
import posixpath
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from mmengine import fileio
from mmengine.dataset import BaseDataset, force_full_init
from mmengine.fileio.backends import LocalBackend
from mmengine.logging import print_log

from mmmask3d.datasets.confidence import check_threshold
from mmmask3d.datasets.depth_io import check_reading_settings
from mmmask3d.datasets.frame_error import FrameError
from mmmask3d.datasets.frame_files import (
    PICTURE_SUFFIXES,
    by_stem,
    content_of,
    examples,
    existing,
    files_below,
    find_named,
    match_names,
    without_suffix,
)
from mmmask3d.datasets.packed_lmdb import PackedLmdbBackend
from mmmask3d.datasets.sampling import EpochIndex, sample_rng
from mmmask3d.datasets.text_lists import index_fields, numbered_lines
from mmmask3d.datasets.transforms.geometry import RGBDRandomResizedCrop
from mmmask3d.datasets.transforms.loading import LoadRGBD
from mmmask3d.registry import DATASETS

# A frame as held in memory: its files, relative to the prefixes, in the order of _KINDS.
Record = tuple[str, ...]

_KINDS = {
    'img_path': 'colour files',
    'depth_path': 'depth files',
    'confidence_path': 'confidence maps',
}


@DATASETS.register_module()
class RGBDDataset(BaseDataset):
    """RGB-D frames for pre-training, found by folder or by an index file.

    docs/data_format.md shows the layout, the rules of names and of index files, and the units of
    common data sets. Sources with other settings are concatenated with mmengine's
    ``ConcatDataset``.

    In training with :class:`~mmmask3d.datasets.EpochIndexSampler`, everything the pipeline draws
    from python's, numpy's and torch's global generators is a function of (``seed``, the run's
    seed, epoch, index). In ``test_mode`` it is a function of (``seed``, index): the same masks
    each time, whatever the run's seed.

    Args:
        ann_file: Index file, relative to ``data_root``. '' scans the folders.
        data_prefix: Folders: ``img_path`` and ``depth_path``; and ``confidence_path`` where
            readings have a confidence, in a map with the name of the depth file.
        img_suffix: Suffix of colour files, in any case.
        depth_suffix: Suffix of depth files (``.png``, ``.npy``, ``.tif``, ...), in any case.
        confidence_suffix: Suffix of confidence maps, of the formats of depth.
        min_confidence: Least confidence of a reading, in the values as stored (ARKit: 0, 1, 2).
            With ``confidence_path`` only.
        depth_scale: Stored units per metre; for relative depth, the stored value of 1.0.
        depth_invalid: Stored values that mean "no reading". NaN, infinities and negative values
            never are a reading, nor is metric depth 0.
        max_depth: Readings beyond are dropped, in metres (relative depth: after scaling).
        min_depth: Readings below are dropped, in metres (relative depth: after scaling).
        depth_kind: 'metric', or 'relative' where the metric scale is lost.
        on_error: 'raise', or 'drop' to leave out unusable frames, count them and warn. At
            start-up these are frames without partner; while loading, unreadable ones and those
            without a single depth reading, in whose place the next usable frame is given.
        seed: Seed of the draws of this data set, in addition to that of the run.
        backend_args: File backend for the index and the listing of folders; the loader has its
            own. Existence is checked at start-up for local files and packed ones
            (:class:`~mmmask3d.datasets.PackedLmdbBackend`), and names of another Unicode form or
            case of the suffix are resolved.
        **kwargs: Further arguments of :class:`mmengine.dataset.BaseDataset`: ``data_root``,
            ``pipeline``, ``test_mode``, ``indices``, ... ``max_refetch`` is the number of
            unreadable frames in a row after which loading gives up.

    Raises:
        FileNotFoundError: A folder, the index file or a partner is missing.
        ValueError: An argument or an index line is wrong, two files are one frame, or no frame is
            left.
    """

    METAINFO = dict(dataset_type='RGBDDataset', task_name='rgbd_pretraining')

    def __init__(
        self,
        ann_file: str = '',
        data_prefix: dict = dict(img_path='rgb', depth_path='depth'),  # noqa: B006
        img_suffix: str = '.jpg',
        depth_suffix: str = '.png',
        confidence_suffix: str = '.png',
        min_confidence: float | None = None,
        depth_scale: float = 1000.0,
        depth_invalid: Sequence[float] = (0,),
        max_depth: float | None = None,
        min_depth: float = 0.0,
        depth_kind: str = 'metric',
        on_error: str = 'raise',
        seed: int = 0,
        backend_args: dict | None = None,
        **kwargs: Any,
    ) -> None:
        if set(data_prefix) - {'confidence_path'} != {'img_path', 'depth_path'}:
            raise ValueError(
                f"RGBDDataset: data_prefix needs the keys 'img_path' and 'depth_path', and takes "
                f"'confidence_path'; got {sorted(data_prefix)}."
            )
        if ('confidence_path' in data_prefix) != (min_confidence is not None):
            raise ValueError(
                f"RGBDDataset: data_prefix['confidence_path'] and min_confidence belong together, "
                f'got {sorted(data_prefix)} and min_confidence={min_confidence!r}.'
            )
        if min_confidence is not None:
            min_confidence = check_threshold(min_confidence, 'RGBDDataset: min_confidence')
        check_reading_settings(depth_scale, depth_invalid, min_depth, max_depth, depth_kind)
        if on_error not in ('raise', 'drop'):
            raise ValueError(f"RGBDDataset: on_error must be 'raise' or 'drop', got {on_error!r}.")
        if not isinstance(seed, int) or seed < 0:
            raise ValueError(f'RGBDDataset: seed must be an int >= 0, got {seed!r}.')
        self.img_suffix = img_suffix
        self.depth_suffix = depth_suffix
        self.confidence_suffix = confidence_suffix
        self.min_confidence = min_confidence
        self._listed: dict[str, set[str]] = {}  # files of scanned folders, while they are paired
        self.depth_scale = float(depth_scale)
        self.depth_invalid = tuple(depth_invalid)
        self.max_depth = max_depth
        self.min_depth = float(min_depth)
        self.depth_kind = depth_kind
        self.on_error = on_error
        self.seed = seed
        self.backend_args = backend_args
        self.num_without_partner = 0
        self._unreadable = torch.zeros(0, dtype=torch.bool)
        super().__init__(ann_file=ann_file, data_prefix=dict(data_prefix), **kwargs)

    # ---------------------------------------------------------------- finding frames

    def load_data_list(self) -> list[Record]:
        """Find the frames and check that both files of each exist.

        Returns:
            One record per frame, in the order of the index or sorted by name.
        """
        for key in self.data_prefix:
            if isinstance(self._backend(key), LocalBackend):
                self.data_prefix[key] = existing(self.data_prefix[key])
        frames = list(self._parse_index()) if self.ann_file else self._scan_folders()
        frames = self._complete(frames)
        self._listed = {}
        if not frames:
            raise ValueError(
                f'RGBDDataset: no frame found: {self._where()}, img_suffix={self.img_suffix!r}, '
                f'depth_suffix={self.depth_suffix!r}.'
            )
        return frames

    def _where(self) -> str:
        source = f'index {self.ann_file!r}, ' if self.ann_file else ''
        return (
            f'{source}colour in {self.data_prefix["img_path"]!r}, depth in '
            f'{self.data_prefix["depth_path"]!r}'
        )

    def _scan_folders(self) -> list[Record]:
        """Frames by the sorted stems of the files in either folder."""
        colour, depth = (self._scan(key) for key in ('img_path', 'depth_path'))
        return [self._files_of(stem) for stem in sorted(colour | depth)]

    def _scan(self, key: str) -> set[str]:
        folder, suffix = self.data_prefix[key], self._suffix(key)
        links: list[str] = []
        names = list(self._list_files(key, links))
        stems = by_stem(names, suffix, folder).keys()
        if not stems:
            found = Counter(os.path.splitext(name)[1] for name in names)
            raise FileNotFoundError(
                f'RGBDDataset: no file in {folder!r} (data_prefix[{key!r}]) ends in {suffix!r}; '
                f'found: {_describe(found)}. Check {_option(key)}.'
            )
        left = [
            path
            for path in (_join(folder, name) for name in names)
            if os.path.splitext(path)[1].lower() in PICTURE_SUFFIXES
            and not self._is_frame_file(path)
        ]
        if left:
            counts = Counter(os.path.splitext(path)[1] for path in left)
            self._note(
                'left_over',
                left,
                f'RGBDDataset: {len(left)} files are no frames, as they do not end in '
                f'{_option(key)}={suffix!r}, and are left out: {_describe(counts)} '
                f'({examples(left)}). A second data set with their suffixes reads them '
                f'(ConcatDataset).',
            )
        if links:
            paths = [_join(folder, link) for link in links]
            self._note(
                'links',
                paths,
                f'RGBDDataset: {len(links)} links lead to a folder that is listed already or holds '
                f'them, and are passed over: {examples(paths)}.',
            )
        self._listed[key] = set(names)
        return set(stems)

    def _is_frame_file(self, path: str) -> bool:
        """Whether a path is what one of the prefixes and its suffix ask for."""
        return any(
            path.startswith(folder and folder.rstrip('/') + '/')
            and without_suffix(path, self._suffix(key)) is not None
            for key, folder in self.data_prefix.items()
        )

    def _note(self, kind: str, paths: Sequence[str], message: str) -> None:
        """Warn of files that are 'missing' or 'left_over', or of 'links' that are passed over."""
        print_log(message, logger='current', level=logging.WARNING)

    def _complete(self, frames: list[Record]) -> list[Record]:
        """The frames all files of which exist; raises, or warns, where some do not."""
        keys = self._keys
        if not frames or not all(self._can_check(key) for key in keys):
            return frames
        there = [
            self._existing(key, set(names))
            for key, names in zip(keys, zip(*frames, strict=True), strict=True)
        ]
        found = [
            tuple(files.get(name, '') for files, name in zip(there, frame, strict=True))
            for frame in frames
        ]
        complete = [files for files in found if all(files)]
        if len(complete) < len(frames):
            missing = {
                key: [
                    _join(self.data_prefix[key], frame[i])
                    for frame, files in zip(frames, found, strict=True)
                    if not files[i]
                ]
                for i, key in enumerate(keys)
            }
            self._report_missing(missing, len(frames) - len(complete), len(frames))
        return complete

    def _report_missing(self, missing: dict[str, list[str]], number: int, total: int) -> None:
        """Raise, or count and warn, where files of some frames are missing."""
        self.num_without_partner += number
        parts = [
            f'{len(paths)} {_KINDS[key]} do not exist: {examples(paths)}'
            for key, paths in missing.items()
            if paths
        ]
        message = (
            f'RGBDDataset: {number} of {total} frames lack their partner ({self._where()}): '
            f'{"; ".join(parts)}.'
        )
        suffixes = ', '.join(f'{_option(key)} ({self._suffix(key)!r})' for key in missing)
        cure = f'Check data_prefix, {suffixes} and the index (a single name has no suffix)'
        if number == total:
            raise FileNotFoundError(f'{message} {cure}.')
        if self.on_error == 'raise':
            raise FileNotFoundError(f"{message} {cure}, or set on_error='drop' to leave them out.")
        paths = [path for some in missing.values() for path in some]
        self._note('missing', paths, f'{message} They are left out.')

    def _parse_index(self) -> Iterator[Record]:
        local = self.backend_args is None
        index = existing(self.ann_file) if local else self.ann_file
        try:
            content = fileio.get(index, backend_args=self.backend_args)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f'RGBDDataset: index file {self.ann_file!r} does not exist '
                f'({_what_exists(self.ann_file) if local else error}). Check ann_file and '
                f'data_root.'
            ) from error
        for number, line in numbered_lines(content, self.ann_file):
            fields = index_fields(line)
            if not fields:
                continue
            if len(fields) > 2:
                raise ValueError(
                    f'{self.ann_file}:{number}: expected a frame name, or a colour and a depth '
                    f'file, found {len(fields)} fields: {line!r}. Separate names that hold '
                    f'blanks with a tab.'
                )
            if len(fields) == 1:
                yield self._files_of(fields[0])
            else:
                yield *fields, *self._files_of(os.path.splitext(fields[1])[0])[2:]

    @property
    def _keys(self) -> list[str]:
        """The prefixes that are given, in the order of the files of a record."""
        return [key for key in _KINDS if key in self.data_prefix]

    def _files_of(self, stem: str) -> Record:
        """Files that have one stem."""
        return tuple(stem + self._suffix(key) for key in self._keys)

    def _suffix(self, key: str) -> str:
        return str(getattr(self, _option(key)))

    def _backend(self, key: str) -> fileio.BaseStorageBackend:
        return fileio.get_file_backend(
            self.data_prefix[key], backend_args=self.backend_args, enable_singleton=True
        )

    def _list_files(self, key: str, links: list[str] | None = None) -> Iterator[str]:
        """All files below a folder, relative to it; see :func:`walk` for ``links``."""
        folder = self.data_prefix[key]
        backend = self._backend(key)
        if isinstance(backend, LocalBackend):
            # mmengine's listing does not follow links to folders.
            self._require_folder(key)
            return files_below(folder, again=links)
        try:
            names = backend.list_dir_or_file(folder, list_dir=False, recursive=True)
            # A packed folder says only when it is read that it does not exist.
            return iter(list(names) if isinstance(backend, PackedLmdbBackend) else names)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f'RGBDDataset: the folder {folder!r} (data_prefix[{key!r}]) does not exist '
                f'({error}). Check data_root and data_prefix.'
            ) from error
        except (AttributeError, NotImplementedError) as error:
            raise ValueError(
                f'RGBDDataset: {type(backend).__name__} cannot list the folder {folder!r} '
                f'(data_prefix[{key!r}]). Give an index file (ann_file).'
            ) from error

    def _require_folder(self, key: str) -> None:
        folder = self.data_prefix[key] or '.'
        if not os.path.isdir(folder):
            raise FileNotFoundError(
                f'RGBDDataset: the folder {folder!r} (data_prefix[{key!r}]) does not exist '
                f'({_what_exists(folder)}). Check data_root and data_prefix.'
            )

    def _can_check(self, key: str) -> bool:
        return key in self._listed or isinstance(
            self._backend(key), LocalBackend | PackedLmdbBackend
        )

    def _existing(self, key: str, names: set[str]) -> dict[str, str]:
        """Files by the names that mean them, at the price of one listing per folder."""
        there = self._listed.get(key)
        if there is None and isinstance(self._backend(key), PackedLmdbBackend):
            there = set(self._list_files(key))
        if there is None:
            self._require_folder(key)
            return find_named(self.data_prefix[key], names)
        others = match_names(names - there, there, self.data_prefix[key])
        return {name: name for name in names & there} | others

    # ---------------------------------------------------------------- giving frames

    def full_init(self) -> None:
        """Read the index and prepare the count of unreadable frames."""
        if self._fully_initialized:
            return
        super().full_init()
        self._reset_unreadable()

    def get_subset_(self, indices: int | Sequence[int]) -> None:
        """Reduce the data set to some of its frames, see :class:`BaseDataset`."""
        super().get_subset_(indices)
        self._reset_unreadable()

    def get_subset(self, indices: int | Sequence[int]) -> 'RGBDDataset':
        """A data set of some of the frames, see :class:`BaseDataset`."""
        subset = super().get_subset(indices)
        subset._reset_unreadable()
        return subset

    def _reset_unreadable(self) -> None:
        if self.on_error == 'drop':
            # In shared memory, so that what the workers find is counted in the main process.
            self._unreadable = torch.zeros(len(self), dtype=torch.bool).share_memory_()

    @property
    def num_unreadable(self) -> int:
        """Frames found unreadable so far, by this process or its workers, each counted once."""
        return int(self._unreadable.sum())

    @force_full_init  # type: ignore[untyped-decorator]
    def get_data_info(self, idx: int) -> dict:
        """Paths and depth settings of one frame.

        Args:
            idx: Index of the frame; negative ones count from the end.

        Returns:
            ``img_path``, ``depth_path``, ``frame`` (its name in messages and pictures),
            ``sample_idx``, ``depth_scale``, ``depth_invalid``, ``min_depth``, ``max_depth``,
            ``depth_kind``; and ``confidence_path``, ``min_confidence`` where there are maps.
        """
        idx = self._normalised(idx)
        if self.serialize_data:
            start = 0 if idx == 0 else int(self.data_address[idx - 1])
            end = int(self.data_address[idx])
            record = pickle.loads(memoryview(self.data_bytes[start:end]))
        else:
            record = self.data_list[idx]
        paths = {
            key: _join(self.data_prefix[key], name)
            for key, name in zip(self._keys, record, strict=True)
        }
        info = dict(
            **paths,
            frame=without_suffix(record[0], self.img_suffix) or os.path.splitext(record[0])[0],
            sample_idx=idx,
            depth_scale=self.depth_scale,
            depth_invalid=self.depth_invalid,
            min_depth=self.min_depth,
            max_depth=self.max_depth,
            depth_kind=self.depth_kind,
        )
        return info if len(paths) < 3 else info | dict(min_confidence=self.min_confidence)

    def _normalised(self, idx: int) -> int:
        length = len(self)
        if not -length <= idx < length:
            raise IndexError(f'RGBDDataset: index {int(idx)} is out of range for {length} frames.')
        return int(idx) % length

    def __getitem__(self, idx: int) -> dict:
        """The packed frame; with ``on_error='drop'`` the next readable one."""
        self.full_init()
        return self.prepare_data(idx)

    @force_full_init  # type: ignore[untyped-decorator]
    def prepare_data(self, idx: int) -> dict:
        """Run the pipeline on one frame, with the draws this sample is due.

        Args:
            idx: Index of the frame; an :class:`EpochIndex` in reproducible training.

        Returns:
            What the pipeline returns.

        Raises:
            FileNotFoundError: A file is missing.
            FrameError: The frame is unusable (see :class:`LoadRGBD`).
            RuntimeError: ``on_error='drop'`` and no readable frame was found.
        """
        first = self._normalised(idx)
        attempts = 1
        if self.on_error == 'drop':
            attempts = min(len(self), self.max_refetch + 1)
        for step in range(attempts):
            # The next frame, not a random one: a resumed run must meet the same. The draws stay
            # those of the index asked for, or the neighbour would come twice in identical form.
            current = (first + step) % len(self)
            try:
                with self._draws(idx, first):
                    info = self.get_data_info(current)
                    info['decode_later'] = self._crops_at_once()
                    data = self.pipeline(info)
                if data is None:
                    raise FrameError(
                        f"frame '{self.get_data_info(current)['frame']}': a transform of the "
                        f'pipeline returned None.'
                    )
                return data
            except (FrameError, FileNotFoundError) as error:
                if self.on_error == 'raise':
                    raise
                self._note_unreadable(current, error)
        raise RuntimeError(
            f'RGBDDataset: {attempts} frames in a row cannot be read, from '
            f"'{self.get_data_info(first)['frame']}' on ({self._where()}). See the warnings above; "
            f"on_error='raise' stops at the first."
        )

    def _crops_at_once(self) -> bool:
        """Whether loading is followed by the crop that decodes; a subclass may want the image."""
        first = [type(transform) for transform in self.pipeline.transforms[:2]]
        return first == [LoadRGBD, RGBDRandomResizedCrop]

    def _draws(self, idx: int, index: int) -> AbstractContextManager:
        if self.test_mode:
            return sample_rng(self.seed, 0, index)
        if isinstance(idx, EpochIndex):
            return sample_rng(self.seed, idx.seed, idx.epoch, idx.origin)
        return nullcontext()  # an ordinary sampler: mmengine's worker seeds rule

    def _note_unreadable(self, index: int, error: Exception) -> None:
        if self._unreadable[index]:
            return
        self._unreadable[index] = True
        print_log(
            f'RGBDDataset: frame {index} is dropped ({self.num_unreadable} so far): {error}',
            logger='current',
            level=logging.WARNING,
        )


def _option(key: str) -> str:
    """The option that holds the suffix of the files of a prefix."""
    return key.replace('_path', '_suffix')


def _join(folder: str, name: str) -> str:
    return posixpath.join(folder, name) if folder else name


def _describe(counts: Counter) -> str:
    parts = [f"{count} '{suffix}'" for suffix, count in counts.most_common(3)]
    return ', '.join(parts) or 'nothing'


def _what_exists(path: str) -> str:
    """Say how far a path exists and what is there instead."""
    parent = os.path.dirname(os.path.abspath(path))
    while not os.path.isdir(parent):
        parent = os.path.dirname(parent)
    return f'{parent!r} holds: {content_of(os.listdir(parent))}'
