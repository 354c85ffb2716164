"""The generated rooms: geometry by value, sensor, files, labels, restarts."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

# A path, not a loaded module: the worker processes import it by its name.
sys.path.insert(0, str(Path(__file__).parents[3] / 'tools' / 'dataset_converters'))

import generate_rooms
from generate_rooms import CLASSES, STUFF, Options, OptionsError, generate

from mmmask3d.conversion.rooms import palette
from mmmask3d.conversion.rooms.camera import look_at
from mmmask3d.conversion.rooms.render import Renderer, Tracer
from mmmask3d.conversion.rooms.scene import Light, Scene, build_room
from mmmask3d.conversion.rooms.sensor import Sensor, measure, shadowed
from mmmask3d.conversion.rooms.shapes import Assembly, box, quad

TOOL = Path(generate_rooms.__file__)
OPTIONS = Options(seed=3, rooms=3, views=2, val_rooms=1, size=(64, 48))


def contents(folder):
    """Return {relative path: bytes} of a data set."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob('*'))
        if path.is_file()
    }


def load(folder, kind, name):
    return cv2.imread(str(folder / kind / f'{name}.png'), cv2.IMREAD_UNCHANGED)


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp('rooms') / 'set'
    meta, count = generate(folder, OPTIONS, workers=1)
    assert count == 6
    return folder, meta


@pytest.fixture
def copy(made, tmp_path):
    return Path(shutil.copytree(made[0], tmp_path / 'set'))


@pytest.fixture(scope='module')
def bare():
    """A wall 3 m in front of the origin along y, 20 m wide, and a box 1 m before its middle."""
    assembly = Assembly()
    paint = palette.wall(np.random.default_rng(0))
    assembly.add(assembly.thing('wall'), quad((-10, 3, -10), (20, 0, 0), (0, 0, 20), paint))
    assembly.add(assembly.thing('table'), box((0.4, 0.2, 0.4), (0, 2, 0), paint))
    lamp = Light(np.array([0, -1.0, 1]), np.eye(3)[:2] * 0.1, np.zeros(3), np.ones(3))
    return Scene(
        assembly, np.full(3, 10.0), np.zeros((0, 2, 3)), [lamp], None,
        np.ones(3, np.float32), np.zeros(4),
    )  # fmt: skip


def test_depth_is_along_the_optical_axis(bare):
    camera = look_at(np.zeros(3), np.array([0.0, 3.0, 0.0]), 0.0, 64, 48)
    frame = Renderer(bare, Tracer(bare)).render(camera, np.random.default_rng(0))
    wall, table = CLASSES.index('wall') + 1, CLASSES.index('table') + 1
    # Seen head-on, all of the wall has one z-depth; the length of the rays would reach 3.77 m.
    np.testing.assert_allclose(frame.depth[frame.semantic == wall], 3.0, atol=1e-5)
    np.testing.assert_allclose(frame.depth[frame.semantic == table], 1.9, atol=1e-5)
    # The box's front is 0.4 m wide at 1.9 m: 0.4 * f / 1.9 = 11.05 pixels.
    assert (frame.semantic == table).any(axis=0).sum() in (11, 12)
    assert set(np.unique(frame.instance[frame.semantic == table])) == {2}


def test_depth_of_a_slanted_plane(bare):
    target, roll = np.array([-1.5, 3.0, -0.8]), 0.2
    camera = look_at(np.array([-4.0, 0.5, 0.3]), target, roll, 64, 48)
    seen = Tracer(bare).probe(camera)
    depth = seen.depth.reshape(48, 64)
    pose = camera.pose()
    for row, column in ((0, 0), (47, 0), (10, 40), (47, 63)):
        pixel = np.array([column + 0.5 - 32, row + 0.5 - 24]) / (0.82 * 64)
        ray = pose[:3, :3] @ [*pixel, 1.0]
        expected = (3.0 - pose[1, 3]) / ray[1]
        assert depth[row, column] == pytest.approx(expected, rel=1e-5)


def test_camera_axes():
    camera = look_at(np.zeros(3), np.array([0.0, 2.0, 0.0]), 0.0, 64, 48)
    np.testing.assert_allclose(camera.rotation[:, 0], [1, 0, 0], atol=1e-12)
    np.testing.assert_allclose(camera.rotation[:, 1], [0, 0, -1], atol=1e-12)
    np.testing.assert_allclose(camera.rotation[:, 2], [0, 1, 0], atol=1e-12)
    assert np.linalg.det(camera.rotation) == pytest.approx(1)


def test_what_the_lamp_does_not_reach_is_darker(bare):
    """The box throws its shadow onto the wall, down and away from the lamp."""
    camera = look_at(np.zeros(3), np.array([0.0, 3.0, 0.0]), 0.0, 128, 96)
    frame = Renderer(bare, Tracer(bare)).render(camera, np.random.default_rng(0))
    grey = frame.colour.astype(float).mean(axis=2)
    # The ray from (0, -1, 1) past the box's lower front edge (y 1.9, z -0.2) meets the wall at
    # z = -0.66, which is 22 pixels below the middle; the box ends 11 pixels below.
    shadow, beside = grey[62:66, 62:66], grey[62:66, 96:100]
    assert shadow.mean() < 0.6 * beside.mean()


def test_sensor_limits_noise_and_holes():
    rng = np.random.default_rng(0)
    shape, sensor = (120, 160), Sensor()
    ones = np.ones(shape, np.float32)
    focal = 0.82 * 160

    def read(z, cosine=1.0, infrared=0.8):
        return measure(z * ones, cosine * ones, infrared * ones, focal, rng, sensor)

    spread = {}
    for z in (1.0, 2.0, 3.0):
        depth = read(z)
        assert depth.dtype == np.uint16
        valid = depth[depth > 0] / 1000
        assert valid.size > 0.97 * depth.size
        assert valid.mean() == pytest.approx(z, rel=0.005)
        spread[z] = valid.std()
    # Constant noise in disparity is noise that grows with the square of the depth.
    assert spread[2.0] / spread[1.0] == pytest.approx(4, rel=0.35)
    assert spread[3.0] / spread[1.0] == pytest.approx(9, rel=0.35)
    assert spread[2.0] == pytest.approx(0.0095, rel=0.5)
    # Beyond, below, at grazing angles, without reflection, and where there is nothing: 0 only.
    for depth in (read(7.0), read(0.3), read(2.0, cosine=0.04), read(1.0, infrared=0.0), read(0.0)):
        assert not depth.any()
    # At the limits some pixels are read, and none outside of them.
    for z in (sensor.nearest, sensor.farthest):
        depth = read(z, infrared=1.0)
        valid = depth[depth > 0]
        assert 0 < valid.size < depth.size
        assert valid.min() >= 1000 * sensor.nearest
        assert valid.max() <= 1000 * sensor.farthest
    # Quantised: few values, in even steps of disparity.
    values = np.unique(read(3.0))
    steps = np.diff(640 * 0.82 * sensor.baseline / (values[values > 0] / 1000))
    assert values.size < 30
    np.testing.assert_allclose(steps, -sensor.disparity_step, atol=0.01)


def test_shadow_of_the_projector():
    """Left of a near object, as wide as the two disparities differ, the wall has no reading."""
    depth = np.full((2, 100), 3.0, np.float32)
    depth[:, 40:60] = 1.0
    shift = 15.0  # disparities of 5 and 15 pixels
    hidden = np.flatnonzero(shadowed(depth, shift)[0])
    # Pixel x of the wall is seen from the projector at x - 5, the object from 25 on.
    np.testing.assert_array_equal(hidden, np.arange(31, 40))
    assert not shadowed(np.full((2, 100), 2.0, np.float32), shift).any()


def test_every_class_occurs():
    """Things placed in some rooms, without rendering them."""
    names = set()
    for room in range(14):
        names |= set(build_room(np.random.default_rng([0, room, 0])).assembly.things)
        if len(names) == len(CLASSES):
            break
    assert names == set(CLASSES)


def test_layout_and_labels(made):
    folder, meta = made
    names = {
        'train': [f'room_000{room}_view_0{view}' for room in (0, 1) for view in (0, 1)],
        'val': ['room_0002_view_00', 'room_0002_view_01'],
    }
    for split, expected in names.items():
        assert (folder / 'splits' / f'{split}.txt').read_text().split() == expected
    invalid = {}
    for name in names['train'] + names['val']:
        colour = cv2.imread(str(folder / 'rgb' / f'{name}.jpg'))
        depth, semantic, instance = (
            load(folder, k, name) for k in ('depth', 'semantic', 'instance')
        )
        assert colour.shape == (48, 64, 3)
        assert colour.dtype == np.uint8
        assert colour.std() > 10
        assert (depth.shape, depth.dtype) == ((48, 64), np.uint16)
        assert (semantic.shape, semantic.dtype) == ((48, 64), np.uint8)
        assert (instance.shape, instance.dtype) == ((48, 64), np.uint16)
        read = depth[depth > 0]
        assert read.min() >= 450
        assert read.max() <= 6000
        assert semantic.max() <= 13
        # A thing has one class; labelled in one map means labelled in the other.
        np.testing.assert_array_equal(semantic > 0, instance > 0)
        for thing in np.unique(instance[instance > 0]):
            assert np.unique(semantic[instance == thing]).size == 1
        invalid[name] = (depth == 0).mean()
        record = json.loads((folder / 'frames' / f'{name}.json').read_text())
        assert record['invalid_share'] == pytest.approx(invalid[name], abs=1e-5)
        assert record['pixels'] == np.bincount(semantic.ravel(), minlength=14).tolist()
    for split, expected in names.items():
        assert meta['splits'][split]['frames'] == len(expected)
        share = np.mean([invalid[name] for name in expected])
        assert meta['splits'][split]['invalid_share'] == pytest.approx(share, abs=1e-3)
        assert sum(meta['splits'][split]['pixel_share'].values()) == pytest.approx(1, abs=1e-3)
    assert meta['classes'] == list(CLASSES)
    assert meta['camera']['fx'] == pytest.approx(0.82 * 64)
    assert json.loads((folder / 'meta.json').read_text()) == meta


@pytest.mark.parametrize('split', ['train', 'val'])
def test_coco_agrees_with_the_maps(made, split):
    from pycocotools.coco import COCO

    folder, meta = made
    coco = COCO(str(folder / 'annotations' / f'instances_{split}.json'))
    assert [c['name'] for c in coco.loadCats(coco.getCatIds())] == [
        name for name in CLASSES if name not in STUFF
    ]
    names = (folder / 'splits' / f'{split}.txt').read_text().split()
    assert [image['file_name'] for image in coco.imgs.values()] == [f'{n}.jpg' for n in names]
    assert len(coco.anns) == meta['splits'][split]['instances'] > 5
    for image, name in zip(coco.imgs.values(), names, strict=True):
        semantic, instance = load(folder, 'semantic', name), load(folder, 'instance', name)
        expected = set()
        for thing in np.unique(instance[instance > 0]):
            mask = instance == thing
            label = int(semantic[mask][0])
            if CLASSES[label - 1] not in STUFF and mask.sum() >= 30:
                expected.add((int(thing), label))
        found = set()
        for annotation in coco.imgToAnns[image['id']]:
            mask = coco.annToMask(annotation).astype(bool)
            rows, columns = np.nonzero(mask)
            x, y, width, height = annotation['bbox']
            assert annotation['area'] == mask.sum()
            assert (x, y) == (columns.min(), rows.min())
            assert (x + width - 1, y + height - 1) == (columns.max(), rows.max())
            thing = int(instance[mask][0])
            np.testing.assert_array_equal(mask, instance == thing)
            found.add((thing, annotation['category_id']))
        assert found == expected


def test_run_lengths():
    mask = np.array([[0, 1], [1, 1]], bool)
    assert generate_rooms.run_length(mask) == [1, 3]
    assert generate_rooms.run_length(~mask) == [0, 1, 3]
    assert generate_rooms.run_length(np.zeros((2, 3), bool)) == [6]


def test_workers_do_not_change_a_byte(made, tmp_path):
    generate(tmp_path / 'set', OPTIONS, workers=2)
    assert contents(tmp_path / 'set') == contents(made[0])


def test_other_seed_gives_other_frames(made, tmp_path):
    other = Options(seed=4, rooms=1, views=1, val_rooms=0, size=(64, 48))
    meta, _ = generate(tmp_path / 'set', other)
    name = 'room_0000_view_00'
    assert (load(tmp_path / 'set', 'depth', name) != load(made[0], 'depth', name)).mean() > 0.5
    assert meta['splits']['val']['invalid_share'] is None


def test_restart_repairs_what_is_missing_or_broken(made, copy, capsys):
    (copy / 'depth' / 'room_0001_view_00.png').unlink()
    cut = copy / 'rgb' / 'room_0000_view_01.jpg'
    cut.write_bytes(cut.read_bytes()[:200])
    (copy / 'frames' / 'room_0002_view_01.json').write_text('{"crc')
    (copy / 'rgb' / '.room_0000_view_00.jpg.1.tmp').write_bytes(b'left by a killed run')
    _, count = generate(copy, OPTIONS)
    assert count == 3
    assert '3 of 6 frames are there' in capsys.readouterr().out
    assert contents(copy) == contents(made[0])


def test_repairs_the_files_about_all_frames(made, copy):
    (copy / 'annotations' / 'instances_train.json').write_text('{"images": [')
    (copy / 'splits' / 'val.txt').unlink()
    assert generate(copy, OPTIONS)[1] == 0
    assert contents(copy) == contents(made[0])


def test_restart_before_the_end(made, copy):
    """Killed after the last frame: frames stay, the files about all of them are written."""
    meta = json.loads((copy / 'meta.json').read_text())
    (copy / 'meta.json').write_text(json.dumps(OPTIONS.record() | {'complete': False}))
    (copy / 'annotations' / 'instances_val.json').unlink()
    before = (copy / 'rgb' / 'room_0000_view_00.jpg').stat().st_mtime_ns
    found, count = generate(copy, OPTIONS)
    assert (found, count) == (meta, 0)
    assert (copy / 'rgb' / 'room_0000_view_00.jpg').stat().st_mtime_ns == before
    assert contents(copy) == contents(made[0])


def test_command_line_and_second_call(made, tmp_path):
    out, sheet = tmp_path / 'set', tmp_path / 'sheet.png'
    command = [sys.executable, str(TOOL), '--out', str(out), '--seed', '3']
    command += ['--rooms', '1', '--views', '2', '--val-rooms', '0', '--workers', '1']
    command += ['--size', '64', '48', '--contact-sheet', str(sheet)]
    first = subprocess.run(command, capture_output=True, text=True, check=True)
    assert 'made 2 of 2 frames' in first.stdout
    assert cv2.imread(str(sheet)).shape == (48, 64 * 6, 3)
    before = {path: path.stat().st_mtime_ns for path in out.rglob('*') if path.is_file()}
    second = subprocess.run(command, capture_output=True, text=True, check=True)
    assert 'all 2 frames are there, nothing to do' in second.stdout
    after = {path: path.stat().st_mtime_ns for path in out.rglob('*') if path.is_file()}
    assert before == after
    # A frame depends on seed, room and view, not on how many rooms there are.
    name = 'room_0000_view_01'
    np.testing.assert_array_equal(load(out, 'depth', name), load(made[0], 'depth', name))
    command[command.index('--seed') + 1] = '5'
    third = subprocess.run(command, capture_output=True, text=True, check=False)
    assert third.returncode == 2
    assert 'made with seed 3 (asked for: 5)' in third.stderr
    assert 'Traceback' not in third.stderr


def test_refuses_other_options_and_foreign_folders(copy, tmp_path):
    before = contents(copy)
    other = Options(seed=3, rooms=3, views=3, val_rooms=1, size=(64, 48))
    with pytest.raises(OptionsError, match=r'made with views 2 \(asked for: 3\)'):
        generate(copy, other)
    assert contents(copy) == before
    foreign = tmp_path / 'photos'
    foreign.mkdir()
    (foreign / 'me.jpg').write_bytes(b'x')
    with pytest.raises(OptionsError, match=r'has no meta\.json'):
        generate(foreign, OPTIONS)
    assert contents(foreign) == {'me.jpg': b'x'}
    (foreign / 'meta.json').write_text('{}')
    with pytest.raises(OptionsError, match='not a description of generated rooms'):
        generate(foreign, OPTIONS)


@pytest.mark.parametrize(
    ('changed', 'message'),
    [
        ({'val_rooms': 3}, 'leave a room for training'),
        ({'rooms': 0, 'val_rooms': 0}, 'at least 1'),
        ({'seed': -1}, '--seed must be 0 or more'),
        ({'size': (64, 16)}, 'between 32 and 2048'),
    ],
)
def test_bad_options(changed, message):
    with pytest.raises(OptionsError, match=message):
        Options(**(vars(OPTIONS) | changed))
