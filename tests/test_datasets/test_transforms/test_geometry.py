"""Colour, depth and validity stay together, and nothing is ever blended with a hole."""

import copy

import cv2
import numpy as np
import pytest
from mmcv.transforms import Compose

from mmmask3d.datasets import RGBDRandomFlip, RGBDRandomResizedCrop, RGBDResize


def run(transform, frame, seed=0):
    np.random.seed(seed)
    return transform(copy.deepcopy(frame))


def pixels_agree(out, origin):
    """Colour, depth and validity of each pixel name one source pixel (no interpolation)."""
    y, x = out['img'][..., 1], out['img'][..., 0]
    row, column = origin(out['depth'])
    valid = out['valid']
    return (row == y)[valid].all() and (column == x)[valid].all() and not out['depth'][~valid].any()


@pytest.mark.parametrize('scale', [(53, 31), (160, 96), (200, 7)])
def test_resized_depth_lies_where_resized_colour_lies(planted_frame, origin, scale):
    """Against the continuous position that bilinear colour encodes: at most half a pixel off."""
    out = RGBDResize(scale=scale)(planted_frame(120, 200))
    assert out['img'].shape[:2] == out['depth'].shape == out['valid'].shape == scale[::-1]
    assert out['img_shape'] == scale[::-1]
    row, column = origin(out['depth'])
    for channel, picked in ((0, column), (1, row)):
        off = (picked - out['img'][..., channel].astype(int))[out['valid']]
        assert np.abs(off).max() <= 1  # half a pixel, and half for rounding colour to uint8
        assert abs(off.mean()) < 0.3  # the plain nearest mode is off by up to half a step


def test_downscaling_by_three_is_exact(planted_frame, origin):
    frame = planted_frame(60, 90)
    out = RGBDResize(scale=(30, 20))(copy.deepcopy(frame))
    assert pixels_agree(out, origin)
    np.testing.assert_array_equal(out['valid'], frame['valid'][1::3, 1::3])


def test_resize_options(planted_frame):
    assert RGBDResize(scale=24)(planted_frame(40, 60))['depth'].shape == (24, 24)
    assert RGBDResize(scale_factor=0.5)(planted_frame(40, 60))['depth'].shape == (20, 30)
    kept = RGBDResize(scale=(30, 30), keep_ratio=True)(planted_frame(40, 60))
    assert kept['depth'].shape == kept['valid'].shape == kept['img'].shape[:2] == (20, 30)


@pytest.mark.parametrize('interpolation', ['bilinear', 'area', 'bicubic'])
@pytest.mark.parametrize('seed', range(4))
def test_random_crop_moves_depth_with_colour(planted_frame, origin, seed, interpolation):
    crop = RGBDRandomResizedCrop(scale=(96, 64), interpolation=interpolation)
    frame = planted_frame(120, 200)
    out = run(crop, frame, seed)
    np.random.seed(seed)
    top, left, height, width = crop.rand_crop_params(frame['img'])
    row, column = origin(out['depth'])
    valid = out['valid']
    y, x = np.mgrid[0:64, 0:96] + 0.5
    # Where the box says it is, and where colour says it is (borders blend with nothing there).
    np.testing.assert_array_less(np.abs(top + y * height / 64 - 0.5 - row)[valid], 0.501)
    np.testing.assert_array_less(np.abs(left + x * width / 96 - 0.5 - column)[valid], 0.501)
    inner = valid[4:-4, 4:-4]
    for channel, picked in ((0, column), (1, row)):
        off = (picked - out['img'][..., channel].astype(int))[4:-4, 4:-4][inner]
        assert np.abs(off).max() <= 1
        assert abs(off.mean()) < 0.3


@pytest.mark.parametrize('direction', ['horizontal', 'vertical', 'diagonal'])
def test_flip_is_exact(planted_frame, origin, direction):
    frame = planted_frame(30, 50)
    out = run(RGBDRandomFlip(prob=1.0, direction=direction), frame)
    axes = {'horizontal': (1,), 'vertical': (0,), 'diagonal': (0, 1)}[direction]
    for key in ('img', 'depth', 'valid'):
        np.testing.assert_array_equal(out[key], np.flip(frame[key], axes))
        assert out[key].flags.c_contiguous
    assert out['valid'].dtype == bool
    assert pixels_agree(out, origin)
    assert (out['flip'], out['flip_direction']) == (True, direction)


PIPELINES = {
    'resize up': [dict(type='RGBDResize', scale=(131, 97))],
    'resize down': [dict(type='RGBDResize', scale=(23, 17))],
    'crop': [dict(type='RGBDRandomResizedCrop', scale=(64, 48))],
    'flip': [dict(type='RGBDRandomFlip', prob=1.0)],
    'training': [
        dict(type='RGBDResize', scale=(90, 70)),
        dict(type='RGBDRandomResizedCrop', scale=(64, 48), interpolation='bicubic'),
        dict(type='RGBDRandomFlip', prob=0.5),
        dict(type='mmpretrain.ColorJitter', brightness=0.4, contrast=0.4),
        dict(type='DepthAwareMasking', patch_size=16),
    ],
}


@pytest.mark.parametrize('pipeline', PIPELINES.values(), ids=PIPELINES)
@pytest.mark.parametrize('garbage', [1e6, np.nan, np.inf])
def test_what_holes_hold_changes_nothing(planted_frame, pipeline, garbage):
    pipeline = Compose([dict(t, type=scoped(t['type'])) for t in pipeline])
    packed = Compose([dict(type='mmmask3d.PackRGBDInputs')])
    clean = planted_frame(60, 80)
    dirty = copy.deepcopy(clean)
    dirty['depth'][~dirty['valid']] = garbage
    results = [packed(run(pipeline, frame, seed=3))['inputs'] for frame in (clean, dirty)]
    assert results[0].keys() == results[1].keys()
    for key, value in results[0].items():
        np.testing.assert_array_equal(value, results[1][key])
    # Every reading is one of the frame, none is a mixture.
    depth, valid = results[1]['depth'].numpy(), results[1]['valid'].numpy()
    assert valid.any()
    assert np.isin(depth[valid], clean['depth'][clean['valid']]).all()
    assert not depth[~valid].any()


def scoped(name):
    return name if '.' in name else f'mmmask3d.{name}'


def test_a_marker_survives_the_whole_pipeline():
    """A bright square at 3 m on a dark wall at 6 m: both maps must show it in the same place."""
    img = np.zeros((120, 160, 3), np.uint8)
    depth = np.full((120, 160), 6, np.float32)
    img[40:80, 60:110] = 255
    depth[40:80, 60:110] = 3
    frame = dict(img=img, depth=depth, valid=np.ones_like(depth, bool), frame='marker')
    pipeline = Compose(
        [
            dict(type='mmmask3d.RGBDRandomResizedCrop', scale=(96, 64)),
            dict(type='mmmask3d.RGBDRandomFlip', prob=0.5),
            dict(type='mmmask3d.RGBDResize', scale=(128, 96)),
        ]
    )
    for seed in range(20):
        out = run(pipeline, frame, seed)
        bright, near = out['img'][..., 0] > 127, out['depth'] == 3
        union = np.count_nonzero(bright | near)
        edge = cv2.dilate(near.astype(np.uint8), np.ones((5, 5))) - cv2.erode(
            near.astype(np.uint8), np.ones((5, 5))
        )
        assert union > 100
        assert not (bright ^ near)[edge == 0].any()
        assert np.count_nonzero(bright & near) > 0.9 * union


@pytest.mark.parametrize('size', [0, -3, (4, 0), (4,), (4, 5, 6), 4.5, (4.0, 5)])
@pytest.mark.parametrize('transform', [RGBDRandomResizedCrop, RGBDResize])
def test_sizes_are_checked(transform, size):
    with pytest.raises(ValueError, match=r'positive int or \(width, height\)'):
        transform(size)
