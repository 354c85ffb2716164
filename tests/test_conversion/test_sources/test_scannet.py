"""ScanNet trees as distributed, written here, converted and compared by value."""

import importlib.util
import json
import pickle
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.registry import init_default_scope
from pycocotools.coco import COCO

from mmmask3d.conversion.command_line import build_parser
from mmmask3d.conversion.job import ConversionError, JobOptions, convert
from mmmask3d.conversion.paths import SourceError
from mmmask3d.conversion.sources.scannet import ScanNetConverter
from mmmask3d.conversion.sources.scannet_scenes import in_millimetres
from mmmask3d.engine.run_config import load_config
from mmmask3d.registry import DATASETS

_SPEC = importlib.util.spec_from_file_location(
    'sens_writer', Path(__file__).parents[1] / 'sens_writer.py'
)
writer = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(writer)

ROOT = Path(__file__).parents[3]
# ScanNet id, NYU-40 id, label of the benchmark (see test_scannet_labels.py for the source).
IDS = [(0, 0, 0), (1, 1, 1), (2, 5, 5), (3, 2, 2), (8, 15, 0), (22, 23, 0), (131, 39, 20)]
SPLITS = {
    'train': ['scene0000_00', 'scene0000_01', 'scene0001_00'],
    'val': ['scene0011_00'],
    'test': ['scene0707_00'],
}
JPEG_START = b'\xff\xd8\xff\xc0\0\x11\x08\0\x24\0\x30\3'  # of 48x36, and no more
CATEGORIES = {5: 3, 39: 18}  # of NYU-40 ids: chair, otherfurniture
SIZE = (24, 18)


def png(array):
    done, data = cv2.imencode('.png', array)
    assert done
    return data.tobytes()


def make_labels(seed):
    """(ScanNet ids, numbers of objects) of 24x18 pixels; one object, one id."""
    rng = np.random.default_rng(seed)
    instance = np.zeros(SIZE[::-1], np.uint8)
    ids = np.zeros(SIZE[::-1], np.uint16)
    for number in range(1, 9):
        x, y = int(rng.integers(0, 14)), int(rng.integers(0, 8))
        instance[y : y + 9, x : x + 9] = 30 * number
        ids[y : y + 9, x : x + 9] = IDS[1 + (number + seed) % 6][0]
    return ids, instance


def twice(array):
    """The map at twice the size, as labels have the size of colour."""
    return array.repeat(2, axis=0).repeat(2, axis=1)


def nyu40(ids):
    return np.vectorize({i: n for i, n, _ in IDS}.get, otypes=[np.uint8])(ids)


def label20(ids):
    return np.vectorize({i: b for i, _, b in IDS}.get, otypes=[np.uint8])(ids)


def write_lists(root):
    root.mkdir(parents=True)
    for split, scenes in SPLITS.items():
        (root / f'scannetv2_{split}.txt').write_text(''.join(f'{s}\n' for s in scenes))
    return root


def write_archive(path, kind, maps):
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr(f'{kind}-filt/', b'')
        for number, content in maps.items():
            archive.writestr(f'{kind}-filt/{number}.png', png(twice(content)))


@pytest.fixture(scope='module')
def lists(tmp_path_factory):
    return write_lists(tmp_path_factory.mktemp('lists') / 'Benchmark')


@pytest.fixture(scope='module')
def label_map(tmp_path_factory):
    path = tmp_path_factory.mktemp('map') / 'scannetv2-labels.combined.tsv'
    rows = ['id\traw_category\tcategory\tcount\tnyu40id\teigen13id']
    rows += [f'{i}\tname {i}\tname\t1\t{n}\t1' for i, n, _ in IDS if i]
    path.write_text('\n'.join(rows) + '\n')
    return path


@pytest.fixture
def streams(tmp_path):
    """ScanNet as the download script leaves it; 5 frames a scene."""
    root = tmp_path / 'ScanNet'
    for split, scenes in SPLITS.items():
        for scene in scenes:
            folder = root / ('scans_test' if split == 'test' else 'scans') / scene
            seed = int(scene[5:9]) + int(scene[-2:])
            writer.write_sens(folder / f'{scene}.sens', writer.make_frames(5, seed=seed))
            if split != 'test':
                labels = [make_labels(seed + i) for i in range(5)]
                for kind, place in (('label', 0), ('instance', 1)):
                    write_archive(
                        folder / f'{scene}_2d-{kind}-filt.zip',
                        kind,
                        {i: maps[place] for i, maps in enumerate(labels)},
                    )
    (root / 'scans' / 'scene0000_00' / 'scene0000_00.txt').write_text('axisAlignment = ...\n')
    return root


def joint_ids(ids, instance):
    """As convert_scannet_instance_image.py of ScanNet makes them: numbered within each label."""
    joint, counts = np.zeros(ids.shape, np.uint16), {}
    labels = nyu40(ids)
    for number in np.unique(instance):
        label = int(labels[instance == number][0])
        counts[label] = counts.get(label, 0) + 1
        joint[instance == number] = 1000 * label + counts[label]
    return joint


@pytest.fixture
def frames_25k(tmp_path):
    """`tasks` of the download script, unpacked; the test scenes are an archive of their own."""
    root = tmp_path / 'tasks'
    for split, scenes in SPLITS.items():
        for scene in scenes:
            folder = root / f'scannet_frames_{"test" if split == "test" else "25k"}' / scene
            kinds = ['color', 'depth', 'pose'] + ['label', 'instance'] * (split != 'test')
            for kind in kinds:
                (folder / kind).mkdir(parents=True, exist_ok=True)
            seed = int(scene[5:9]) + int(scene[-2:])
            for i, (image, depth, pose) in enumerate(writer.make_frames(2, seed=seed)):
                name = f'{100 * i:06d}'
                (folder / 'color' / f'{name}.jpg').write_bytes(writer.encode_colour(image))
                (folder / 'depth' / f'{name}.png').write_bytes(png(depth))
                np.savetxt(folder / 'pose' / f'{name}.txt', pose)
                if split != 'test':
                    ids, instance = make_labels(seed + i)
                    (folder / 'label' / f'{name}.png').write_bytes(png(twice(nyu40(ids))))
                    (folder / 'instance' / f'{name}.png').write_bytes(
                        png(twice(joint_ids(ids, instance)))
                    )
            for kind in ('color', 'depth'):
                np.savetxt(folder / f'intrinsics_{kind}.txt', writer.INTRINSIC)
    return root


def make(source, lists, *options):
    arguments = [str(source), 'unused', '--splits', str(lists), *map(str, options)]
    return ScanNetConverter(build_parser(ScanNetConverter).parse_args(arguments))


def read(path, kind=cv2.IMREAD_UNCHANGED):
    image = cv2.imread(str(path), kind)
    assert image is not None, path
    return image


def names_in(path):
    return path.read_text().split()


# -------------------------------------------------------------------- streams


def half(image):
    """What is left of an image: JPEG in the stream, 2 x 2 pixels into one, JPEG again."""
    stored = np.frombuffer(writer.encode_colour(image), np.uint8)
    image = cv2.imdecode(stored, cv2.IMREAD_COLOR)
    area = np.rint(image.reshape(18, 2, 24, 2, 3).mean((1, 3))).astype(np.uint8)
    done, again = cv2.imencode('.jpg', area, [cv2.IMWRITE_JPEG_QUALITY, 95])
    assert done
    return cv2.imdecode(again, cv2.IMREAD_COLOR).astype(int)


def test_streams_by_value(streams, lists, label_map, tmp_path):
    converter = make(streams, lists, '--label-map', label_map, '--every', 2)
    out = tmp_path / 'out'
    manifest = convert(converter, out).manifest
    assert manifest['frames'] == 15
    assert manifest['options'] == {
        'every': 2,
        'unit': None,
        'labels': 'instances',
        'label_map_crc32': manifest['options']['label_map_crc32'],
    }
    for split, scenes in SPLITS.items():
        for scene in scenes:
            seed = int(scene[5:9]) + int(scene[-2:])
            frames = writer.make_frames(5, seed=seed)
            for number in (0, 2, 4):
                name = f'{scene}/{number:06d}'
                image, depth, _ = frames[number]
                np.testing.assert_array_equal(read(out / f'depth/{name}.png'), depth)
                # Half a pixel of shift makes more than 8, other rounding of the averages up to 1.3.
                assert np.abs(read(out / f'rgb/{name}.jpg') - half(image)).mean() < 2
                if split == 'test':
                    assert not (out / f'label20/{name}.png').exists()
                    assert not (out / f'instance/{name}.png').exists()
                    continue
                ids, instance = make_labels(seed + number)
                for kind, expected in (
                    ('label20', label20(ids)),
                    ('label40', nyu40(ids)),
                    ('instance', instance.astype(np.uint16)),
                ):
                    found = read(out / f'{kind}/{name}.png')
                    assert found.dtype == expected.dtype
                    np.testing.assert_array_equal(found, expected)
    records = map(json.loads, (out / 'frames.jsonl').read_text().splitlines())
    extra = next(r for r in records if r['name'] == 'scene0011_00/000002')
    np.testing.assert_array_equal(
        extra['camera_to_world'], np.float32(writer.make_frames(5, seed=11)[2][2])
    )
    assert extra['time_us'] == [66_000, 66_007]


def test_index_files(streams, lists, label_map, tmp_path):
    out = tmp_path / 'out'
    convert(make(streams, lists, '--label-map', label_map, '--every', 4), out)
    for split, scenes in SPLITS.items():
        expected = [f'{scene}/{number:06d}' for scene in scenes for number in (0, 4)]
        assert names_in(out / f'splits/{split}.txt') == expected
    assert len(names_in(out / 'splits/all.txt')) == 10
    low = json.loads((out / 'splits/low_label.json').read_text())
    assert low['seed'] == 0
    assert list(low['scenes']) == [f'train_{p:02d}' for p in (1, 5, 10, 20, 40, 60, 80)]
    for share, scenes in low['scenes'].items():
        assert set(scenes) <= set(SPLITS['train'])
        expected = [f'{scene}/{number:06d}' for scene in scenes for number in (0, 4)]
        assert names_in(out / f'splits/{share}.txt') == expected
        content = json.loads((out / f'annotations/instances_{share}.json').read_text())
        assert [i['file_name'] for i in content['images']] == [f'{n}.jpg' for n in expected]
    cameras = json.loads((out / 'cameras.json').read_text())
    assert set(cameras) == {scene for scenes in SPLITS.values() for scene in scenes}
    assert cameras['scene0000_01']['colour']['size'] == [48, 36]
    assert cameras['scene0000_01']['depth']['size'] == [24, 18]
    np.testing.assert_allclose(
        cameras['scene0000_01']['colour']['intrinsic'], writer.INTRINSIC, rtol=1e-6
    )


def check_coco(out, expected):
    """Boxes, areas and masks of `instances_all.json` against {name: {category: [mask, ...]}}."""
    coco = COCO(str(out / 'annotations/instances_all.json'))
    assert [c['name'] for c in coco.loadCats(coco.getCatIds())][::17] == [
        'cabinet',
        'otherfurniture',
    ]
    assert len(coco.getCatIds()) == 18
    images = {coco.imgs[i]['file_name'].removesuffix('.jpg'): i for i in coco.getImgIds()}
    assert set(images) == set(expected)
    total = 0
    for name, masks in expected.items():
        assert (coco.imgs[images[name]]['width'], coco.imgs[images[name]]['height']) == SIZE
        annotations = coco.loadAnns(coco.getAnnIds([images[name]]))
        found = sorted(
            (a['category_id'], coco.annToMask(a).tobytes(), a['area']) for a in annotations
        )
        wanted = sorted((c, m.astype(np.uint8).tobytes(), int(m.sum())) for c, m in masks)
        assert found == wanted
        for annotation in annotations:
            y, x = np.nonzero(coco.annToMask(annotation))
            box = [x.min(), y.min(), x.max() - x.min() + 1, y.max() - y.min() + 1]
            assert annotation['bbox'] == box
        total += len(annotations)
    assert total > 10


def objects(ids, instance):
    """Masks of 30 pixels and more of the countable classes, as (category, mask)."""
    labels, found = nyu40(ids), []
    for number in np.unique(instance[instance > 0]):
        mask = instance == number
        label = int(labels[mask][0])
        if mask.sum() >= 30 and label in CATEGORIES:
            found.append((CATEGORIES[label], mask))
    return found


def test_instances_of_streams(streams, lists, label_map, tmp_path, capsys):
    out = tmp_path / 'out'
    convert(make(streams, lists, '--label-map', label_map, '--every', 1), out)
    expected = {}
    for scene in [scene for scenes in SPLITS.values() for scene in scenes]:
        for number in range(5):
            seed = int(scene[5:9]) + int(scene[-2:]) + number
            empty = scene in SPLITS['test']
            expected[f'{scene}/{number:06d}'] = [] if empty else objects(*make_labels(seed))
    check_coco(out, expected)


def test_another_depth_scale(lists, tmp_path):
    """Fifths of a millimetre; what 16 bits of millimetres cannot hold is no reading."""
    frames = writer.make_frames(1)
    frames[0][1][0] = 0
    frames[0][1][1, :3] = 65535, 1, 5
    scene = 'scene0000_00'
    writer.write_sens(tmp_path / 'scans' / scene / f'{scene}.sens', frames, shift=5000.0)
    out = tmp_path / 'out'
    convert(make(tmp_path, lists, '--labels', 'none'), out)
    found = read(out / f'depth/{scene}/000000.png')
    np.testing.assert_array_equal(found, np.rint(frames[0][1] / 5))
    assert list(found[1, :3]) == [13107, 0, 1]
    metres = in_millimetres(np.array([[0, 1, 100]], np.uint16), 1.0)
    np.testing.assert_array_equal(metres, [[0, 1000, 0]])


# -------------------------------------------------------------------- scannet_frames_25k


def test_frames_25k_by_value(frames_25k, lists, tmp_path):
    out = tmp_path / 'out'
    manifest = convert(make(frames_25k, lists), out).manifest
    assert manifest['options'] == {
        'every': None,
        'unit': 1000.0,
        'labels': 'instances',
        'label_map_crc32': None,
    }
    expected = {}
    for split, scenes in SPLITS.items():
        for scene in scenes:
            seed = int(scene[5:9]) + int(scene[-2:])
            for i, (_, depth, _) in enumerate(writer.make_frames(2, seed=seed)):
                name = f'{scene}/{100 * i:06d}'
                np.testing.assert_array_equal(read(out / f'depth/{name}.png'), depth)
                if split == 'test':
                    expected[name] = []
                    continue
                ids, instance = make_labels(seed + i)
                np.testing.assert_array_equal(read(out / f'label20/{name}.png'), label20(ids))
                np.testing.assert_array_equal(read(out / f'label40/{name}.png'), nyu40(ids))
                joint = joint_ids(ids, instance)
                joint[joint < 1000] = 0
                np.testing.assert_array_equal(read(out / f'instance/{name}.png'), joint)
                expected[name] = objects(ids, instance)
    check_coco(out, expected)
    assert names_in(out / 'splits/val.txt') == ['scene0011_00/000000', 'scene0011_00/000100']
    cameras = json.loads((out / 'cameras.json').read_text())
    assert cameras['scene0707_00'] == {
        'colour': {'size': [48, 36], 'intrinsic': np.asarray(writer.INTRINSIC, float).tolist()},
        'depth': {'size': [24, 18], 'intrinsic': np.asarray(writer.INTRINSIC, float).tolist()},
    }


def test_frames_in_another_unit(frames_25k, lists, tmp_path):
    """Output is in millimetres whatever the input; no value is larger than it was."""
    converter = make(frames_25k, lists, '--unit', 5000, '--labels', 'none')
    convert(converter, tmp_path / 'out')
    for scene in SPLITS['train']:
        name = f'depth/{scene}/000000.png'
        stored = read(frames_25k / f'scannet_frames_25k/{scene}/depth/000000.png')
        np.testing.assert_array_equal(read(tmp_path / 'out' / name), np.rint(stored / 5))
    assert converter.options()['unit'] == 5000


def test_one_folder_of_scenes(frames_25k, lists, tmp_path):
    converter = make(frames_25k / 'scannet_frames_25k', lists)
    assert [s.name for s in converter.sources()] == SPLITS['train'] + SPLITS['val']


def config_dataset(config, root, **change):
    """The training data of a config."""
    cfg = load_config(ROOT / 'configs' / config)
    init_default_scope(cfg.default_scope)
    return DATASETS.build(cfg.train_dataloader.dataset | dict(data_root=str(root), **change))


def test_the_configs_read_it(frames_25k, lists, tmp_path):
    pytest.importorskip('mmdet')
    out = tmp_path / 'out'
    convert(make(frames_25k, lists), out)
    config = 'segmentation/mask3d-base_upernet_scannet-20-240x320.py'
    load = [dict(type='LoadImageFromFile'), dict(type='mmmask3d.LoadSegLabels')]
    data = config_dataset(config, out, pipeline=load)
    assert len(data) == 6
    assert data.metainfo['classes'][19] == 'otherfurniture'
    expected = label20(make_labels(0)[0]).astype(int) - 1
    expected[expected < 0] = 255
    np.testing.assert_array_equal(data[0]['gt_seg_map'], expected)
    config = 'detection/mask3d-base_mask-rcnn_scannet-18-240x320.py'
    data = config_dataset(config, out, pipeline=[], filter_cfg=None)
    names = data.metainfo['classes']
    found = [(names[i['bbox_label']], i['bbox']) for i in data[0]['instances']]
    expected = [({3: 'chair', 18: 'otherfurniture'}[c], m) for c, m in objects(*make_labels(0))]
    assert [name for name, _ in sorted(found)] == sorted(name for name, _ in expected)
    assert len(found) > 0
    assert data[0]['img_path'] == f'{out}/rgb/scene0000_00/000000.jpg'
    config = 'mask3d/mask3d_vit-base_8xb64-amp-100e_scannet-240x320.py'
    data = config_dataset(config, out, pipeline=[dict(type='mmmask3d.LoadRGBD')])
    assert len(data) == 6
    millimetres = writer.make_frames(2, seed=0)[0][1]
    np.testing.assert_allclose(data[0]['depth'], millimetres / 1000, rtol=1e-6)
    np.testing.assert_array_equal(data[0]['valid'], millimetres > 0)


def damaged_frames(frames_25k, scene='scene0000_00'):
    folder = frames_25k / 'scannet_frames_25k' / scene
    label, joint = folder / 'label/000000.png', folder / 'instance/000000.png'
    return {
        'has the label 41': (label, png(np.full((36, 48), 41, np.uint8))),
        'of 8 bits, found grey of 16': (label, png(np.ones((36, 48), np.uint16))),
        'of 16 bits, found RGB of 8': (joint, png(np.ones((36, 48, 3), np.uint8))),
        '41000|has the label 41': (joint, png(np.full((36, 48), 41_000, np.uint16))),
        'truncated JPEG': (folder / 'color/000000.jpg', JPEG_START),
        'of 16 bits, found grey of 8': (
            folder / 'depth/000000.png', png(np.ones((18, 24), np.uint8)),
        ),
        'would be distorted': (folder / 'label/000000.png', png(np.ones((36, 36), np.uint8))),
        '12 numbers, expected 16': (folder / 'pose/000000.txt', b'1 0 0 0\n' * 3),
        'read as a matrix': (folder / 'pose/000000.txt', b'1 0 0 x\n' * 4),
        'intrinsics_depth.txt: 1 numbers': (folder / 'intrinsics_depth.txt', b'5'),
        'expected a number as the name': (folder / 'depth/Copy of 000000.png', b''),
        'the same number as 0': (folder / 'depth/0.png', png(np.ones((18, 24), np.uint16))),
        'not in instance': (folder / 'label/000777.png', b''),
    }  # fmt: skip


@pytest.mark.parametrize('message', damaged_frames(Path()))
def test_damaged_frames_are_named(frames_25k, lists, tmp_path, message):
    path, content = damaged_frames(frames_25k)[message]
    path.write_bytes(content)
    if message == 'the same number as 0':
        for kind, suffix in (('color', '.jpg'), ('label', '.png'), ('instance', '.png')):
            whole = path.parents[1] / kind / f'000000{suffix}'
            whole.with_stem('0').write_bytes(whole.read_bytes())
    if message == 'not in instance':
        for kind, suffix in (('color', '.jpg'), ('depth', '.png')):
            (path.parents[1] / kind / f'000777{suffix}').write_bytes(b'')
    out = tmp_path / 'out'
    with pytest.raises(ConversionError, match=message) as error:
        convert(make(frames_25k, lists), out)
    assert 'scene0000_00' in str(error.value)
    assert not (out / 'manifest.json').exists()
    result = convert(make(frames_25k, lists), out, JobOptions(on_error='drop'))
    assert result.manifest['frames'] in (9, 10)
    assert len(result.manifest['left_out']) >= 1


# -------------------------------------------------------------------- damaged streams and archives


def test_a_truncated_stream_keeps_its_frames(streams, lists, label_map, tmp_path):
    path = streams / 'scans/scene0000_01/scene0000_01.sens'
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    converter = make(streams, lists, '--label-map', label_map, '--every', 1)
    plans = {scene.name: converter.plan(scene) for scene in converter.sources()}
    assert len(plans['scene0000_00'].frames) == 5
    assert not plans['scene0000_00'].problems
    assert 0 < len(plans['scene0000_01'].frames) < 5
    (problem,) = plans['scene0000_01'].problems
    assert problem.startswith(f'{path}: frame {len(plans["scene0000_01"].frames)} of 5 at byte')
    out = tmp_path / 'out'
    with pytest.raises(ConversionError, match=r'scene0000_01\.sens: frame'):
        convert(converter, out)
    path.write_bytes(content)  # copied again, the same call goes on
    result = convert(make(streams, lists, '--label-map', label_map, '--every', 1), out)
    assert result.manifest['frames'] == 25
    assert result.made == 25 - 20 - len(plans['scene0000_01'].frames)


def rewrite(path, change):
    with zipfile.ZipFile(path) as archive:
        members = {i.filename: archive.read(i) for i in archive.infolist()}
    change(members)
    with zipfile.ZipFile(path, 'w') as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def other_label(members):
    members['label-filt/0.png'] = png(np.full((36, 48), 9999, np.uint16))


def other_size(members):
    members['label-filt/0.png'] = png(np.ones((18, 24), np.uint16))


def no_image(members):
    members['label-filt/0.png'] = b'<html>404</html>'


DAMAGED_ARCHIVES = {
    'frame scene0000_00/000000: .*label-filt/0.png: not in': lambda m: m.pop('label-filt/0.png'),
    'ids 9999 are not in the label map': other_label,
    '48x36 pixels, its labels have 24x18': other_size,
    'expected a PNG image, found the format HTML page': no_image,
}


@pytest.mark.parametrize('message', DAMAGED_ARCHIVES)
def test_damaged_archives_are_named(streams, lists, label_map, tmp_path, message):
    path = streams / 'scans/scene0000_00/scene0000_00_2d-label-filt.zip'
    rewrite(path, DAMAGED_ARCHIVES[message])
    with pytest.raises(ConversionError, match=message):
        convert(make(streams, lists, '--label-map', label_map, '--every', 4), tmp_path / 'out')
    assert not list(tmp_path.glob('*.png'))


# -------------------------------------------------------------------- options


def test_what_is_missing_is_said_at_once(streams, frames_25k, lists, label_map, tmp_path):
    with pytest.raises(SourceError, match='give it with --label-map'):
        make(streams, lists)
    with pytest.raises(SourceError, match='Tasks/Benchmark'):
        make(streams, tmp_path)
    with pytest.raises(SourceError, match='absent does not exist'):
        make(tmp_path / 'absent', lists)
    with pytest.raises(SourceError, match='folders named like this one'):
        make(tmp_path, lists)
    archive = streams / 'scans/scene0011_00/scene0011_00_2d-instance-filt.zip'
    archive.unlink()
    with pytest.raises(SourceError, match=r'instance-filt\.zip does not exist \(1 such'):
        make(streams, lists, '--label-map', label_map)
    converter = make(streams, lists, '--label-map', label_map, '--labels', 'semantic')
    assert set(converter.suffixes) == {'rgb', 'depth', 'label20', 'label40'}
    assert not converter.categories
    (streams / 'scans/scene0011_00/scene0011_00.sens').unlink()
    converter = make(streams, lists, '--labels', 'none')
    with pytest.raises(ConversionError, match=r'scene0011_00\.sens'):
        convert(converter, tmp_path / 'out')


def test_unlisted_scenes(streams, lists, label_map, tmp_path):
    old = streams / 'scans/scene0000_01'
    new = old.with_name('scene0999_00')
    old.rename(new)
    for path in list(new.iterdir()):
        path.rename(new / path.name.replace('scene0000_01', 'scene0999_00'))
    options = ['--label-map', label_map]
    with pytest.raises(SourceError, match=r'1 of 5 scenes are in none.*scene0999_00'):
        make(streams, lists, *options)
    skipped = make(streams, lists, *options, '--unlisted', 'skip')
    assert len(skipped.sources()) == 4
    out = tmp_path / 'out'
    convert(make(streams, lists, *options, '--unlisted', 'keep'), out)
    assert 'scene0999_00/000000' in names_in(out / 'splits/all.txt')
    assert 'scene0999_00/000000' not in names_in(out / 'splits/train.txt')
    assert (out / 'label20/scene0999_00/000000.png').exists()


def test_given_lists(frames_25k, lists, tmp_path):
    five, twenty = tmp_path / 'scannetv2_train_5.txt', tmp_path / 'scannetv2_train_20.txt'
    five.write_text('scene0001_00\n')
    twenty.write_text('scene0001_00\nscene0000_01\n')
    out = tmp_path / 'out'
    convert(make(frames_25k, lists), out)
    # Lists need no frame to be converted again.
    result = convert(
        make(frames_25k, lists, '--low-label-seed', 3, '--scene-lists', five, twenty), out
    )
    assert result.made == 0
    assert names_in(out / 'splits/scannetv2_train_5.txt') == [
        'scene0001_00/000000',
        'scene0001_00/000100',
    ]
    assert len(names_in(out / 'splits/scannetv2_train_20.txt')) == 4
    assert (out / 'annotations/instances_scannetv2_train_20.json').exists()
    low = json.loads((out / 'splits/low_label.json').read_text())
    assert low['seed'] == 3
    for share, scenes in low['scenes'].items():
        assert {n.partition('/')[0] for n in names_in(out / f'splits/{share}.txt')} == set(scenes)


def test_the_converter_goes_to_workers(streams, lists, label_map):
    converter = make(streams, lists, '--label-map', label_map)
    again = pickle.loads(pickle.dumps(converter))
    scene = again.sources()[0]
    plan = again.plan(scene)
    with again.open(scene) as opened:
        frame = again.read(opened, pickle.loads(pickle.dumps(plan.frames[0].locator)))
    assert set(frame.images) == {'rgb', 'depth', 'label20', 'label40', 'instance'}
