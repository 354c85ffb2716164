"""Paths, arrays and folders as frames: how depth is read, by value, without a network."""

import cv2
import numpy as np
import pytest

from mmmask3d.apis.inference_inputs import DepthReading, InputFrame, read_inputs
from mmmask3d.datasets import FrameError

IMG = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
STORED = np.array([[0, 1, 500, 1000, 4000, 65535]], np.uint16).repeat(4, 0)


def depth_of(raw, **settings):
    depth, valid = DepthReading(**settings)(raw)
    assert (depth.dtype, valid.dtype) == (np.float32, bool)
    assert not depth[~valid].any()
    return np.where(valid, depth, np.nan)[0]


def equal(found, expected):
    np.testing.assert_allclose(found, np.float32(expected), rtol=1e-6)


# ---------------------------------------------------------------- stored depth

NAN = np.nan


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16, np.int32, np.int64, np.float32, np.float64])
@pytest.mark.parametrize('kind', ['metric', 'relative'])
@pytest.mark.parametrize('scale', [None, 50])
def test_the_scale_by_type_and_kind(dtype, kind, scale):
    """Integers are millimetres where depth has a unit; nothing else is scaled unasked."""
    raw = np.array([[0, 1, 100, 200]], dtype)
    integers = np.dtype(dtype).kind in 'ui'
    divisor = scale or (1000 if integers and kind == 'metric' else 1)
    equal(
        depth_of(raw, depth_scale=scale, depth_kind=kind), [NAN, *np.array([1, 100, 200]) / divisor]
    )


def test_codes_are_compared_as_stored_and_limits_in_metres():
    equal(depth_of(STORED), [NAN, 0.001, 0.5, 1, 4, 65.535])
    equal(depth_of(STORED, depth_invalid=(65535, 1000)), [NAN, 0.001, 0.5, NAN, 4, NAN])
    equal(depth_of(STORED, min_depth=0.5, max_depth=4), [NAN, NAN, 0.5, 1, 4, NAN])
    equal(depth_of(STORED, depth_scale=500, min_depth=1.5), [NAN, NAN, NAN, 2, 8, 131.07])
    # 0 is a relative depth like any other, unless it is a code.
    relative = dict(depth_kind='relative', depth_scale=1000)
    equal(depth_of(STORED, **relative, depth_invalid=()), [0, 0.001, 0.5, 1, 4, 65.535])
    equal(depth_of(STORED, **relative), [NAN, 0.001, 0.5, 1, 4, 65.535])
    equal(depth_of(STORED, **relative, depth_invalid=(), max_depth=1), [0, 0.001, 0.5, 1, NAN, NAN])


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(depth_kind='absolute'), "'metric' or 'relative', got 'absolute'"),
        (dict(depth_scale=0), 'must be > 0, got 0'),
        (dict(depth_scale=-5.0), 'must be > 0, got -5.0'),
        (dict(depth_scale=np.inf), 'must be > 0, got inf'),
        (dict(depth_scale=True), 'must be > 0, got True'),
        (dict(depth_invalid=('0',)), 'depth_invalid holds stored values'),
        (dict(min_depth=None), 'got None and None'),
        (dict(min_depth=1, max_depth=1), 'min_depth < max_depth .metres., got 1 and 1'),
    ],
)
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(ValueError, match=message):
        DepthReading(**settings)


# ---------------------------------------------------------------- one frame


def load(depth, with_depth=True, **settings):
    return InputFrame('f', 'input 0', IMG, depth).load(DepthReading(**settings), with_depth)


def test_what_a_frame_holds():
    found = load(STORED, max_depth=10)
    np.testing.assert_array_equal(found['img'], IMG)
    equal(found['depth'][2], [0, 0.001, 0.5, 1, 4, 0])
    np.testing.assert_array_equal(found['valid'][2], [False, True, True, True, True, False])
    assert found['img_shape'] == found['ori_shape'] == (4, 6)
    assert (found['frame'], found['img_path'], found['depth_kind']) == ('f', 'input 0', 'metric')
    assert load(STORED, depth_kind='relative')['depth_kind'] == 'relative'


@pytest.mark.parametrize('depth', [None, STORED, 'no such file.png'])
def test_no_depth_is_no_reading(depth):
    found = load(depth, with_depth=False)
    assert not found['valid'].any()
    assert not found['depth'].any()
    assert found['depth'].shape == found['valid'].shape == (4, 6)


def test_depth_without_a_reading_is_refused():
    for settings in (
        dict(max_depth=0.0005),
        dict(min_depth=100.0),
        dict(depth_invalid=STORED[0].tolist()),
    ):
        with pytest.raises(FrameError, match='input 0: depth has no reading'):
            load(STORED, **settings)
    with pytest.raises(FrameError, match='no reading'):
        load(np.zeros((4, 6), np.uint16), depth_kind='relative')


def test_what_lies_in_memory_otherwise(tmp_path):
    """Views and another order of bytes are the same frame."""
    wide = np.repeat(STORED, 2, axis=1)[:, ::2]
    expected = load(STORED)
    for depth in (wide, np.asfortranarray(STORED), STORED.astype(np.int64)[::-1]):
        np.testing.assert_array_equal(load(depth)['depth'], expected['depth'])
    frame = InputFrame('f', 'input 0', np.asfortranarray(IMG)[::-1]).load(DepthReading())
    np.testing.assert_array_equal(frame['img'], IMG[::-1])
    assert frame['img'].flags.c_contiguous


@pytest.mark.parametrize(('scale', 'warned'), [(None, False), (1, True), (1e6, True)])
def test_units_that_are_doubtful(warnings_logged_by_mmengine, scale, warned):
    depth = np.full((4, 6), 2000, np.uint16)
    load(depth, depth_scale=scale)
    load(depth, depth_scale=scale, depth_kind='relative')
    assert len(warnings_logged_by_mmengine) == warned
    for line in warnings_logged_by_mmengine:
        assert 'input 0: depth unit' in line
        assert 'floats are metres' in line


# ---------------------------------------------------------------- what is given


def test_names_and_labels():
    paths = ['a/x.jpg', 'b/x.jpg', 'c/y.jpg']
    frames = read_inputs([paths[0], IMG, paths[1], (paths[2], STORED), dict(img=IMG)])
    assert [f.name for f in frames] == ['x', 'frame_0001', 'x_2', 'y', 'frame_0004']
    assert [f.label for f in frames] == [
        'input 0 (a/x.jpg)', 'input 1', 'input 2 (b/x.jpg)', 'input 3 (c/y.jpg)', 'input 4',
    ]  # fmt: skip
    assert [f.depth is None for f in frames] == [True, True, True, False, True]
    assert len({f.name for f in read_inputs(['x.jpg', 'x_2.jpg', 'a/x.jpg'])}) == 3


def test_a_folder_pairs_by_name_and_keeps_subfolders(tmp_path):
    for name in ('a/1', 'b/1'):
        for folder, array in (('rgb', IMG), ('depth', STORED)):
            path = tmp_path / folder / f'{name}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(path), array)
    frames = read_inputs(tmp_path)
    assert [f.name for f in frames] == ['a/1', 'b/1']
    for frame in frames:
        found = frame.load(DepthReading())
        np.testing.assert_array_equal(found['img'], IMG)
        equal(found['depth'][0], STORED[0] / 1000)
    assert [f.depth for f in read_inputs(tmp_path, with_depth=False)] == [None, None]


def test_a_folder_whose_suffixes_are_all_upper_case(tmp_path):
    for folder, array in (('rgb', IMG), ('depth', STORED)):
        (tmp_path / folder).mkdir()
        content = cv2.imencode('.png', array)[1].tobytes()
        (tmp_path / folder / '1.PNG').write_bytes(content)
    for with_depth in (True, False):
        (frame,) = read_inputs(tmp_path, with_depth=with_depth)
        np.testing.assert_array_equal(frame.load(DepthReading())['img'], IMG)


def test_a_folder_of_links_and_of_suffixes_in_any_case(tmp_path):
    for name in ('a/1', 'b/2'):
        for folder, array in (('rgb', IMG), ('depth', STORED)):
            path = tmp_path / f'store/{folder}/{name}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(path), array)
            if name == 'b/2':
                path.rename(path.with_suffix('.PNG'))
    for folder in ('rgb', 'depth'):
        (tmp_path / folder).mkdir()
        for scene in 'ab':
            (tmp_path / folder / scene).symlink_to(tmp_path / 'store' / folder / scene)
        (tmp_path / f'store/{folder}/a/back').symlink_to(tmp_path / folder)
        (tmp_path / f'store/{folder}/a/._1.png').write_bytes(b'of a Mac')
    for with_depth, names in ((True, ['a/1', 'b/2']), (False, ['1', '2'])):
        frames = read_inputs(tmp_path, with_depth=with_depth)
        assert [frame.name for frame in frames] == names
        for frame in frames:
            np.testing.assert_array_equal(frame.load(DepthReading())['img'], IMG)
