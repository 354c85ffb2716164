"""Readings of low confidence are none: by value, in every way to load a frame."""

import pickle

import cv2
import numpy as np
import pytest

from mmmask3d.conversion.packing import pack
from mmmask3d.datasets import EpochIndex, FrameError, LoadRGBD, RGBDDataset
from mmmask3d.datasets.confidence import read_confidence

HEIGHT, WIDTH = 60, 84
RNG = np.random.default_rng(0)
PREFIX = dict(img_path='rgb', depth_path='depth', confidence_path='confidence')
LOAD = [dict(type='mmmask3d.LoadRGBD')]
SCALES = {'ARKit': (0, 1, 2), 'per cent': (0, 50, 100), 'bytes': (0, 128, 255)}


def png(array):
    return cv2.imencode('.png', array)[1].tobytes()


@pytest.fixture
def root(tmp_path):
    """Three frames: JPEG, depth with holes, confidence of three levels."""
    for folder in PREFIX.values():
        (tmp_path / folder).mkdir()
    for i in range(3):
        image = cv2.GaussianBlur(RNG.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8), (0, 0), 2)
        assert cv2.imwrite(str(tmp_path / f'rgb/{i}.jpg'), image)
        depth = RNG.integers(500, 5000, (HEIGHT, WIDTH)).astype(np.uint16)
        depth[RNG.random((HEIGHT, WIDTH)) < 0.1] = 0
        assert cv2.imwrite(str(tmp_path / f'depth/{i}.png'), depth)
        write_confidence(tmp_path, i, RNG.integers(0, 3, (HEIGHT, WIDTH)))
    return tmp_path


def write_confidence(root, number, levels, scale='ARKit'):
    values = np.array(SCALES[scale], np.uint8)[levels]
    (root / f'confidence/{number}.png').write_bytes(png(values))


def stored(root, kind, number=0):
    return cv2.imread(str(root / f'{kind}/{number}.png'), cv2.IMREAD_UNCHANGED)


def dataset(root, **options):
    settings = dict(data_prefix=PREFIX, min_confidence=2, pipeline=LOAD)
    return RGBDDataset(data_root=str(root), **settings | options)


# ---------------------------------------------------------------- values


@pytest.mark.parametrize('scale', SCALES)
@pytest.mark.parametrize('level', [1, 2])
def test_readings_below_the_threshold_are_none(root, scale, level):
    levels = RNG.integers(0, 3, (HEIGHT, WIDTH))
    write_confidence(root, 1, levels, scale)
    found = dataset(root, min_confidence=SCALES[scale][level])[1]
    depth = stored(root, 'depth', 1)
    valid = (depth > 0) & (levels >= level)
    np.testing.assert_array_equal(found['valid'], valid)
    np.testing.assert_allclose(found['depth'], np.where(valid, depth / 1000, 0), rtol=1e-6)


def test_a_relative_zero_that_is_sure_stays(root):
    depth = stored(root, 'depth')
    levels = stored(root, 'confidence')
    found = dataset(root, depth_kind='relative', depth_invalid=())[0]
    np.testing.assert_array_equal(found['valid'], levels == 2)
    assert (found['valid'] & (depth == 0)).any()
    assert not found['depth'][levels < 2].any()


def test_floats_and_what_is_no_number(root):
    values = RNG.random((HEIGHT, WIDTH)).astype(np.float32)
    values[0] = np.nan
    np.save(root / 'confidence/0.npy', values)
    for i in (1, 2):
        np.save(root / f'confidence/{i}.npy', values)
    found = dataset(root, confidence_suffix='.npy', min_confidence=0.25)[0]
    np.testing.assert_array_equal(found['valid'], (values >= 0.25) & (stored(root, 'depth') > 0))


@pytest.mark.parametrize(
    'second',
    [
        dict(type='mmmask3d.RGBDRandomResizedCrop', scale=(32, 24)),
        dict(type='mmmask3d.RGBDResize', scale=(42, 30)),
    ],
)
def test_deferred_decoding_sees_the_same(root, second):
    """A crop of the frame with low confidence taken off is what a crop gives."""
    plain = dict(type='mmmask3d.LoadRGBD', reduced_decoding=False)
    data = dataset(root, pipeline=[plain, second])
    ours = [data[EpochIndex(0, epoch=epoch)] for epoch in range(3)]
    zeroed = stored(root, 'depth')
    zeroed[stored(root, 'confidence') < 2] = 0
    assert cv2.imwrite(str(root / 'depth/0.png'), zeroed)
    reference = RGBDDataset(data_root=str(root), pipeline=[plain, second])
    for epoch, found in enumerate(ours):
        expected = reference[EpochIndex(0, epoch=epoch)]
        assert 0.1 < found['valid'].mean() < 0.6
        for key in ('img', 'depth', 'valid'):
            np.testing.assert_array_equal(found[key], expected[key])


# ---------------------------------------------------------------- sizes


def test_a_whole_fraction_of_the_size_covers_blocks():
    small = RNG.integers(0, 3, (4, 6)).astype(np.uint8)
    np.testing.assert_array_equal(read_confidence(png(small), 'c.png', (4, 6)), small)
    for factor in (2, 3, 7):
        found = read_confidence(png(small), 'c.png', (4 * factor, 6 * factor))
        np.testing.assert_array_equal(found, np.kron(small, np.ones((factor, factor), np.uint8)))


@pytest.mark.parametrize('shape', [(8, 6), (8, 18), (9, 13), (2, 3)])
def test_other_sizes_are_refused(shape):
    message = rf'c\.png: a confidence map of 4x6 .* depth is {shape[0]}x{shape[1]}'
    with pytest.raises(FrameError, match=message):
        read_confidence(png(np.ones((4, 6), np.uint8)), 'c.png', shape)


# ---------------------------------------------------------------- finding maps


def test_maps_are_found_by_the_name_of_depth(root):
    assert [dataset(root).get_data_info(i)['confidence_path'] for i in range(3)] == [
        f'{root}/confidence/{i}.png' for i in range(3)
    ]
    (root / 'rgb/0.jpg').rename(root / 'rgb/other.jpg')
    (root / 'index.txt').write_text('rgb/other.jpg depth/0.png\nrgb/1.jpg depth/2.png\n')
    prefix = dict(img_path='', depth_path='', confidence_path='.')
    with pytest.raises(FileNotFoundError, match=r'2 of 2 frames .* 2 confidence maps do not exist'):
        dataset(root, ann_file='index.txt', data_prefix=prefix, confidence_suffix='.conf')
    for i in (0, 2):
        (root / f'confidence/{i}.png').rename(root / f'depth/{i}.conf')
    data = dataset(root, ann_file='index.txt', data_prefix=prefix, confidence_suffix='.conf')
    paths = [data.get_data_info(i)['confidence_path'] for i in range(2)]
    assert [path.rpartition('/')[2] for path in paths] == ['0.conf', '2.conf']
    assert data[0]['valid'].any()


def test_missing_maps(root, warnings_logged):
    (root / 'confidence/1.png').unlink()
    with pytest.raises(FileNotFoundError, match=r'1 of 3 frames .*confidence/1\.png\. Check'):
        dataset(root)
    data = dataset(root, on_error='drop')
    assert [data.get_data_info(i)['frame'] for i in range(len(data))] == ['0', '2']
    assert data.num_without_partner == 1
    assert 'left out' in warnings_logged[-1]
    (root / 'confidence/0.png').unlink()
    with pytest.raises(FileNotFoundError, match=r"0': .*confidence/0\.png does not exist"):
        LoadRGBD()(data.get_data_info(0))
    assert data[0]['frame'] == '2'  # drawn in its place
    (root / 'confidence/2.png').unlink()
    with pytest.raises(FileNotFoundError, match=r'3 of 3 frames'):
        dataset(root, on_error='drop')


def test_packed_and_in_other_processes(root, tmp_path):
    database = tmp_path.parent / f'{tmp_path.name}.lmdb'
    pack(root, database)
    backend = dict(backend='packed_lmdb', db_path=str(database), data_root=str(root))
    expected = [dataset(root)[i] for i in range(3)]
    (root / 'confidence/1.png').unlink()  # it is in the database
    packed = dataset(
        root, backend_args=backend, pipeline=[dict(type='mmmask3d.LoadRGBD', backend_args=backend)]
    )
    again = pickle.loads(pickle.dumps(packed))
    for i in range(3):
        for key in ('img', 'depth', 'valid'):
            np.testing.assert_array_equal(again[i][key], expected[i][key])
    with pytest.raises(FileNotFoundError, match=r'3 of 3 frames .* 3 confidence maps do not exist'):
        dataset(root, backend_args=backend, confidence_suffix='.jpg')


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize('minimum', [0, -1, float('nan'), float('inf'), True, '2'])
def test_thresholds_that_leave_nothing_out(root, minimum):
    with pytest.raises(ValueError, match='must be > 0'):
        dataset(root, min_confidence=minimum)


def test_prefix_and_threshold_belong_together(root):
    with pytest.raises(ValueError, match='belong together'):
        dataset(root, min_confidence=None)
    with pytest.raises(ValueError, match='belong together'):
        dataset(root, data_prefix=dict(img_path='rgb', depth_path='depth'))
    with pytest.raises(ValueError, match="takes 'confidence_path'"):
        dataset(root, data_prefix=PREFIX | dict(confidence='confidence'))


def test_a_threshold_beyond_what_a_map_holds(root):
    with pytest.raises(
        FrameError, match=r'confidence/0\.png: .*at least 50; .*holds 0 to 2\. .* as stored'
    ):
        dataset(root, min_confidence=50)[0]
    with pytest.raises(RuntimeError, match='3 frames in a row'):
        dataset(root, min_confidence=50, on_error='drop')[0]


def test_sure_pixels_without_a_reading_do_not_help(root):
    depth = stored(root, 'depth')
    write_confidence(root, 0, np.where(depth == 0, 2, 0))
    with pytest.raises(FrameError, match='holds 0 to 0'):
        dataset(root)[0]


def test_damaged_maps(root):
    (root / 'confidence/0.png').write_bytes(b'no picture')
    with pytest.raises(FrameError, match=r'confidence/0\.png: .*to be a confidence map'):
        dataset(root)[0]
    (root / 'confidence/0.png').write_bytes(png(np.ones((HEIGHT, WIDTH, 3), np.uint8)))
    with pytest.raises(FrameError, match=r'confidence/0\.png: .*found RGB'):
        dataset(root)[0]
