"""Instance maps of frames, from COCO annotations or instance PNG files."""

import json
import os
from collections import defaultdict

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
        self._coco = self._read_annotations()

    def read(self, frame: str, img_path: str) -> np.ndarray | None:
        """Instances of a frame.

        Args:
            frame: Its name.
            img_path: Its colour file.

        Returns:
            (H, W) ids, 0 = none; None where the frame has no instances listed anywhere.

        Raises:
            FrameError: The instance map or the annotation is damaged.
        """
        prefix = self.source.frames.data_prefix['img_path']
        found = self._coco.get(same_form(os.path.relpath(img_path, prefix).replace(os.sep, '/')))
        if found is not None:
            path, image, annotations = found
            try:
                return draw_instances(image, annotations)
            except (KeyError, TypeError, ValueError) as error:
                raise FrameError(
                    f'{path}: damaged annotation of {frame} ({type(error).__name__}: {error}).'
                ) from error
        maps = self.source.instances
        if maps is not None and os.path.exists(path := maps.path(frame)):
            return decode_depth(bytes(fileio.get(path)), path)
        return None

    def _read_annotations(self) -> dict[str, tuple[str, dict, list[dict]]]:
        found: dict[str, tuple[str, dict, list[dict]]] = {}
        for path in self.source.annotations.values():
            by_image = defaultdict(list)
            try:
                with open(path, 'rb') as file:
                    content = json.load(file)
                for annotation in content['annotations']:
                    by_image[annotation['image_id']].append(annotation)
                for image in content['images']:
                    found[same_form(image['file_name'])] = path, image, by_image[image['id']]
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise SourceOptionsError(
                    f'{path} is no COCO file ({type(error).__name__}: {error}). Convert it again, '
                    f'or move it away.'
                ) from error
        return found


def draw_instances(image: dict, annotations: list[dict]) -> np.ndarray:
    """Instance map of a COCO image: ids from 1 in the order of the annotations.

    Where masks overlap, the smaller one is on top.

    Args:
        image: With ``id``, ``width`` and ``height``.
        annotations: Of this image, with ``segmentation`` (polygons or run lengths) and ``area``.

    Returns:
        (H, W) uint16.
    """
    from pycocotools.coco import COCO

    coco = COCO()
    coco.imgs = {image['id']: image}
    drawn = np.zeros((image['height'], image['width']), np.uint16)
    for number in sorted(range(len(annotations)), key=lambda i: -annotations[i]['area']):
        drawn[coco.annToMask(annotations[number]).astype(bool)] = number + 1
    return drawn
