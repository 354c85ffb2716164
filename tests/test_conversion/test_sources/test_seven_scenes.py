"""7-Scenes: what is a reading, where registration puts it, and trees that are incomplete."""

import json
from argparse import Namespace
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmmask3d.conversion.command_line import run
from mmmask3d.conversion.paths import SourceError
from mmmask3d.conversion.sources.seven_scenes import SevenScenesConverter, depth_to_colour
from mmmask3d.datasets import LoadRGBD, PackRGBDInputs, RGBDDataset
from mmmask3d.datasets.depth_io import FrameError
from mmmask3d.engine.run_config import load_config
from mmmask3d.evaluation.correspondence import find_pairs
from mmmask3d.evaluation.frames import read_frames
from mmmask3d.registry import DATASETS

ROOT = Path(__file__).parents[3]
Y, X = np.mgrid[:480, :640]


def depth_map(seed):
    """A slanted wall, a box in front of it, holes of both codes; uint16 millimetres."""
    depth = 1800 + 20 * seed + X // 2 + Y // 3
    depth[150:300, 250:400] = 900 + 10 * seed
    depth[:40, :60] = 0
    depth[400:, 500:] = 65535
    return depth.astype(np.uint16)


def pose(seed):
    matrix = np.eye(4)
    matrix[:3, :3] = cv2.Rodrigues(np.array([0.1, -0.2, 0.3]) * (seed + 1))[0]
    matrix[:3, 3] = seed, -1, 0.5
    return matrix


def write_scene(folder, train=(1,), test=(2,), frames=2):
    """A scene as it is once its inner zip files are unpacked."""
    folder.mkdir(parents=True)
    for name, numbers in (('TrainSplit.txt', train), ('TestSplit.txt', test)):
        (folder / name).write_text(''.join(f'sequence{n} \r\n' for n in numbers))
    for number in (*train, *test):
        sequence = folder / f'seq-{number:02d}'
        sequence.mkdir()
        (sequence / 'Thumbs.db').write_bytes(b'left over by another system')
        for i in range(frames):
            seed = 10 * number + i
            image = np.stack([X % 256, Y % 256, np.full_like(X, seed)], -1).astype(np.uint8)
            stem = sequence / f'frame-{i:06d}'
            assert cv2.imwrite(f'{stem}.color.png', image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
            assert cv2.imwrite(f'{stem}.depth.png', depth_map(seed))
            rows = '\n'.join('\t'.join(f' {v: .7e}' for v in row) for row in pose(seed))
            Path(f'{stem}.pose.txt').write_text(rows + '\t\n')
    return folder


def converter(root, **options):
    defaults = dict(unit=1000.0, every=1, jpeg=False)
    return SevenScenesConverter(Namespace(source=Path(root), **defaults | options))


def register_slowly(depth):
    """Each reading rounded to the pixel it projects to, the nearest kept; constants typed again.

    Sources: the intrinsics of the data set's page; ACE's setup_7scenes.py and the calibration page
    of LIRIS that it cites.
    """
    transform = np.array(
        [
            [0.99996518012567637, 0.0026765126468950343, -0.0079041012313000904],
            [-0.00274093112813167, 0.99996302803027592, -0.0081504520778013286],
            [0.0078819942130445332, 0.0081718328771890631, 0.99993554558014031],
        ]
    )
    valid = (depth > 0) & (depth < 65535)
    z = depth[valid] / 1000
    points = np.stack([(X[valid] - 320) / 585 * z, (Y[valid] - 240) / 585 * z, z])
    x, y, z = transform @ points + [[-0.0255589431781525], [0.00010109636268], [0.00203183217294]]
    column = np.rint(x / z * 525 + 320).astype(int)
    row = np.rint(y / z * 525 + 240).astype(int)
    out = np.zeros((480, 640))
    for i in np.argsort(-z):
        if 0 <= column[i] < 640 and 0 <= row[i] < 480:
            out[row[i], column[i]] = 1000 * z[i]
    return out


# ---------------------------------------------------------------- registration


def test_single_readings_land_where_the_calibration_says():
    rng = np.random.default_rng(0)
    depth = np.zeros((480, 640), np.uint16)
    depth[10::37, 8::41] = rng.integers(400, 6000, depth[10::37, 8::41].shape)
    expected = register_slowly(depth)
    got = converter('.')._depth(depth)
    # A pixel of the colour camera is larger: about 4 of 5 readings hold the centre of one.
    assert 0.6 < np.count_nonzero(got) / np.count_nonzero(expected) < 1
    there = got > 0
    np.testing.assert_allclose(got[there], expected[there], atol=0.5)


def test_surfaces_are_dense_and_the_box_moves_more_than_the_wall():
    depth = depth_map(0)
    expected, got = register_slowly(depth), converter('.')._depth(depth)
    both = (expected > 0) & (got > 0)
    assert both.sum() > 0.7 * both.size
    # A slope of half a millimetre a pixel; only silhouettes may differ by a pixel.
    assert np.mean(np.abs(got[both] - expected[both]) < 1.6) > 0.995
    # No crack in a surface, and no reading that is not beside one.
    assert (got[310:370, 60:450] > 0).all()
    assert (got[170:280, 260:370] > 0).all()
    inside = np.s_[60:400, 60:560]
    near = cv2.dilate((expected[inside] > 0).astype(np.uint8), np.ones((3, 3)))
    assert not got[inside][near == 0].any()
    # At 0.9 m the cameras are 13 pixels apart, at 2 m 6: the left side of the box covers the wall,
    # the right side uncovers a strip of it.
    row = got[240]
    box = np.flatnonzero((row > 0) & (row < 1000))
    assert 130 < len(box) < 140
    assert (row[box[-1] + 1 : box[-1] + 5] == 0).all()
    assert row[box[0] - 1] > 1500


def test_codes_of_no_reading_are_dropped():
    depth = depth_map(1)
    got = converter('.')._depth(np.where(depth == 65535, 0, depth))
    np.testing.assert_array_equal(converter('.')._depth(depth), got)
    assert not converter('.')._depth(np.full((480, 640), 65535, np.uint16)).any()
    assert not converter('.')._depth(np.zeros((480, 640), np.uint16)).any()


def test_the_unit_decides_where_readings_land():
    """A room at 5000 per metre is that in millimetres, in finer steps."""
    depth = depth_map(1) * np.where(depth_map(1) == 65535, 1, np.uint16(5))
    got = converter('.', unit=5000.0)._depth(depth)
    expected = converter('.')._depth(depth_map(1))
    np.testing.assert_array_equal(got > 0, expected > 0)
    np.testing.assert_allclose(got / 5, expected, rtol=0, atol=0.5)  # its steps, and it is rounded
    assert converter('.', unit=5000.0).depth_scale == 5000


def test_the_pose_is_that_of_the_camera_whose_view_it_is(tmp_path):
    root = write_scene(tmp_path / 'chess')
    point = np.array([0.3, -0.2, 1.5, 1])  # in the axes of the depth camera
    world = pose(10) @ point
    reader = converter(root)
    source = reader.sources()[0]
    frame = reader.read(source, reader.plan(source).frames[0].locator)
    to_world = np.array(frame.extra['camera_to_world'])
    np.testing.assert_allclose(to_world @ depth_to_colour() @ point, world, atol=1e-6)


# ---------------------------------------------------------------- end to end


def test_round_trip_by_value(tmp_path, capsys):
    write_scene(tmp_path / 'source/chess', (1, 12), (2,))
    write_scene(tmp_path / 'source/fire', (1,), (2,), frames=1)
    arguments = [str(tmp_path / 'source'), str(tmp_path / 'out'), '--workers', '1', '--every', '2']
    assert run(SevenScenesConverter, arguments) == 0
    capsys.readouterr()
    out = tmp_path / 'out'
    manifest = json.loads((out / 'manifest.json').read_text())
    assert {k: v['frames'] for k, v in manifest['splits'].items()} == dict(all=5, train=3, test=2)
    assert (out / 'splits/train.txt').read_text().split() == [
        'chess/seq-01/frame-000000',
        'chess/seq-12/frame-000000',
        'fire/seq-01/frame-000000',
    ]
    cfg = load_config(ROOT / 'configs/_base_/datasets/seven_scenes_pretrain.py')
    settings = dict(data_root=str(out), pipeline=[dict(type='LoadRGBD')])
    with DATASETS.switch_scope_and_registry('mmmask3d'):
        assert len(DATASETS.build(cfg.val_dataloader.dataset | settings)) == 2
        data = DATASETS.build(cfg.train_dataloader.dataset | settings)
    for i, seed in enumerate((10, 120, 10)):
        expected = converter('.')._depth(depth_map(seed))
        np.testing.assert_allclose(data[i]['depth'], expected / 1000, rtol=1e-6)
        np.testing.assert_array_equal(data[i]['valid'], expected > 0)
        np.testing.assert_array_equal(data[i]['img'][..., 0], X % 256)
        assert (data[i]['img'][..., 2] == seed).all()


def test_options(tmp_path):
    write_scene(tmp_path / 'heads', (2,), (1,), frames=1)
    options = ['--workers=1', '--jpeg', '--size', '320', '240']
    arguments = [str(tmp_path / 'heads'), str(tmp_path / 'out'), *options]
    assert run(SevenScenesConverter, arguments) == 0
    assert (tmp_path / 'out/splits/train.txt').read_text() == 'heads/seq-02/frame-000000\n'
    data = RGBDDataset(data_root=str(tmp_path / 'out'), pipeline=[LoadRGBD()], test_mode=True)
    assert len(data) == 2
    expected = converter('.')._depth(depth_map(20))[1::2, 1::2]
    np.testing.assert_allclose(data[1]['depth'], expected / 1000, rtol=1e-6)
    assert data[1]['img'].shape == (240, 320, 3)


@pytest.mark.parametrize('size', [(640, 480), (320, 240)])
def test_converted_frames_give_pairs_of_views_with_their_geometry(size, tmp_path):
    """Against rays that are cut with the plane which both views see, without any depth map."""
    normal, distance = np.array([0.2, -0.1, 1.0]), 2.0
    root = write_scene(tmp_path / 'chess', train=(1,), test=())
    cameras = []
    for i in range(2):
        to_world = np.eye(4)
        to_world[:3, :3] = cv2.Rodrigues(np.array([0.0, 0.15, 0.05]) * i)[0]
        to_world[:3, 3] = -0.2 * i, 0.1 * i, 0.05 * i
        rays = np.stack([(X - 320) / 585, (Y - 240) / 585, np.ones(X.shape)], -1)
        z = (distance - normal @ to_world[:3, 3]) / (rays @ to_world[:3, :3].T @ normal)
        stem = root / f'seq-01/frame-{i:06d}'
        assert cv2.imwrite(f'{stem}.depth.png', np.rint(1000 * z).astype(np.uint16))
        np.savetxt(f'{stem}.pose.txt', to_world)
        cameras.append(to_world @ np.linalg.inv(depth_to_colour()))
    options = ['--workers=1', '--size', *map(str, size)]
    assert run(SevenScenesConverter, [str(root), str(tmp_path / 'out'), *options]) == 0
    settings = dict(data_root=str(tmp_path / 'out'), img_suffix='.png', test_mode=True)
    data = RGBDDataset(**settings, pipeline=[LoadRGBD(), PackRGBDInputs()])
    pairs = find_pairs(read_frames([data]))
    assert len(pairs) == 1
    pair, scale = pairs[0], size[0] / 640
    assert pair.rotation == pytest.approx(np.degrees(np.hypot(0.15, 0.05)), abs=1e-3)
    here, there = cameras[pair.first], cameras[pair.second]
    pixels = (pair.points.numpy() + 0.5) / scale - 0.5
    rays = np.concatenate([(pixels - [320, 240]) / 525, np.ones((len(pixels), 1))], 1)
    rays = rays @ here[:3, :3].T
    z = (distance - normal @ here[:3, 3]) / (rays @ normal)
    seen = (here[:3, 3] + z[:, None] * rays - there[:3, 3]) @ there[:3, :3]
    true = seen[:, :2] / seen[:, 2:] * 525 + [320, 240]
    np.testing.assert_allclose(pair.truth.numpy(), (true + 0.5) * scale - 0.5, atol=0.6)


# ---------------------------------------------------------------- incomplete and damaged


def test_sequences_that_are_still_packed(tmp_path, capsys):
    root = write_scene(tmp_path / 'chess', frames=1)
    (root / 'seq-02').rename(tmp_path / 'seq-02')
    arguments = [str(root), str(tmp_path / 'out'), '--workers', '1']
    assert run(SevenScenesConverter, arguments) == 1
    assert 'TestSplit.txt:1 names' in capsys.readouterr().err
    (root / 'seq-02.zip').write_bytes(b'PK')
    assert run(SevenScenesConverter, arguments) == 1
    error = capsys.readouterr().err
    assert f"unzip '{root}/seq-02.zip' -d '{root}'" in error
    assert '1 of 1 frames found are converted and kept' in error
    (tmp_path / 'seq-02').rename(root / 'seq-02')
    assert run(SevenScenesConverter, arguments) == 0
    assert 'converted 1, 2 frames in all' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('line', 'message'),
    [
        ('sequence1', r'TestSplit\.txt:2: sequence 1 is named by \S*TrainSplit\.txt:1 already'),
        ('sequence2', r'TestSplit\.txt:2: sequence 2 is named by \S*TestSplit\.txt:1 already'),
        ('../seq-03', r"TestSplit\.txt:2: expected 'sequence' and a number, found '\.\./seq-03'"),
        ('sequence../../x', r'TestSplit\.txt:2: expected'),
        ('sequence99999999999999999999', r'TestSplit\.txt:2: expected'),
        ('sequence', r'TestSplit\.txt:2: expected'),
        ('\x80', r'TestSplit\.txt: expected text in UTF-8'),
    ],
)
def test_lists_that_are_wrong(line, message, tmp_path):
    root = write_scene(tmp_path / 'chess', frames=0)
    with (root / 'TestSplit.txt').open('ab') as file:
        file.write(line.encode('latin-1'))
    with pytest.raises(SourceError, match=message):
        converter(root).sources()


def test_wrong_folders(tmp_path):
    with pytest.raises(SourceError, match='is no folder'):
        converter(tmp_path / 'nowhere').sources()
    with pytest.raises(SourceError, match=r'neither it nor a folder in it holds TrainSplit\.txt'):
        converter(tmp_path).sources()
    root = write_scene(tmp_path / 'chess', frames=0)
    reader = converter(root)
    assert 'no file ends in .color.png' in reader.plan(reader.sources()[0]).problems[0]
    (root / 'TestSplit.txt').unlink()
    with pytest.raises(SourceError, match=r'TestSplit\.txt does not exist'):
        converter(root).sources()


def test_partners_that_are_missing(tmp_path):
    root = write_scene(tmp_path / 'chess')
    (root / 'seq-01/frame-000000.depth.png').unlink()
    (root / 'seq-01/frame-000001.color.png').unlink()
    (root / 'seq-01/frame-000001.pose.txt').unlink()
    reader = converter(root)
    first, second = (reader.plan(source) for source in reader.sources())
    assert not first.frames
    assert [p.split(' has no partner ')[0] for p in first.problems] == [
        f'{root}/seq-01/frame-000000.color.png',
        f'{root}/seq-01/frame-000001.depth.png',
    ]
    assert len(second.frames) == 2


@pytest.mark.parametrize(
    ('file', 'content', 'message'),
    [
        ('color.png', cv2.imencode('.png', np.zeros((48, 64, 3), np.uint8))[1].tobytes(), '64x48'),
        ('depth.png', cv2.imencode('.png', np.zeros((48, 64), np.uint16))[1].tobytes(), '64x48'),
        ('depth.png', cv2.imencode('.png', np.zeros((480, 640), np.uint8))[1].tobytes(), '8 bits'),
        ('depth.png', cv2.imencode('.png', depth_map(0))[1].tobytes()[:999], 'truncated PNG'),
        ('color.png', b'', 'the file is empty'),
        ('pose.txt', b'1 0 0 0\n0 1 0 0\n0 0 1 0\n', r'pose\.txt: 12 numbers, expected 16'),
        ('pose.txt', b'1 0 0 0\n\n0 1 nan 0\n0 0 1 0\n0 0 0 1\n', r'pose\.txt: expected finite'),
        ('pose.txt', b'1 0 0 0\n0 1 0 0\n0 0 x 0\n0 0 0 1\n', r'pose\.txt: cannot be read as a'),
        ('pose.txt', b'\xff', r'pose\.txt: expected text in UTF-8.*byte 0'),
    ],
)
def test_damaged_frames(file, content, message, tmp_path):
    root = write_scene(tmp_path / 'chess', frames=1)
    (root / f'seq-01/frame-000000.{file}').write_bytes(content)
    reader = converter(root)
    source = reader.sources()[0]
    with pytest.raises(FrameError, match=message):
        reader.read(source, reader.plan(source).frames[0].locator)
