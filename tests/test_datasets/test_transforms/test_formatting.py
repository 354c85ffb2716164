"""What the models are given."""

import numpy as np
import pytest
import torch
from mmengine.dataset import default_collate

from mmmask3d.datasets import DepthAwareMasking, PackRGBDInputs


def test_values_shapes_and_types(planted_frame):
    frame = planted_frame(32, 48, img_path='a.png', depth_kind='metric', sample_idx=3, other=1)
    frame = DepthAwareMasking(patch_size=16, rgb_ratio=0.5, depth_ratio=0.5)(frame)
    packed = PackRGBDInputs()(frame)
    inputs, sample = packed['inputs'], packed['data_samples']
    expected = dict(
        img=((3, 32, 48), torch.uint8),
        depth=((1, 32, 48), torch.float32),
        valid=((1, 32, 48), torch.bool),
        rgb_mask=((6,), torch.bool),
        depth_mask=((6,), torch.bool),
        view=((4,), torch.float32),
    )
    assert {key: (tuple(v.shape), v.dtype) for key, v in inputs.items()} == expected
    np.testing.assert_array_equal(inputs['img'].permute(1, 2, 0), frame['img'])
    np.testing.assert_array_equal(inputs['depth'][0], frame['depth'])
    np.testing.assert_array_equal(inputs['valid'][0], frame['valid'])
    for key in ('rgb_mask', 'depth_mask'):
        np.testing.assert_array_equal(inputs[key], frame[key])
    assert sample.metainfo == dict(
        img_path='a.png',
        frame='planted',
        depth_kind='metric',
        ori_shape=(32, 48),
        img_shape=(32, 48),
        grid=(2, 3),
        sample_idx=3,
    )


def test_masks_are_left_out_where_none_were_drawn(planted_frame):
    assert set(PackRGBDInputs()(planted_frame(8, 8))['inputs']) == {
        'img', 'depth', 'valid', 'view'
    }  # fmt: skip


def test_holes_are_zero_whatever_they_held(planted_frame):
    frame = planted_frame(8, 8)
    clean = frame['depth'].copy()
    frame['depth'][~frame['valid']] = np.nan
    np.testing.assert_array_equal(PackRGBDInputs()(frame)['inputs']['depth'][0], clean)


def test_views_are_packed_as_copies(planted_frame):
    frame = planted_frame(8, 10)
    for key in ('img', 'depth', 'valid'):
        frame[key] = frame[key][2:6, ::-1]  # views, as crops and mmcv's flips leave behind
    inputs = PackRGBDInputs()(frame)['inputs']
    np.testing.assert_array_equal(inputs['img'].permute(1, 2, 0), frame['img'])
    np.testing.assert_array_equal(inputs['depth'][0], frame['depth'])
    np.testing.assert_array_equal(inputs['valid'][0], frame['valid'])
    assert all(value.is_contiguous() for value in inputs.values())


def test_frames_with_different_holes_collate(planted_frame):
    masking = DepthAwareMasking(patch_size=8, depth_ratio=0.7)
    empty = planted_frame(32, 32)
    empty['valid'][:] = False
    batch = default_collate(
        [PackRGBDInputs()(masking(frame)) for frame in (planted_frame(32, 32), empty)]
    )
    assert batch['inputs']['depth'].shape == (2, 1, 32, 32)
    assert batch['inputs']['depth_mask'].sum(dim=1).tolist() == [11, 11]
    assert len(batch['data_samples']) == 2


@pytest.mark.parametrize('key', ['img', 'depth', 'valid'])
def test_sizes_that_differ_name_the_frame(planted_frame, key):
    frame = planted_frame(8, 8)
    frame[key] = frame[key][:4]
    with pytest.raises(ValueError, match=r"'planted': .*\(4, 8\).*RGBD\* transforms"):
        PackRGBDInputs()(frame)


def test_normalised_colour_is_refused(planted_frame):
    frame = planted_frame(8, 8)
    frame['img'] = frame['img'].astype(np.float32)
    with pytest.raises(ValueError, match=r"'planted': expected img as uint8 .*float32"):
        PackRGBDInputs()(frame)


def test_meta_keys_can_be_chosen(planted_frame):
    frame = planted_frame(8, 8, other=1)
    pack = PackRGBDInputs(meta_keys=['other', 'frame', 'absent'])
    assert pack(frame)['data_samples'].metainfo == dict(other=1, frame='planted')
    assert 'other' in repr(pack)
