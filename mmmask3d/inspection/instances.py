"""Instance maps of frames, from COCO annotations or instance PNG files."""

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from mmengine import fileio

from mmmask3d.datasets.depth_io import FrameError, decode_depth
from mmmask3d.datasets.frame_files import same_form
from mmmask3d.inspection.sources import Source, SourceOptionsError


class InstanceReader:
    """Reads the instances of any frame of a set.

    Args:
        source: The set. What its COCO files say of a frame is used, because detectors learn that;
            frames that they do not list are read from the folder of instance maps.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self._coco: dict[str, tuple[str, Any, dict]] = {}
        for path in source.annotations.values():
            from pycocotools.coco import COCO  # an optional package

            coco = COCO()
            try:
                coco.dataset = json.loads(Path(path).read_bytes())
                with open(os.devnull, 'w') as nothing, contextlib.redirect_stdout(nothing):
                    coco.createIndex()
                for image in coco.dataset['images']:
                    self._coco[same_form(image['file_name'])] = path, coco, image
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise SourceOptionsError(
                    f'{path} is no COCO file ({type(error).__name__}: {error}). Convert it again, '
                    f'or move it away.'
                ) from error

    def read(self, frame: str, img_path: str) -> np.ndarray | None:
        """Instances of a frame.

        Args:
            frame: Its name.
            img_path: Its colour file.

        Returns:
            (H, W) ids, 0 = none; those of COCO files are uint16 and count from 1 in the order of
            the annotations, smaller masks on top. None where the frame is listed nowhere.

        Raises:
            FrameError: The instance map or the annotation is damaged.
        """
        prefix = self.source.frames.data_prefix['img_path']
        name = same_form(os.path.relpath(img_path, prefix).replace(os.sep, '/'))
        maps = self.source.instances
        if name in self._coco:
            path, coco, image = self._coco[name]
            try:
                drawn = np.zeros((image['height'], image['width']), np.uint16)
                annotations = enumerate(coco.imgToAnns[image['id']], 1)
                for number, one in sorted(annotations, key=lambda pair: -pair[1]['area']):
                    drawn[coco.annToMask(one) > 0] = number
                return drawn
            except (KeyError, TypeError, ValueError) as error:
                raise FrameError(
                    f'{path}: damaged annotation of {frame} ({type(error).__name__}: {error}).'
                ) from error
        if maps is not None and os.path.exists(path := maps.path(frame)):
            return decode_depth(bytes(fileio.get(path)), path)
        return None
