"""The generated rooms: geometry and sensor by value, and what the converter makes of them."""

import json

import cv2
import numpy as np
import pytest

from mmmask3d.conversion.command_line import run
from mmmask3d.conversion.rooms import palette
from mmmask3d.conversion.rooms.camera import look_at
from mmmask3d.conversion.rooms.converter import RoomsConverter
from mmmask3d.conversion.rooms.render import Renderer, Tracer
from mmmask3d.conversion.rooms.scene import Light, Scene, build_room
from mmmask3d.conversion.rooms.sensor import Sensor, measure, shadowed
from mmmask3d.conversion.rooms.shapes import Assembly, box, quad
from mmmask3d.datasets.classes import INDOOR_STUFF
from mmmask3d.datasets.classes import NYU13_CLASSES as CLASSES

NAMES = [f'room_000{room}_view_0{view}' for room in range(3) for view in range(2)]
OPTIONS = ['--seed=3', '--rooms=3', '--views=2', '--val-rooms=1', '--size', '64', '48']


def make(folder, *options, workers=1):
    """Run the converter; later options replace those of ``OPTIONS``."""
    return run(RoomsConverter, ['--out', str(folder), *OPTIONS, f'--workers={workers}', *options])


def contents(folder):
    """Return {relative path: bytes} of a data set."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob('*'))
        if path.is_file() and '.conversion' not in path.parts
    }


def load(folder, kind, name):
    return cv2.imread(str(folder / kind / f'{name}.png'), cv2.IMREAD_UNCHANGED)


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp('rooms') / 'set'
    assert make(folder) == 0
    return folder


@pytest.fixture(scope='module')
def bare():
    """A wall 3 m in front of the origin along y, 20 m wide, and a box 1 m before its middle."""
    assembly = Assembly()
    paint = palette.wall(np.random.default_rng(0))
    assembly.thing('wall')(quad((-10, 3, -10), (20, 0, 0), (0, 0, 20), paint))
    assembly.thing('table')(box((0.4, 0.2, 0.4), (0, 2, 0), paint))
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
    lists = {'all': NAMES, 'train': NAMES[:4], 'val': NAMES[4:]}
    for split, expected in lists.items():
        assert (made / 'splits' / f'{split}.txt').read_text().split() == expected
    pixels, invalid = np.zeros(14, int), []
    for name in NAMES:
        colour = cv2.imread(str(made / 'rgb' / f'{name}.jpg'))
        depth, semantic, instance = (load(made, k, name) for k in ('depth', 'semantic', 'instance'))
        assert (colour.shape, colour.dtype) == ((48, 64, 3), np.uint8)
        assert (depth.shape, depth.dtype) == ((48, 64), np.uint16)
        assert (semantic.shape, semantic.dtype) == ((48, 64), np.uint8)
        assert (instance.shape, instance.dtype) == ((48, 64), np.uint16)
        read = depth[depth > 0]
        assert read.min() >= 450
        assert read.max() <= 6000
        # A thing has one class; labelled in one map means labelled in the other.
        np.testing.assert_array_equal(semantic > 0, instance > 0)
        for thing in np.unique(instance[instance > 0]):
            assert np.unique(semantic[instance == thing]).size == 1
        pixels += np.bincount(semantic.ravel(), minlength=14)
        invalid.append((depth == 0).mean())
    manifest = json.loads((made / 'manifest.json').read_text())
    assert manifest['depth']['depth']['invalid_share'] == pytest.approx(np.mean(invalid), abs=1e-4)
    share = dict(zip(CLASSES, pixels[1:] / pixels.sum(), strict=True))
    found = manifest['pixel_share']['semantic']
    assert found.pop('unlabelled') == pytest.approx(pixels[0] / pixels.sum(), abs=1e-6)
    assert found == pytest.approx(share, abs=1e-6)
    assert manifest['options']['sensor']['baseline'] == 0.075


def test_a_seed_gives_the_rooms_that_it_always_gave(made):
    """Figures of seed 3 from the first version; other machines may round a few pixels otherwise."""
    name = 'room_0000_view_00'
    colour = cv2.imread(str(made / 'rgb' / f'{name}.jpg')).reshape(-1, 3)
    depth = load(made, 'depth', name)
    pixels = np.bincount(load(made, 'semantic', name).ravel(), minlength=14)
    assert pixels[[5, 7, 9, 12, 13]] == pytest.approx([1138, 158, 903, 601, 272], abs=15)
    assert (depth == 0).mean() == pytest.approx(0.20573, abs=0.01)
    assert np.median(depth[depth > 0]) == pytest.approx(1567, rel=0.02)
    assert colour.mean(axis=0) == pytest.approx([140.5, 145.4, 156.4], abs=2)


def test_a_view_has_its_camera(made):
    """Points of one view, brought to another by both cameras, have the depth that is read there."""
    frames = [json.loads(line) for line in (made / 'frames.jsonl').read_text().splitlines()]
    assert [frame['name'] for frame in frames] == NAMES
    focal = 0.82 * 64
    assert frames[0]['intrinsic'] == [[focal, 0, 31.5], [0, focal, 23.5], [0, 0, 1]]
    agreeing = total = 0
    for one, other in ((frames[k], frames[k ^ 1]) for k in range(6)):
        depth, there = (load(made, 'depth', f['name']) / 1000 for f in (one, other))
        inside = np.linalg.inv(other['camera_to_world']) @ one['camera_to_world']
        row, column = np.nonzero(depth)
        rays = np.linalg.inv(one['intrinsic']) @ [column, row, np.ones(len(row))]
        points = inside[:3, :3] @ (rays * depth[row, column]) + inside[:3, 3:]
        x, y, z = np.array(other['intrinsic']) @ points
        with np.errstate(divide='ignore', invalid='ignore'):
            x, y = x / z, y / z
        shown = (z > 0.4) & (x > -0.5) & (x < 63.5) & (y > -0.5) & (y < 47.5)
        read = there[np.rint(y[shown]).astype(int), np.rint(x[shown]).astype(int)]
        visible = (read > 0) & (read > 0.8 * z[shown])  # not behind something
        agreeing += (np.abs(read - z[shown]) < 0.05 * z[shown])[visible].sum()
        total += visible.sum()
    assert total > 300
    assert agreeing > 0.8 * total


@pytest.mark.parametrize('split', ['train', 'val'])
def test_coco_agrees_with_the_maps(made, split):
    from pycocotools.coco import COCO

    coco = COCO(str(made / 'annotations' / f'instances_{split}.json'))
    things = [name for name in CLASSES if name not in INDOOR_STUFF]
    assert len(things) == 10
    assert [c['name'] for c in coco.loadCats(coco.getCatIds())] == things
    names = (made / 'splits' / f'{split}.txt').read_text().split()
    assert [image['file_name'] for image in coco.imgs.values()] == [f'{n}.jpg' for n in names]
    assert len(coco.anns) == {'train': 21, 'val': 9}[split]
    for image, name in zip(coco.imgs.values(), names, strict=True):
        semantic, instance = load(made, 'semantic', name), load(made, 'instance', name)
        expected = set()
        for thing in np.unique(instance[instance > 0]):
            mask = instance == thing
            label = int(semantic[mask][0])
            if CLASSES[label - 1] not in INDOOR_STUFF and mask.sum() >= 30:
                expected.add((int(thing), label))
        found = set()
        for annotation in coco.imgToAnns[image['id']]:
            mask = coco.annToMask(annotation).astype(bool)
            thing = int(instance[mask][0])
            np.testing.assert_array_equal(mask, instance == thing)
            found.add((thing, annotation['category_id']))
        assert found == expected


def test_workers_do_not_change_a_byte(made, tmp_path):
    assert make(tmp_path / 'set', workers=2) == 0
    assert contents(tmp_path / 'set') == contents(made)


def test_a_frame_depends_on_seed_room_and_view_only(made, tmp_path):
    assert make(tmp_path / 'set', '--rooms=1', '--views=1', '--val-rooms=0') == 0
    same = {path: data for path, data in contents(made).items() if NAMES[0] in path}
    assert len(same) == 4
    assert same.items() <= contents(tmp_path / 'set').items()
    assert not (tmp_path / 'set/splits/val.txt').exists()
    assert make(tmp_path / 'other', '--seed=4', '--rooms=1', '--views=1', '--val-rooms=0') == 0
    one, other = (load(folder, 'depth', NAMES[0]) for folder in (made, tmp_path / 'other'))
    assert (one != other).mean() > 0.5


def test_other_options_are_refused(made, capsys):
    before = contents(made)
    assert make(made, '--views=3') == 1
    assert 'was made with views 2 (asked for: 3)' in capsys.readouterr().err
    assert contents(made) == before


def test_a_room_without_a_place_for_a_camera_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr('mmmask3d.conversion.rooms.camera._candidate', lambda *_: None)
    assert make(tmp_path / 'set', '--rooms=1', '--views=1', '--val-rooms=0') == 1
    text = capsys.readouterr().err
    assert 'frame room_0000_view_00: no place for a camera' in text
    assert 'choose another' in text


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--val-rooms=3'], 'leave a room for training: got 3 of 3 rooms'),
        (['--size', '64', '16'], 'between 32 and 2048 pixels, got 64 x 16'),
    ],
)
def test_bad_options(tmp_path, capsys, options, message):
    assert make(tmp_path / 'set', *options) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / 'set').exists()
