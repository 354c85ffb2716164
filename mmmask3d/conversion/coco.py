"""COCO annotations from instance maps."""

from collections.abc import Collection, Iterable, Mapping

import numpy as np
from pycocotools import mask as coco_mask

SMALLEST_INSTANCE = 30  # pixels; smaller parts are left out


def annotate(
    instance: np.ndarray,
    categories: Mapping[int, int],
    smallest: int = SMALLEST_INSTANCE,
    crowds: Collection[int] = (),
) -> list[dict]:
    """Annotations, without ids, of the instances in one frame.

    Args:
        instance: (H, W) ids of instances, unsigned; 0 = none.
        categories: Category of each id; others get no annotation.
        smallest: Instances of fewer visible pixels are left out.
        crowds: Ids that are a group of things.

    Returns:
        ``category_id``, ``bbox`` (x, y, width, height in pixels), ``area``, ``segmentation``
        (compressed run lengths) and ``iscrowd`` (1 for crowds), by rising instance id.
    """
    found = []
    pixels = np.bincount(instance.ravel())
    for thing in np.flatnonzero(pixels >= smallest):
        if thing == 0 or int(thing) not in categories:
            continue
        mask = instance == thing
        runs = coco_mask.encode(np.asfortranarray(mask.view(np.uint8)))
        found.append(
            {
                'category_id': int(categories[int(thing)]),
                'bbox': [int(v) for v in coco_mask.toBbox(runs)],
                'area': int(pixels[thing]),
                'segmentation': {'size': runs['size'], 'counts': runs['counts'].decode('ascii')},
                'iscrowd': int(int(thing) in crowds),
            }
        )
    return found


def coco_content(
    frames: Iterable[tuple[str, int, int, list[dict]]],
    categories: Mapping[int, str],
    description: str,
) -> dict:
    """Content of a COCO file.

    Args:
        frames: File name, width, height and annotations (see :func:`annotate`) of each frame.
        categories: Names by id.
        description: Of the data set.
    """
    images: list[dict] = []
    annotations: list[dict] = []
    for image_id, (file_name, width, height, found) in enumerate(frames, 1):
        images.append({'id': image_id, 'file_name': file_name, 'width': width, 'height': height})
        for annotation in found:
            annotations.append({'id': len(annotations) + 1, 'image_id': image_id, **annotation})
    return {
        'info': {'description': description},
        'licenses': [],
        'images': images,
        'annotations': annotations,
        'categories': [
            {'id': i, 'name': n, 'supercategory': 'none'} for i, n in sorted(categories.items())
        ],
    }
