"""Depth as a target of mmseg's pipelines: values, holes, and staying together with colour."""

import cv2
import numpy as np
import pytest
from mmseg.datasets.transforms import PackSegInputs, RandomCrop, RandomFlip

from mmmask3d.datasets import FrameError
from mmmask3d.datasets.transforms import LoadDepthMap


@pytest.fixture
def stored(tmp_path):
    """Path and stored values of a uint16 map with holes and a reading beyond 10 m."""
    raw = np.arange(1, 12 * 16 + 1, dtype=np.uint16).reshape(12, 16) * 50
    raw[2:4, 3:7] = 0
    raw[0, 0] = 60000
    path = tmp_path / 'depth.png'
    assert cv2.imwrite(str(path), raw)
    return path, raw


def frame(path, **changes):
    return dict(
        frame='a', depth_path=str(path), depth_scale=1000.0, depth_invalid=(0,), min_depth=0.0,
        max_depth=10.0, depth_kind='metric', ori_shape=(12, 16),
    ) | changes  # fmt: skip


def test_values_are_metres_and_holes_are_zero(stored):
    path, raw = stored
    found = LoadDepthMap()(frame(path))
    expected = np.where(raw <= 10000, raw / 1000, 0)
    np.testing.assert_allclose(found['gt_depth_map'], expected, rtol=1e-6)
    assert found['gt_depth_map'].dtype == np.float32
    assert found['seg_fields'] == ['gt_depth_map']


def test_mmseg_transforms_move_it_with_the_image(stored):
    path, raw = stored
    results = frame(path)
    y, x = np.mgrid[0:12, 0:16]
    results['img'] = np.stack([x, y, x], axis=-1).astype(np.uint8)
    results['img_shape'] = (12, 16)
    results = LoadDepthMap()(results)
    np.random.seed(3)
    for transform in (RandomCrop(crop_size=(8, 10)), RandomFlip(prob=1.0)):
        results = transform(results)
    packed = PackSegInputs()(results)
    image, depth = packed['inputs'].numpy(), packed['data_samples'].gt_depth_map.data.numpy()[0]
    assert depth.shape == (8, 10)
    origin = raw[image[1], image[0]]
    np.testing.assert_allclose(depth, np.where(origin <= 10000, origin / 1000, 0), rtol=1e-6)


@pytest.mark.parametrize(
    ('changes', 'error', 'message'),
    [
        (dict(depth_kind='relative'), FrameError, 'relative depth'),
        (dict(ori_shape=(12, 17)), FrameError, r'12x16 for an image of 12x17'),
        (dict(depth_path='/no/1.png'), FileNotFoundError, r'/no/1\.png does not exist'),
    ],
)
def test_unusable_frames_are_named(stored, changes, error, message):
    with pytest.raises(error, match=message):
        LoadDepthMap()(frame(stored[0], **changes))
