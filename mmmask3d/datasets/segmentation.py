"""Semantic segmentation data sets that mmseg lacks: NYUv2, ScanNet, SUN RGB-D, generated rooms.

All store label 0 for "unlabelled" and 1..C for the classes, so ``reduce_zero_label`` is on by
default: 0 becomes the ignored 255 and class c becomes c - 1. mmseg's own ``NYUDataset`` is depth
estimation over scene classes and is something else.
"""

import os.path as osp
from collections.abc import Iterable, Sequence
from typing import Any

import mmcv
import numpy as np
from mmengine import fileio
from mmseg.datasets.basesegdataset import BaseSegDataset
from mmseg.datasets.transforms import LoadAnnotations

from mmmask3d.datasets import packed_lmdb as packed_lmdb  # registers the file backend
from mmmask3d.datasets.classes import (
    NYU13_CLASSES,
    NYU40_CLASSES,
    SCANNET20_CLASSES,
    SUNRGBD37_CLASSES,
)
from mmmask3d.datasets.frame_files import by_stem, files_below, find_named
from mmmask3d.datasets.image_header import declared_image
from mmmask3d.datasets.palette import distinct_palette
from mmmask3d.datasets.text_lists import numbered_lines
from mmmask3d.registry import DATASETS, TRANSFORMS

_IGNORE = 255


@TRANSFORMS.register_module()
class LoadSegLabels(LoadAnnotations):
    """mmseg's ``LoadAnnotations`` that refuses label maps which do not fit the classes.

    A label id beyond the last class is an index error deep inside the loss on a CPU, a
    device-side assertion on a GPU, and silently dropped by ``IoUMetric``. Here it is an error that
    names the file. Needs the ``num_classes`` key that the data sets of this module provide.
    Values are checked after ``reduce_zero_label`` and the class map: 0..C-1 or 255. Files of 16
    bits are refused before (mmseg would take their ids modulo 256), grey of fewer than 8 (which
    decoders spread over 0..255), and JPEG, which invents ids along every border.
    """

    def _load_seg_map(self, results: dict) -> None:
        path = results['seg_map_path']
        content = bytes(fileio.get(path, backend_args=self.backend_args))
        declared = declared_image(content)
        if declared and declared.format == 'JPEG':
            raise ValueError(
                f'{path}: a label map as JPEG, whose loss changes class ids at every border. Give '
                f'the original as PNG; a copy made of the JPEG has the wrong ids, too.'
            )
        if declared:  # the indices of a palette stay
            bits = 8 if declared.kind == 'palette' else declared.bits
        else:  # TIFF and others
            raw = mmcv.imfrombytes(content, flag='unchanged', backend=self.imdecode_backend)
            bits = 8 * raw.dtype.itemsize
        if bits != 8:
            raise ValueError(
                f'{path}: a label map of {bits} bits, expected 8: class ids 0..{_IGNORE}. '
                'Convert instance maps, ids of larger class lists (NYU 894, ScanNet) and grey of '
                'fewer bits first.'
            )
        super()._load_seg_map(results)
        labels = results['gt_seg_map']
        if labels.ndim != 2:
            raise ValueError(
                f'{path}: a label map must have one channel, found shape {labels.shape}. '
                'Colour-coded label pictures have to be converted to class ids first.'
            )
        num_classes = results['num_classes']
        present = np.flatnonzero(np.bincount(labels.ravel(), minlength=_IGNORE + 1))
        wrong = [int(v) for v in present if num_classes <= v != _IGNORE]
        if wrong:
            shift = 1 if results['reduce_zero_label'] else 0
            raise ValueError(
                f'{path}: label ids {[v + shift for v in wrong]} as stored in the file lie '
                f'outside the {num_classes} classes of this data set (expected '
                f'{"0 = unlabelled, 1" if shift else "0"}..{num_classes - 1 + shift}). Is this the '
                'label folder of another class set?'
            )


class _CheckedSegDataset(BaseSegDataset):
    """``BaseSegDataset`` that tells apart an empty split, a wrong folder and a missing file.

    Frame names come from ``ann_file`` (one name per line, without suffix, blank lines ignored),
    or from a scan of the colour folder. Existence is checked for local files only: on a remote
    backend (``backend_args``) it would cost one request per frame.
    """

    LABEL_FOLDER: str

    def __init__(
        self, data_prefix: dict | None = None, reduce_zero_label: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(
            data_prefix=data_prefix or dict(img_path='rgb', seg_map_path=self.LABEL_FOLDER),
            reduce_zero_label=reduce_zero_label,
            **kwargs,
        )

    def load_data_list(self) -> list[dict]:
        """Return one dict per frame; see :class:`BaseSegDataset` for the keys.

        Raises:
            FileNotFoundError: the split file, a colour file or a label file does not exist.
            ValueError: the split or the folder names no frame.
        """
        local = self.backend_args is None
        where = self.ann_file or self.data_prefix['img_path']
        if local and not osp.exists(where):
            raise FileNotFoundError(
                f'{type(self).__name__}: {where} does not exist (data_root={self.data_root!r}). '
                'Point data_root at the folder that holds the colour, label and split folders.'
            )
        data_list = self._frames()
        if not data_list:
            raise ValueError(
                f'{type(self).__name__}: {where} names no frame (img_suffix={self.img_suffix!r}).'
            )
        if local:
            self._check_files(data_list)
        return data_list

    def _frames(self) -> list[dict]:
        """As mmseg's, which reads UTF-8 only, does not follow links and wants one case."""
        folder, labels = (self.data_prefix.get(key) for key in ('img_path', 'seg_map_path'))
        if self.ann_file:
            content = fileio.get(self.ann_file, backend_args=self.backend_args)
            stems = [line for _, line in numbered_lines(content, self.ann_file)]
            images = {}
        else:
            images = by_stem(self._list(folder), self.img_suffix, folder)
            stems = sorted(images)
        common = dict(
            label_map=self.label_map,
            reduce_zero_label=self.reduce_zero_label,
            num_classes=len(self._metainfo['classes']),
        )
        frames = []
        for stem in stems:
            image = images.get(stem, stem + self.img_suffix)
            frame = dict(common, img_path=osp.join(folder, image), seg_fields=[])
            if labels is not None:
                frame['seg_map_path'] = osp.join(labels, stem + self.seg_map_suffix)
            frames.append(frame)
        return frames

    def _list(self, folder: str) -> Iterable[str]:
        if self.backend_args is None:
            return files_below(folder)
        return fileio.list_dir_or_file(
            folder, list_dir=False, recursive=True, backend_args=self.backend_args
        )

    def _check_files(self, data_list: Sequence[dict]) -> None:
        reads_labels = any(isinstance(t, LoadAnnotations) for t in self.pipeline.transforms)
        for key in ('img_path', 'seg_map_path') if reads_labels else ('img_path',):
            folder = self.data_prefix[key]
            frames = [frame for frame in data_list if key in frame]
            names = [osp.relpath(frame[key], folder).replace(osp.sep, '/') for frame in frames]
            files = find_named(folder, set(names)) if osp.isdir(folder) else {}
            missing = []
            for frame, name in zip(frames, names, strict=True):
                if name in files:
                    frame[key] = osp.join(folder, files[name])
                else:
                    missing.append(frame[key])
            if missing:
                what = 'colour' if key == 'img_path' else 'label'
                raise FileNotFoundError(
                    f'{type(self).__name__}: {len(missing)} of {len(data_list)} {what} files are '
                    f'missing, the first is {missing[0]}. Check data_prefix={self.data_prefix}, '
                    'the suffixes and the split file.'
                )


@DATASETS.register_module()
class NYUv2SegDataset(_CheckedSegDataset):
    """NYU Depth v2 with the 13- or the 40-class label maps.

    .. code-block:: none

        data_root
        ├── rgb/<frame>.jpg
        ├── label13/<frame>.png    uint8, 0 = unlabelled, 1..13
        ├── label40/<frame>.png    uint8, 0 = unlabelled, 1..40
        └── splits/<name>.txt      one frame name per line

    Scores over 13 and over 40 classes are not comparable; never put them in one column.

    Args:
        num_classes: 13 or 40; also chooses the label folder.
        **kwargs: Arguments of mmseg's ``BaseSegDataset``.
    """

    _CLASSES = {13: NYU13_CLASSES, 40: NYU40_CLASSES}

    def __init__(self, num_classes: int = 13, **kwargs: Any) -> None:
        if num_classes not in self._CLASSES:
            raise ValueError(f'NYUv2SegDataset: num_classes must be 13 or 40, got {num_classes!r}')
        self.LABEL_FOLDER = f'label{num_classes}'
        classes, palette = self._CLASSES[num_classes], distinct_palette(num_classes)
        super().__init__(metainfo=dict(classes=classes, palette=palette), **kwargs)


@DATASETS.register_module()
class RoomsSegDataset(_CheckedSegDataset):
    """Generated rooms (``mmmask3d convert rooms``) with semantic labels.

    ``rgb/<frame>.<suffix>``, ``semantic/<frame>.png`` (uint8, 0 = unlabelled, 1..13) and
    ``splits/{train,val}.txt`` below ``data_root``. The classes are those of NYUv2-13.
    """

    METAINFO = dict(classes=NYU13_CLASSES, palette=distinct_palette(len(NYU13_CLASSES)))
    LABEL_FOLDER = 'semantic'


@DATASETS.register_module()
class ScanNetSegDataset(_CheckedSegDataset):
    """ScanNet (``mmmask3d convert scannet``) with the 20 classes of its benchmark.

    ``rgb/<scene>/<frame>.jpg``, ``label20/<scene>/<frame>.png`` (uint8, 0 = unlabelled, 1..20) and
    ``splits/{train,val}.txt`` below ``data_root``.
    """

    METAINFO = dict(classes=SCANNET20_CLASSES, palette=distinct_palette(len(SCANNET20_CLASSES)))
    LABEL_FOLDER = 'label20'


@DATASETS.register_module()
class SUNRGBDSegDataset(_CheckedSegDataset):
    """SUN RGB-D with its 37 classes, as ``mmmask3d convert sunrgbd`` writes it.

    ``rgb/<frame>.jpg``, ``label37/<frame>.png`` (uint8, 0 = unlabelled, 1..37) and
    ``splits/{train,test}.txt`` below ``data_root``.
    """

    METAINFO = dict(classes=SUNRGBD37_CLASSES, palette=distinct_palette(len(SUNRGBD37_CLASSES)))
    LABEL_FOLDER = 'label37'
