"""Both files of a frame into colour, depth in metres and validity; what is refused or warned of."""

import pickle

import cv2
import numpy as np
import pytest

from mmmask3d.datasets import FrameError, LoadRGBD, RGBDDataset

METRES = np.linspace(0.5, 8.0, 12 * 16, dtype=np.float32).reshape(12, 16)


def info(paths, **settings):
    defaults = dict(
        depth_scale=1000.0,
        depth_invalid=(0,),
        min_depth=0.0,
        max_depth=None,
        depth_kind='metric',
        frame='scene/7',
    )
    return dict(defaults, img_path=str(paths[0]), depth_path=str(paths[1]), **settings)


@pytest.mark.parametrize(
    ('stored', 'suffix', 'scale', 'tolerance'),
    [
        ((METRES * 1000).round().astype(np.uint16), '.png', 1000.0, 0.0006),
        ((METRES * 5000).round().astype(np.uint16), '.png', 5000.0, 0.0002),
        ((METRES * 25).round().astype(np.uint8), '.png', 25.0, 0.021),
        (METRES, '.npy', 1.0, 0),
        (METRES.astype(np.float64) * 100, '.npy', 100.0, 1e-6),
        ((METRES * 1000).round().astype(np.int32), '.npy', 1000.0, 0.0006),
    ],
)
def test_every_storage_gives_the_same_metres(
    tmp_path, write_frame, warnings_logged, stored, suffix, scale, tolerance
):
    img = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    stored = stored.copy()
    stored[3, 4:9] = 0
    paths = write_frame(tmp_path, '7', img, stored, suffix)
    out = LoadRGBD()(info(paths, depth_scale=scale))
    np.testing.assert_array_equal(out['img'], img)
    assert (out['depth'].dtype, out['valid'].dtype) == (np.float32, bool)
    assert out['img_shape'] == out['ori_shape'] == (12, 16)
    hole = np.zeros((12, 16), bool)
    hole[3, 4:9] = True
    np.testing.assert_array_equal(out['valid'], ~hole)
    assert not out['depth'][hole].any()
    np.testing.assert_allclose(out['depth'][~hole], METRES[~hole], rtol=0, atol=tolerance)
    assert warnings_logged == []


def test_settings_of_the_data_set_are_applied(tmp_path, write_frame):
    stored = np.full((12, 16), 2000, np.uint16)
    stored[0, :5] = 65535, 100, 9000, 8000, 0
    paths = write_frame(tmp_path, '7', depth=stored)
    limits = dict(depth_invalid=(65535,), min_depth=0.2, max_depth=8.0)
    valid = LoadRGBD()(info(paths, **limits))['valid']
    np.testing.assert_array_equal(valid[0, :6], [False, False, False, True, False, True])


def test_relative_depth_is_scaled_and_never_warned_of(tmp_path, write_frame, warnings_logged):
    stored = np.arange(12 * 16, dtype=np.uint8).reshape(12, 16)
    out = LoadRGBD()(
        info(
            write_frame(tmp_path, '7', depth=stored),
            depth_scale=25500.0,  # whatever the unit, it is none
            depth_invalid=(),
            depth_kind='relative',
        )
    )
    assert out['valid'].all()
    np.testing.assert_allclose(out['depth'], stored / 25500, rtol=1e-6)
    assert warnings_logged == []


# ---------------------------------------------------------------- errors


def test_missing_file(tmp_path, write_frame):
    paths = write_frame(tmp_path, '7')
    paths[1].unlink()
    with pytest.raises(FileNotFoundError, match=r"'scene/7': .*depth/7\.png does not .*on_error"):
        LoadRGBD()(info(paths))


def test_a_folder_in_place_of_a_file(tmp_path, write_frame):
    paths = write_frame(tmp_path, '7')
    paths[1].unlink()
    paths[1].mkdir()
    with pytest.raises(FrameError, match=r"'scene/7': .*depth/7\.png cannot be read"):
        LoadRGBD()(info(paths))


def test_sizes_that_differ(tmp_path, write_frame):
    paths = write_frame(tmp_path, '7', depth=np.ones((16, 12), np.uint16))
    with pytest.raises(FrameError, match=r"(?s)'scene/7': .*12x16.*16x12.*Register depth"):
        LoadRGBD()(info(paths))


@pytest.mark.parametrize(
    ('stored', 'settings', 'message'),
    [
        (np.zeros((12, 16), np.uint16), {}, 'from 0 to 0, '),
        (np.full((12, 16), 65535, np.uint16), dict(depth_invalid=(0, 65535)), '65535 to 65535'),
        # Millimetres read as metres, with a limit: not one reading is left to warn of.
        (
            (METRES * 1000).astype(np.uint16),
            dict(depth_scale=1.0, max_depth=10.0),
            'from 500 to 8000, with depth_scale=1 that is 500 to 8000.*beyond max_depth=10',
        ),
        (
            METRES.astype(np.uint16) + 1,
            dict(min_depth=0.1),
            r'from 1 to 9, with depth_scale=1000 that is 0\.001 to 0\.009.*below min_depth=0\.1',
        ),
    ],
)
def test_no_reading_at_all(tmp_path, write_frame, stored, settings, message):
    paths = write_frame(tmp_path, '7', depth=stored)
    with pytest.raises(FrameError, match=rf"'scene/7': .*no depth reading.*{message}.*on_error"):
        LoadRGBD()(info(paths, **settings))


@pytest.mark.parametrize('kind', ['metric', 'relative'])
@pytest.mark.parametrize('invalid', [(0,), (0, 7), (7, 0)])
def test_no_reading_where_decoding_is_deferred(tmp_path, write_frame, kind, invalid):
    """The one look at the largest value must not take "no reading" for one."""
    settings = dict(depth_invalid=invalid, depth_kind=kind, decode_later=True)
    stored = np.zeros((12, 16), np.uint16)
    stored[3] = max(invalid)
    paths = write_frame(tmp_path, '7', depth=stored)
    with pytest.raises(FrameError, match=r"'scene/7': .*no depth reading"):
        LoadRGBD()(info(paths, **settings))
    stored[5, 5] = 900
    paths = write_frame(tmp_path, '7', depth=stored)
    valid = LoadRGBD()(info(paths, **settings))['valid']  # too few readings to put it off
    np.testing.assert_array_equal(np.argwhere(valid), [[5, 5]])


def test_a_crop_of_a_relative_frame_without_readings_raises(tmp_path, write_frame):
    write_frame(tmp_path, '7', depth=np.zeros((12, 16), np.uint16))
    crop = dict(type='mmmask3d.RGBDRandomResizedCrop', scale=(8, 6))
    data = RGBDDataset(
        data_root=str(tmp_path),
        img_suffix='.png',
        depth_kind='relative',
        depth_scale=65535,
        pipeline=[dict(type='mmmask3d.LoadRGBD'), crop],
    )
    with pytest.raises(
        FrameError, match=r"'7': .*no depth reading: all stored values are from 0 to"
    ):
        data[0]


@pytest.mark.parametrize(
    ('limits', 'stored'),
    [
        (dict(max_depth=0.5), 501),  # beyond
        (dict(min_depth=0.5), 499),  # below
        (dict(max_depth=0.5, min_depth=0.4), 399),
    ],
)
def test_limits_leave_no_reading(tmp_path, write_frame, limits, stored):
    paths = write_frame(tmp_path, '7', depth=np.full((12, 16), stored, np.uint16))
    with pytest.raises(FrameError, match='no depth reading'):
        LoadRGBD()(info(paths, **limits))
    reading = 500 if 'max_depth' in limits else 501
    paths = write_frame(tmp_path, '7', depth=np.full((12, 16), reading, np.uint16))
    assert LoadRGBD()(info(paths, **limits))['valid'].all()


@pytest.mark.parametrize('later', [True, False])
@pytest.mark.parametrize(('stored', 'warned'), [(49, True), (50, False)])
def test_the_unit_is_looked_at_where_decoding_is_deferred(
    tmp_path, write_frame, warnings_logged, stored, warned, later
):
    """At 1000 units per metre, less than 5 cm for a whole frame is doubtful."""
    paths = write_frame(tmp_path, '7', depth=np.full((12, 16), stored, np.uint16))
    LoadRGBD()(info(paths, decode_later=later))
    assert bool(warnings_logged) == warned


def test_nothing_but_nan(tmp_path, write_frame):
    stored = np.full((12, 16), np.nan, np.float32)
    stored[0, 0] = np.inf
    paths = write_frame(tmp_path, '7', depth=stored, suffix='.npy')
    with pytest.raises(FrameError, match='no depth reading: all stored values are NaN or infinite'):
        LoadRGBD()(info(paths))


# ---------------------------------------------------------------- the unit


def test_metres_read_as_millimetres_are_warned_of_once(tmp_path, write_frame, warnings_logged):
    paths = write_frame(tmp_path, '7', depth=METRES, suffix='.npy')
    load = LoadRGBD()
    for _ in range(3):
        out = load(info(paths))
    np.testing.assert_allclose(out['depth'], METRES / 1000, rtol=1e-6)
    (line,) = warnings_logged
    for part in ("'scene/7'", '7.npy', 'largest depth 0.008 m', 'depth_scale=1000', '1 for metres'):
        assert part in line


def test_millimetres_read_as_metres_are_warned_of(tmp_path, write_frame, warnings_logged):
    paths = write_frame(tmp_path, '7', depth=(METRES * 1000).astype(np.uint16))
    LoadRGBD()(info(paths, depth_scale=1.0))
    (line,) = warnings_logged
    assert 'beyond 100 m' in line
    assert '1000 for millimetres' in line


def test_a_few_far_readings_are_no_wrong_unit(tmp_path, write_frame, warnings_logged):
    stored = METRES.copy()
    stored.ravel()[:95] = 300.0  # a street with a view: just below half
    paths = write_frame(tmp_path, '7', depth=stored, suffix='.npy')
    LoadRGBD()(info(paths, depth_scale=1.0))
    assert warnings_logged == []


@pytest.mark.parametrize('code', [1e10, 65504.0])
def test_codes_of_renderers_are_warned_of(tmp_path, write_frame, warnings_logged, code):
    stored = METRES.copy()
    stored[3, 5] = code
    paths = write_frame(tmp_path, '7', depth=stored, suffix='.npy')
    LoadRGBD()(info(paths, depth_scale=1.0))
    (line,) = warnings_logged
    assert f'the largest depth is {code:g} m' in line
    assert 'Set depth_invalid or max_depth' in line
    LoadRGBD()(info(paths, depth_scale=1.0, depth_invalid=(code,)))
    assert len(warnings_logged) == 1


def test_a_whole_data_set_in_the_wrong_unit_does_not_flood_the_log(
    tmp_path, write_frame, warnings_logged
):
    paths = write_frame(tmp_path, '7', depth=METRES, suffix='.npy')
    load = LoadRGBD()
    for i in range(20):
        load(info(paths) | dict(frame=f'scene/{i}'))
    (line,) = warnings_logged
    assert 'not reported' in line


# ---------------------------------------------------------------- file backends


@pytest.mark.parametrize('backend_args', [None, dict(backend='memory_files')])
def test_file_backends(memory_files, backend_args):
    img = np.full((12, 16, 3), 9, np.uint8)
    paths = 'memory://rgb/7.png', 'memory://depth/7.png'
    for path, array in zip(paths, (img, (METRES * 1000).astype(np.uint16)), strict=True):
        memory_files[path] = cv2.imencode('.png', array)[1].tobytes()
    load = LoadRGBD(backend_args=backend_args)
    out = load(info(paths))
    np.testing.assert_array_equal(out['img'], img)
    np.testing.assert_allclose(out['depth'], METRES, atol=0.0011)
    with pytest.raises(FileNotFoundError, match=r"'scene/7': memory://depth/8\.png does not"):
        load(info((paths[0], 'memory://depth/8.png')))


def test_pickles_and_names_its_settings(tmp_path, write_frame):
    load = pickle.loads(pickle.dumps(LoadRGBD(reduced_decoding=False)))
    assert repr(load) == 'LoadRGBD(backend_args=None, reduced_decoding=False)'
    paths = write_frame(tmp_path, '7')
    np.testing.assert_array_equal(load(info(paths))['img'], LoadRGBD()(info(paths))['img'])
