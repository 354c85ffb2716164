"""NYU Depth v2: what the labelled .mat holds arrives by value; damage is named."""

import argparse
import json
import shutil
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
import scipy.io

from mmmask3d.conversion.command_line import build_parser, run
from mmmask3d.conversion.formats import mat73 as mat73_module
from mmmask3d.conversion.options import above_zero
from mmmask3d.conversion.paths import SourceError
from mmmask3d.conversion.sources import nyuv2
from mmmask3d.conversion.sources.nyuv2 import NYUv2Converter, number_instances
from mmmask3d.conversion.sources.nyuv2_classes import RAW_TO_NYU40

# The masking of a base alone: elsewhere its patches are the encoder's.
PATCHES = {'model.backbone.patch_size': 16}
ROOT = Path(__file__).parents[3]
# In an order of their own, as the official ids have nothing to do with the 40 classes.
NAMES = sorted(RAW_TO_NYU40)
RAW = {name: i for i, name in enumerate(NAMES, 1)}
HEIGHT, WIDTH = 12, 16
COUNT = 7
SPLIT = {'trainNdxs': [3, 4, 7], 'testNdxs': [1, 2, 5, 6]}
# Raw name, NYU-40 id, NYU-13 id, as published.
LABELLED = [('wall', 1, 12), ('chair', 5, 4), ('monitor', 40, 7), ('air vent', 38, 7)]


def make_frames(count=COUNT, height=HEIGHT, width=WIDTH, seed=0):
    """The arrays as MATLAB has them: (height, width[, 3], frame)."""
    rng = np.random.default_rng(seed)
    shape = (height, width, count)
    filled = rng.uniform(0.8, 9.9, shape).astype(np.float32)
    raw = np.where(rng.random(shape) < 0.2, 0, filled).astype(np.float32)
    labels = np.zeros(shape, np.uint16)
    instances = np.zeros(shape, np.uint8)
    # Rows of four: a wall, two chairs, a monitor and an air vent, the last rows unlabelled.
    labels[0:4], instances[0:4] = RAW['wall'], 1
    labels[4:8], instances[4:8, : width // 2], instances[4:8, width // 2 :] = RAW['chair'], 1, 2
    labels[8:10, : width // 2], instances[8:10, : width // 2] = RAW['monitor'], 1
    labels[8:10, width // 2 :], instances[8:10, width // 2 :] = RAW['air vent'], 1
    # Red rises downwards, green to the right, blue from frame to frame.
    axes = np.meshgrid(*(np.linspace(20, 230, n) for n in (height, width, count)), indexing='ij')
    images = np.stack(axes, axis=2) + rng.uniform(-5, 5, (height, width, 3, count))
    return {
        'images': images.astype(np.uint8),
        'rawDepths': raw,
        'depths': filled,
        'labels': labels,
        'instances': instances,
    }


def write_labelled(folder, mat73, arrays, names=NAMES, split=SPLIT, change=lambda file: None):
    """The two files as distributed; the arrays compressed in chunks of several frames."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / nyuv2.LABELLED
    kinds = {'rawDepths': 'single', 'depths': 'single', 'labels': 'uint16'}
    with mat73(path) as file:
        for name, array in arrays.items():
            stored = array.T.shape
            chunk = (min(2, stored[0]), *stored[1:])
            options = dict(chunks=chunk, compression='gzip', compression_opts=3)
            file.array(name, array, kinds.get(name, 'uint8'), **options)
        file.references('names', [file.text(n) for n in names], False, 'cell')
        change(file.file)
    write_splits(folder / nyuv2.SPLITS, split)
    return path


def write_splits(path, split):
    scipy.io.savemat(path, {k: np.array(v, np.uint16)[:, None] for k, v in split.items()})


def converter(source, *options):
    args = build_parser(NYUv2Converter).parse_args([str(source), 'unused', *options])
    return NYUv2Converter(args)


def read_all(source, *options):
    """All frames, without the machinery around."""
    made = converter(source, *options)
    (only,) = made.sources()
    plan = made.plan(only)
    with made.open(only) as opened:
        return [made.read(opened, ref.locator) for ref in plan.frames]


@pytest.fixture(scope='module')
def arrays():
    frames = make_frames()
    # What is no reading: not a number, infinite, negative, and the 10 m of the toolbox's limit.
    frames['rawDepths'][0, :6, 0] = [np.nan, np.inf, -np.inf, -1, 10, 9.9996]
    frames['rawDepths'][1, :3, 0] = [0.0004, 0.0006, 1.2344]
    return frames


@pytest.fixture(scope='module')
def source(tmp_path_factory, mat73, arrays):
    """The data set as distributed; not to be changed."""
    folder = tmp_path_factory.mktemp('nyuv2')
    write_labelled(folder, mat73, arrays)
    return folder


@pytest.fixture(scope='module')
def converted(source, tmp_path_factory):
    out = tmp_path_factory.mktemp('out') / 'nyuv2'
    assert run(NYUv2Converter, [str(source), str(out), '--rgb', 'png', '--workers', '1']) == 0
    return out


def load(root, name):
    image = cv2.imread(str(root / name), cv2.IMREAD_UNCHANGED)
    assert image is not None, name
    return image


# -------------------------------------------------------------------- by value


@pytest.mark.parametrize('number', range(1, COUNT + 1))
def test_every_pixel_arrives(converted, arrays, number):
    name, at = f'{number:04d}.png', number - 1
    rgb = load(converted, f'rgb/{name}')[..., ::-1]
    np.testing.assert_array_equal(rgb, arrays['images'][..., at])
    metres = arrays['rawDepths'][..., at].astype(np.float64)
    with np.errstate(invalid='ignore'):
        reading = np.isfinite(metres) & (metres > 0) & (metres < 10)
    stored = np.round(np.where(reading, metres, 0) * 1000)
    depth = load(converted, f'depth/{name}')
    assert depth.dtype == np.uint16
    np.testing.assert_array_equal(depth, stored)
    filled = np.round(arrays['depths'][..., at].astype(np.float64) * 1000)
    np.testing.assert_array_equal(load(converted, f'depth_filled/{name}'), filled)
    for folder, column in (('label40', 1), ('label13', 2)):
        expected = np.zeros((HEIGHT, WIDTH), np.uint8)
        for row in LABELLED:
            expected[arrays['labels'][..., at] == RAW[row[0]]] = row[column]
        label = load(converted, f'{folder}/{name}')
        assert label.dtype == np.uint8
        np.testing.assert_array_equal(label, expected)


def test_what_is_no_reading_is_zero(converted):
    depth = load(converted, 'depth/0001.png')
    # 10 m is where the toolbox cuts off; 9.9996 m is a reading, of 10000 mm when rounded.
    assert depth[0, :6].tolist() == [0, 0, 0, 0, 0, 10000]
    assert depth[1, :3].tolist() == [0, 1, 1234]  # less than half a millimetre is not 0 mm


def test_instances(converted):
    """Ids follow the raw label, then the number; the walls keep theirs, without annotation."""
    order = sorted([(RAW['wall'], 1), (RAW['chair'], 1), (RAW['chair'], 2)])
    order = sorted([*order, (RAW['monitor'], 1), (RAW['air vent'], 1)])
    ids = {pair: i for i, pair in enumerate(order, 1)}
    expected = np.zeros((HEIGHT, WIDTH), np.uint16)
    half = WIDTH // 2
    expected[:4] = ids[RAW['wall'], 1]
    expected[4:8, :half], expected[4:8, half:] = ids[RAW['chair'], 1], ids[RAW['chair'], 2]
    expected[8:10, :half], expected[8:10, half:] = ids[RAW['monitor'], 1], ids[RAW['air vent'], 1]
    np.testing.assert_array_equal(load(converted, 'instance/0003.png'), expected)
    content = json.loads((converted / 'annotations/instances_train.json').read_text())
    assert [i['file_name'] for i in content['images']] == ['0003.png', '0004.png', '0007.png']
    # 32 pixels each; the monitor and the vent have 16, fewer than are annotated.
    assert [(a['category_id'], a['bbox'], a['area']) for a in content['annotations'][:2]] == [
        (5, [0, 4, half, 4], 32),
        (5, [half, 4, half, 4], 32),
    ]
    assert len(content['annotations']) == 2 * 3
    assert len(content['categories']) == 37


def test_splits_are_the_official_ones(converted):
    lists = {p.stem: p.read_text().split() for p in (converted / 'splits').iterdir()}
    assert lists == {
        'all': [f'{i:04d}' for i in range(1, COUNT + 1)],
        'train': ['0003', '0004', '0007'],
        'test': ['0001', '0002', '0005', '0006'],
    }


def test_colour_is_jpeg_by_default(source, arrays, tmp_path):
    out = tmp_path / 'out'
    assert run(NYUv2Converter, [str(source), str(out), '--limit', '2', '--workers', '1']) == 0
    assert sorted(p.name for p in (out / 'rgb').iterdir()) == ['0001.jpg', '0002.jpg']
    decoded = load(out, 'rgb/0001.jpg')[..., ::-1].astype(float)
    # Exchanged channels or axes would be off by more than 50.
    assert np.abs(decoded - arrays['images'][..., 0]).mean() < 6
    manifest = json.loads((out / 'manifest.json').read_text())
    assert manifest['suffixes']['rgb'] == '.jpg'


@pytest.mark.parametrize(
    ('which', 'expected'),
    [
        ('nyu40', {'chair': 5, 'monitor': 40, 'air vent': 38}),
        ('gupta19', {'chair': 5, 'monitor': 12}),
        ('nyu13', {'chair': 4}),
    ],
)
def test_choice_of_categories(source, which, expected):
    frame = read_all(source, '--categories', which)[0]
    found = {}
    for raw in ('wall', 'chair', 'monitor', 'air vent'):
        at = {'wall': (0, 0), 'chair': (4, 0), 'monitor': (8, 0), 'air vent': (8, WIDTH - 1)}[raw]
        category = frame.categories.get(int(frame.images['instance'][at]))
        if category is not None:
            found[raw] = category
    assert found == expected


def test_numbering_of_instances():
    """A number without a label, or a label without a number, is no instance."""
    labels = np.array([[0, 0, 300, 300, 300, 7]])
    numbers = np.array([[0, 5, 0, 255, 1, 1]], np.uint8)
    category = np.zeros(301, np.int64)
    category[300] = 9
    instance, categories = number_instances(labels, numbers, category)
    assert instance.tolist() == [[0, 0, 0, 3, 2, 1]]
    assert categories == {2: 9, 3: 9}


def test_crop_border(mat73, tmp_path):
    """Rows 45:471 and columns 41:601 of MATLAB, first and last included."""
    frames = make_frames(1, 480, 640)
    write_labelled(tmp_path, mat73, frames, split={'trainNdxs': [1], 'testNdxs': []})
    (frame,) = read_all(tmp_path, '--crop-border')
    assert {kind: image.shape[:2] for kind, image in frame.images.items()} == dict.fromkeys(
        ('rgb', 'depth', 'depth_filled', 'label40', 'label13', 'instance'), (427, 561)
    )
    rgb = frame.images['rgb'][..., ::-1]
    assert rgb[0, 0].tolist() == frames['images'][45 - 1, 41 - 1, :, 0].tolist()
    assert rgb[-1, -1].tolist() == frames['images'][471 - 1, 601 - 1, :, 0].tolist()
    metres = frames['depths'][44:471, 40:601, 0].astype(np.float64)
    np.testing.assert_array_equal(frame.images['depth_filled'], np.round(1000 * metres))


def test_crop_border_needs_the_full_size(source):
    with pytest.raises(SourceError, match=r'frames of 16x12, but --crop-border'):
        read_all(source, '--crop-border')


def test_max_depth(source, arrays):
    frames = read_all(source, '--max-depth', '3')
    raw = arrays['rawDepths'].transpose(2, 0, 1).astype(np.float64)
    with np.errstate(invalid='ignore'):
        expected = np.where((raw > 0) & (raw < 3), np.round(raw * 1000), 0)
    np.testing.assert_array_equal(np.stack([f.images['depth'] for f in frames]), expected)
    for wrong in ('0', '-1', 'nan', 'inf'):
        with pytest.raises(argparse.ArgumentTypeError, match='expected a number above 0'):
            above_zero(wrong)


def test_frames_are_read_one_at_a_time(source, monkeypatch):
    sizes = []

    def counted(dataset, part, where):
        array = mat73_module.read_part(dataset, part, where)
        if dataset.dtype.kind in 'uf':  # not the names
            sizes.append(array.size)
        return array

    monkeypatch.setattr(nyuv2, 'read_part', counted)
    read_all(source)
    assert len(sizes) == 5 * COUNT
    assert max(sizes) == 3 * HEIGHT * WIDTH


# -------------------------------------------------------------------- read by the configs


def test_the_configs_read_what_is_written(source, tmp_path):
    pytest.importorskip('mmseg')
    pytest.importorskip('mmdet')
    from mmengine.registry import init_default_scope

    from mmmask3d.engine.run_config import load_config
    from mmmask3d.registry import DATASETS

    out = tmp_path / 'nyuv2'
    assert run(NYUv2Converter, [str(source), str(out), '--workers', '1']) == 0
    folder = ROOT / 'configs/_base_/datasets'
    for name, scope, part, count in [
        ('nyuv2_pretrain', 'mmmask3d', 'train', 3),
        ('nyuv2_pretrain', 'mmmask3d', 'val', 4),
        ('nyuv2_13_seg', 'mmseg', 'train', 3),
        ('nyuv2_40_seg', 'mmseg', 'val', 4),
        ('nyuv2_40_det', 'mmdet', 'train', 3),
        ('nyuv2_40_det', 'mmdet', 'val', 4),
    ]:
        init_default_scope(scope)
        dataset = load_config(folder / f'{name}.py', cfg_options=PATCHES)[
            f'{part}_dataloader'
        ].dataset
        dataset.data_root = str(out)
        if scope == 'mmdet' and part == 'train':
            dataset.filter_cfg.min_size = 1  # frames of 12 rows
        built = DATASETS.build(dataset)
        assert len(built) == count, name
        sample = built[0]
        if name == 'nyuv2_40_seg':
            labels = sample['data_samples'].gt_sem_seg.data.numpy()[0]
            np.testing.assert_array_equal(labels[:4], 0)  # wall, 1 as stored
            np.testing.assert_array_equal(labels[10:], 255)
        if scope == 'mmdet':
            assert built.metainfo['classes'][0] == 'cabinet'
            assert len(built.metainfo['classes']) == 37
            assert [
                built.metainfo['classes'][i['bbox_label']]
                for i in built.get_data_info(0)['instances']
            ] == ['chair', 'chair']


# -------------------------------------------------------------------- damage


def test_damaged_frame_is_named_and_the_others_are_kept(mat73, tmp_path, capsys):
    frames = make_frames(4)
    frames['rawDepths'][..., 1] = 0
    frames['labels'][0, 0, 2] = 895
    write_labelled(tmp_path, mat73, frames, split={'trainNdxs': [1, 2], 'testNdxs': [3, 4]})
    out = tmp_path / 'out'
    arguments = [str(tmp_path), str(out), '--workers', '1']
    assert run(NYUv2Converter, arguments) == 1
    errors = capsys.readouterr().err
    assert 'frame 0002: 0002: depth has no reading in the whole frame' in errors
    assert 'frame 3: the label 895 stands for none of the 894 classes' in errors
    assert '2 of 4 frames found are converted' in errors
    assert not (out / 'manifest.json').exists()
    assert run(NYUv2Converter, [*arguments, '--on-error', 'drop']) == 0
    assert (out / 'splits/all.txt').read_text().split() == ['0001', '0004']


def without(name):
    return lambda file: file.__delitem__(name)


def replaced(name, **options):
    def change(file):
        del file[name]
        file.create_dataset(name, **options)

    return change


FEW = (COUNT, WIDTH, HEIGHT)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        *[(without(n), f'{n} is missing, found ') for n in ('images', 'labels', 'names')],
        (
            replaced('images', shape=(COUNT, WIDTH, HEIGHT, 3), dtype='u1'),
            'images is declared as uint8 7x16x12x3 .* expected 7x3x16x12',
        ),
        (replaced('rawDepths', shape=FEW, dtype='u2'), 'rawDepths is declared as uint16'),
        (replaced('rawDepths', shape=(COUNT, HEIGHT, WIDTH), dtype='f4'), '7x12x16 .* 7x16x12'),
        (replaced('names', shape=(1, 894), dtype='u2'), 'names is declared as uint16'),
        (replaced('names', shape=(1, 893), dtype=h5py.ref_dtype), '893 entries, expected the 894'),
        (replaced('names', shape=(1, 894), dtype=h5py.ref_dtype), 'entry 1: it cannot be read'),
    ],
)
def test_file_that_is_not_the_data_set(mat73, source, tmp_path, change, message):
    shutil.copytree(source, tmp_path / 'copy')
    with h5py.File(tmp_path / 'copy' / nyuv2.LABELLED, 'r+') as file:
        change(file)
    with pytest.raises(SourceError, match=rf'labeled\.mat: .*{message}'):
        read_all(tmp_path / 'copy')


def test_unknown_class_names(mat73, tmp_path):
    names = [*NAMES[:-2], 'qubit', 'flux']
    write_labelled(tmp_path, mat73, make_frames(1), names)
    with pytest.raises(SourceError, match=r"2 of its .*\['qubit', 'flux'\].*as distributed"):
        read_all(tmp_path)


def test_the_name_with_two_blanks_is_known(mat73, tmp_path):
    names = ['door window  reflection' if n == 'door window reflection' else n for n in NAMES]
    assert names != NAMES
    write_labelled(tmp_path, mat73, make_frames(), names)
    assert len(read_all(tmp_path)) == COUNT


@pytest.mark.parametrize(
    ('split', 'message'),
    [
        ({'trainNdxs': [1, 2], 'testNdxs': [2, 3]}, 'frame 2 is listed in trainNdxs and testNdxs'),
        (
            {'trainNdxs': [0, 1], 'testNdxs': [3]},
            r'trainNdxs holds \[0\], expected whole numbers from 1 to 7',
        ),
        ({'trainNdxs': [1], 'testNdxs': [8]}, r'testNdxs holds \[8\], expected'),
        ({'trainNdxs': [1]}, 'lacks the variable testNdxs, found trainNdxs'),
    ],
)
def test_splits_that_cannot_be(source, tmp_path, split, message):
    write_splits(tmp_path / 'mine.mat', split)
    with pytest.raises(SourceError, match=rf'mine\.mat: {message}'):
        read_all(source, '--splits', str(tmp_path / 'mine.mat'))


def test_missing_files_say_where_to_get_them(tmp_path, source, capsys):
    assert run(NYUv2Converter, [str(tmp_path), str(tmp_path / 'out')]) == 1
    assert 'nyu_depth_v2_labeled.mat does not exist' in capsys.readouterr().err
    shutil.copy(source / nyuv2.LABELLED, tmp_path)
    out = str(tmp_path / 'out')
    assert run(NYUv2Converter, [str(tmp_path), out, '--workers', '1']) == 1
    assert 'splits.mat does not exist, expected the official split' in capsys.readouterr().err
