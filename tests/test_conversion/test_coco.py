"""Annotations by value, decoded by pycocotools and loaded by its COCO class."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from mmmask3d.conversion.coco import annotate, coco_content


def instance_map():
    instance = np.zeros((40, 60), np.uint16)
    instance[5:15, 10:30] = 3
    instance[8:10, 12:14] = 0  # a hole
    instance[30:40, 50:60] = 400
    instance[0:5, 0:5] = 8  # 25 pixels: too small
    instance[20:30, 0:10] = 9  # without a category
    return instance


def test_masks_boxes_and_areas():
    instance = instance_map()
    found = annotate(instance, {3: 5, 400: 2, 8: 1, 0: 7}, crowds={400})
    assert [a['category_id'] for a in found] == [5, 2]
    assert [a['bbox'] for a in found] == [[10, 5, 20, 10], [50, 30, 10, 10]]
    assert [a['area'] for a in found] == [196, 100]
    assert [a['iscrowd'] for a in found] == [0, 1]
    for annotation, thing in zip(found, (3, 400), strict=True):
        np.testing.assert_array_equal(
            coco_mask.decode(annotation['segmentation']), instance == thing
        )
    assert [a['area'] for a in annotate(instance, {8: 1}, smallest=25)] == [25]
    assert annotate(instance, {8: 1}, smallest=26) == []


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 20), st.integers(1, 20))
def test_any_map_comes_back_from_its_masks(seed, height, width):
    rng = np.random.default_rng(seed)
    instance = rng.integers(0, 5, (height, width)).astype(np.uint16) * 1000
    ids = [int(i) for i in np.unique(instance) if i]
    found = annotate(instance, dict.fromkeys(ids, 1), smallest=1)
    back = np.zeros_like(instance)
    for annotation, thing in zip(found, ids, strict=True):
        mask = coco_mask.decode(annotation['segmentation']).astype(bool)
        rows, columns = np.nonzero(mask)
        x, y, w, h = annotation['bbox']
        assert (x, y) == (columns.min(), rows.min())
        assert (x + w, y + h) == (columns.max() + 1, rows.max() + 1)
        back[mask] = thing
    np.testing.assert_array_equal(back, instance)


def test_a_file_is_read_by_pycocotools(tmp_path, capsys):
    frames = [
        ('a/0.jpg', 60, 40, annotate(instance_map(), {3: 5})),
        ('a/1.jpg', 60, 40, []),
        ('b/0.jpg', 60, 40, annotate(instance_map(), {3: 5, 400: 2}, crowds=(400,))),
    ]
    path = tmp_path / 'c.json'
    path.write_text(json.dumps(coco_content(frames, {5: 'bed', 2: 'chair'}, 'test')))
    coco = COCO(str(path))
    capsys.readouterr()
    assert [c['name'] for c in coco.loadCats(coco.getCatIds())] == ['chair', 'bed']
    assert [i['file_name'] for i in coco.loadImgs(coco.getImgIds())] == [f[0] for f in frames]
    assert len(coco.getAnnIds(imgIds=[2])) == 0
    third = coco.loadAnns(coco.getAnnIds(imgIds=[3]))
    assert sorted(a['id'] for a in coco.loadAnns(coco.getAnnIds())) == [1, 2, 3]
    np.testing.assert_array_equal(coco.annToMask(third[0]), instance_map() == 3)
    assert len(coco.getAnnIds(imgIds=[3], iscrowd=True)) == 1


def test_signed_negative_ids_are_not_silently_counted():
    with pytest.raises(ValueError, match='negative'):
        annotate(np.array([[-1, 1]]), {1: 1})
