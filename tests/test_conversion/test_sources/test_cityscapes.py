"""Cityscapes: metric depth, and labels as mmseg and mmdet read them."""

import json
import re
from argparse import Namespace
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.registry import init_default_scope

from mmmask3d.conversion.command_line import run
from mmmask3d.conversion.paths import SourceError
from mmmask3d.conversion.sources.cityscapes import (
    CLASSES,
    THINGS,
    CityscapesConverter,
    depth_from_disparity,
    read_camera,
)
from mmmask3d.datasets import LoadRGBD, RGBDDataset
from mmmask3d.datasets.depth_io import FrameError
from mmmask3d.engine.run_config import load_config

ROOT = Path(__file__).parents[3]
BASELINE, FX = 0.209313, 2262.52
CAMERA = {
    'extrinsic': {'baseline': BASELINE, 'pitch': 0.038, 'roll': 0.0, 'x': 1.7, 'y': 0.1, 'z': 1.22},
    'intrinsic': {'fx': FX, 'fy': 2265.3017905988554, 'u0': 1096.98, 'v0': 513.137},
}
HEIGHT, WIDTH = 34, 64
FRAMES = {
    'train': ['aachen/aachen_000000_000019', 'bochum/bochum_000000_000313'],
    'val': ['frankfurt/frankfurt_000000_000294'],
    'test': ['berlin/berlin_000000_000019'],
    'train_extra': ['nuremberg/nuremberg_000000_000000'],
}


def content(name):
    """Colour, disparity, label ids and instance ids of a frame, by its name."""
    rng = np.random.default_rng(list(name.encode()))
    colour = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    disparity = rng.integers(2, 32258, (HEIGHT, WIDTH), dtype=np.uint16)
    disparity[:, :3] = 0, 1, 2
    # Row r has the label r: all 34 of them.
    ids = np.repeat(np.arange(HEIGHT, dtype=np.uint8)[:, None], WIDTH, axis=1)
    instance = ids.astype(np.uint16)
    # Things: two instances and a group in each row; one of them a single pixel.
    instance[24:, :20] = 1000 * instance[24:, :20]
    instance[24:, 20] = instance[24:, 0] + 1
    ids[24:, 40:] = 7
    instance[24:, 40:] = 7
    return colour, disparity, ids, instance


def write_tree(root):
    def save(folder, split, stem, ending, array):
        path = root / folder / split / f'{stem}{ending}'
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), array)

    for split, stems in FRAMES.items():
        for stem in stems:
            colour, disparity, ids, instance = content(stem)
            save('leftImg8bit', split, stem, '_leftImg8bit.png', colour)
            save('disparity', split, stem, '_disparity.png', disparity)
            camera = root / 'camera' / split / f'{stem}_camera.json'
            camera.parent.mkdir(parents=True, exist_ok=True)
            camera.write_text(json.dumps(CAMERA, indent=4))
            if split == 'test':  # borders only are public
                ids[4:], instance[4:] = 0, 0
            if split == 'train_extra':
                save('gtCoarse', split, stem, '_gtCoarse_labelIds.png', ids)
                continue
            save('gtFine', split, stem, '_gtFine_labelIds.png', ids)
            save('gtFine', split, stem, '_gtFine_instanceIds.png', instance)
            save('gtFine', split, stem, '_gtFine_color.png', colour)
            polygons = root / 'gtFine' / split / f'{stem}_gtFine_polygons.json'
            polygons.write_text('{}')
    return root


@pytest.fixture(scope='module')
def converted(tmp_path_factory):
    """(source, output) of a whole conversion; not to be changed."""
    folder = tmp_path_factory.mktemp('cityscapes')
    write_tree(folder / 'source')
    arguments = [str(folder / 'source'), str(folder / 'out'), '--workers=1']
    assert run(CityscapesConverter, arguments) == 0
    return folder / 'source', folder / 'out'


def converter(root, **options):
    defaults = dict(labels=True, splits=[])
    return CityscapesConverter(Namespace(source=Path(root), **defaults | options))


def test_names_and_links_of_other_systems(tmp_path):
    root = write_tree(tmp_path / 'source')
    plain = converter(root)
    city = plain.sources()[0]
    assert city == 'train/aachen'
    ref = plain.plan(city).frames[0]
    expected = plain.read(city, ref.locator)
    for package in ('leftImg8bit', 'disparity', 'camera', 'gtFine'):
        folder = root / package / city
        for path in sorted(folder.iterdir()):
            (folder / f'._{path.name}').write_bytes(b'of a Mac')
            path.rename(path.with_suffix(path.suffix.upper()))
    (root / 'leftImg8bit/train/again').symlink_to('aachen')
    changed = converter(root)
    assert changed.sources() == plain.sources()
    plan = changed.plan(city)
    assert plan.problems == []
    assert plan.frames[0] == ref
    frame = changed.read(city, ref.locator)
    assert frame.images.keys() == expected.images.keys()
    for kind in ('depth', 'label', 'instance'):
        np.testing.assert_array_equal(frame.images[kind], expected.images[kind])


def read_first(root, split='train', **options):
    reader = converter(root, splits=[split], **options)
    source = reader.sources()[0]
    return reader.read(source, reader.plan(source).frames[0].locator)


# ---------------------------------------------------------------- the table of labels

# id of each train id, typed once more from the published labels.py.
IDS = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]


def test_classes_are_the_published_ones_in_the_order_of_mmseg_and_mmdet():
    mmseg = pytest.importorskip('mmseg.datasets')
    assert list(CLASSES) == IDS
    assert tuple(CLASSES.values()) == mmseg.CityscapesDataset.METAINFO['classes']
    mmdet = pytest.importorskip('mmdet.datasets')
    assert list(THINGS) == IDS[-8:]
    assert tuple(THINGS.values()) == mmdet.CityscapesDataset.METAINFO['classes']


# ---------------------------------------------------------------- depth


def test_disparity_to_metres():
    stored = np.array([[0, 1, 2, 257, 32257, 65535]], np.uint16)
    depth, valid = depth_from_disparity(stored, 0.2, 2000.0)
    np.testing.assert_array_equal(valid, [[False, False, True, True, True, True]])
    np.testing.assert_allclose(
        depth, [[0, 0, 400 * 256, 400, 400 / 126, 400 * 256 / 65534]], rtol=1e-12
    )


def expected_depth(name, split):
    _, disparity, ids, _ = content(name)
    if split == 'test':
        ids[4:] = 0
    with np.errstate(divide='ignore'):
        metres = BASELINE * FX / ((disparity.astype(float) - 1) / 256)
    masked = np.isin(ids, [1, 2, 3, 23])
    # 16 bits reach to 255.99 m.
    valid = (disparity > 1) & ~masked & (np.rint(metres * 256) <= 65535)
    return np.where(valid, metres, 0), valid


@pytest.mark.parametrize('split', FRAMES)
def test_depth_and_colour_by_value(split, converted):
    source, out = converted
    data = RGBDDataset(
        data_root=str(out),
        ann_file=f'splits/{split}.txt',
        data_prefix=dict(img_path='leftImg8bit', depth_path='depth'),
        img_suffix='_leftImg8bit.png',
        depth_suffix='_depth.png',
        depth_scale=256,
        pipeline=[LoadRGBD()],
        test_mode=True,
    )
    assert len(data) == len(FRAMES[split])
    for i, name in enumerate(FRAMES[split]):
        metres, valid = expected_depth(name, split)
        assert 0 < valid.mean() < 1
        np.testing.assert_array_equal(data[i]['valid'], valid)
        np.testing.assert_allclose(data[i]['depth'], metres, atol=0.5 / 256 + 1e-4)
        np.testing.assert_array_equal(data[i]['img'], content(name)[0])
        file = f'leftImg8bit/{split}/{name}_leftImg8bit.png'
        assert (out / file).read_bytes() == (source / file).read_bytes()


def test_a_smaller_size_picks_and_does_not_blend(tmp_path, capsys):
    write_tree(tmp_path / 'source')
    out = tmp_path / 'out'
    arguments = [str(tmp_path / 'source'), str(out), '--workers', '1', '--size', '32', '17']
    assert run(CityscapesConverter, [*arguments, '--splits', 'val']) == 0
    assert re.search("data_prefix=.*'leftImg8bit'.*'depth'", capsys.readouterr().out)
    name = FRAMES['val'][0]
    frame = read_first(tmp_path / 'source', 'val')
    for kind, file in (
        ('depth', f'depth/val/{name}_depth.png'),
        ('label', f'gtFine/val/{name}_gtFine_labelTrainIds.png'),
        ('instance', f'gtFine/val/{name}_gtFine_instanceIds.png'),
    ):
        got = cv2.imread(str(out / file), cv2.IMREAD_UNCHANGED)
        assert got.dtype == frame.images[kind].dtype
        np.testing.assert_array_equal(got, frame.images[kind][1::2, 1::2])
    manifest = json.loads((out / 'manifest.json').read_text())
    assert manifest['splits']['val']['frames'] == manifest['frames'] == 1


# ---------------------------------------------------------------- read by mmseg and mmdet


@pytest.mark.parametrize('split', ['train', 'val'])
def test_mmsegs_own_config_reads_the_labels(split, converted, tmp_path):
    pytest.importorskip('mmseg')
    from mmseg.registry import DATASETS
    from mmseg.utils import register_all_modules

    register_all_modules(init_default_scope=True)
    path = tmp_path / 'config.py'
    path.write_text("_base_ = 'mmseg::_base_/datasets/cityscapes.py'\n")
    settings = load_config(path)[f'{split}_dataloader'].dataset
    settings.data_root = str(converted[1])
    settings.pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]
    data = DATASETS.build(settings)
    assert len(data) == len(FRAMES[split])
    train_ids = dict(zip(IDS, range(19), strict=True))
    for i, name in enumerate(FRAMES[split]):
        colour, _, ids, _ = content(name)
        np.testing.assert_array_equal(data[i]['img'], colour)
        expected = np.vectorize(lambda i: train_ids.get(i, 255))(ids)
        np.testing.assert_array_equal(data[i]['gt_seg_map'], expected)
        assert set(np.unique(data[i]['gt_seg_map'])) == {*range(19), 255}


@pytest.mark.parametrize('split', ['train', 'val'])
def test_instances_by_value(split, converted):
    """8 classes, two instances and a group of each, without a least size."""
    path = converted[1] / f'annotations/instancesonly_filtered_gtFine_{split}.json'
    coco = json.loads(path.read_text())
    assert {(i['file_name'], i['width'], i['height']) for i in coco['images']} == {
        (f'{name}_leftImg8bit.png', WIDTH, HEIGHT) for name in FRAMES[split]
    }
    assert len(coco['annotations']) == 24 * len(FRAMES[split])
    assert sum(a['iscrowd'] for a in coco['annotations']) == 8 * len(FRAMES[split])
    assert sorted({a['area'] for a in coco['annotations']}) == [1, 19, 20]


def test_mmdets_own_config_reads_the_instances(converted, tmp_path):
    pytest.importorskip('mmdet.datasets')
    from mmdet.registry import DATASETS
    from mmdet.utils import register_all_modules

    register_all_modules(init_default_scope=True)
    path = tmp_path / 'config.py'
    path.write_text("_base_ = 'mmdet::_base_/datasets/cityscapes_instance.py'\n")
    settings = load_config(path).train_dataloader.dataset.dataset
    settings.data_root = str(converted[1])
    data = DATASETS.build(settings | dict(filter_cfg=None))
    assert [data.get_data_info(i)['img_path'] for i in range(len(data))] == [
        f'{converted[1]}/leftImg8bit/train/{name}_leftImg8bit.png' for name in FRAMES['train']
    ]
    data.pipeline.transforms = [
        t for t in data.pipeline.transforms if type(t).__name__.startswith('Load')
    ]
    sample = data[0]
    instances = content(FRAMES['train'][0])[3]
    for row, label in ((24, 0), (26, 2), (33, 7)):
        theirs = np.flatnonzero(sample['gt_bboxes_labels'] == label)
        masks = sample['gt_masks'].masks[theirs]
        ignored = sample['gt_ignore_flags'][theirs]
        found = {(bool(i), m.astype(bool).tobytes()) for i, m in zip(ignored, masks, strict=True)}
        assert found == {
            (value < 1000, (instances == value).tobytes())
            for value in (row, 1000 * row, 1000 * row + 1)
        }


def test_splits_without_public_labels_have_none(converted):
    _, out = converted
    for split in ('test', 'train_extra'):
        assert not list((out / 'gtFine').glob(f'{split}/**/*.png'))
        coco = json.loads(
            (out / f'annotations/instancesonly_filtered_gtFine_{split}.json').read_text()
        )
        assert (len(coco['images']), coco['annotations']) == (1, [])


def test_without_labels(tmp_path):
    root = write_tree(tmp_path / 'source')
    frame = read_first(root, labels=False)
    assert set(frame.images) == {'rgb', 'depth'}
    assert not frame.images['depth'][23].any()
    for path in (root / 'gtFine/train').rglob('*_labelIds.png'):
        path.unlink()
    with pytest.raises(FrameError, match='Convert with --no-labels'):
        read_first(root)
    assert read_first(root, labels=False).images['depth'][23].any()
    arguments = [str(root), str(tmp_path / 'out'), '--no-labels', '--workers=1']
    assert run(CityscapesConverter, arguments) == 0
    folders = {p.name for p in (tmp_path / 'out').iterdir() if p.is_dir()}
    assert folders == {'.conversion', 'depth', 'leftImg8bit', 'splits'}


# ---------------------------------------------------------------- configs of this project


def test_the_base_config_reads_it(converted):
    from mmmask3d.registry import DATASETS

    # The masking of a base alone: elsewhere its patches are the encoder's.
    patches = {'model.backbone.patch_size': 16}
    path = ROOT / 'configs/_base_/datasets/cityscapes_pretrain.py'
    cfg = load_config(path, cfg_options=patches)
    init_default_scope('mmmask3d')
    for loader, split in ((cfg.train_dataloader, 'train'), (cfg.val_dataloader, 'val')):
        data = DATASETS.build(loader.dataset | dict(data_root=str(converted[1])))
        assert len(data) == len(FRAMES[split])
        sample = data[0]
        width, height = cfg.input_size
        assert sample['inputs']['img'].shape[-2:] == (height, width)


# ---------------------------------------------------------------- damage


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('{"extrinsic": ', 'JSONDecodeError'),
        ('[]', 'TypeError'),
        ('{"extrinsic": {"baseline": 0.2}}', "KeyError: 'intrinsic'"),
        ('{"extrinsic": {"baseline": 0}, "intrinsic": {"fx": 1}}', 'found 0 and 1'),
        ('{"extrinsic": {"baseline": 0.2}, "intrinsic": {"fx": NaN}}', r'found 0\.2 and nan'),
    ],
)
def test_cameras_that_are_wrong(text, message, tmp_path):
    (tmp_path / 'x_camera.json').write_text(text)
    with pytest.raises(FrameError, match=rf'x_camera\.json: .*{message}'):
        read_camera(tmp_path / 'x_camera.json')


@pytest.mark.parametrize(
    ('folder', 'ending', 'array', 'message'),
    [
        ('disparity', 'disparity.png', np.ones((17, 32), np.uint16), '32x17 pixels'),
        ('disparity', 'disparity.png', np.ones((34, 64), np.uint8), 'grey PNG of 16 bits'),
        ('gtFine', 'gtFine_labelIds.png', np.full((34, 64), 255, np.uint8), 'has the label 255'),
        ('gtFine', 'gtFine_labelIds.png', np.zeros((34, 64, 3), np.uint8), 'grey PNG of 8 bits'),
        ('gtFine', 'gtFine_labelIds.png', np.zeros((17, 32), np.uint8), '32x17 pixels'),
        ('gtFine', 'gtFine_instanceIds.png', np.full((34, 64), 34000, np.uint16), 'instance 34000'),
        ('gtFine', 'gtFine_instanceIds.png', np.full((34, 64), 40, np.uint16), 'instance 40'),
        ('gtFine', 'gtFine_instanceIds.png', np.zeros((34, 32), np.uint16), '32x34 pixels'),
    ],
)
def test_maps_that_are_wrong(folder, ending, array, message, tmp_path):
    root = write_tree(tmp_path / 'source')
    path = root / f'{folder}/train/{FRAMES["train"][0]}_{ending}'
    assert cv2.imwrite(str(path), array)
    with pytest.raises(FrameError, match=rf'{path.name}: .*{message}'):
        read_first(root)


@pytest.mark.parametrize(
    ('folder', 'ending', 'cure'),
    [
        ('disparity', 'disparity.png', 'disparity_trainvaltest.zip'),
        ('camera', 'camera.json', 'camera_trainvaltest.zip'),
        ('gtFine', 'gtFine_labelIds.png', '--no-labels'),
        ('gtFine', 'gtFine_instanceIds.png', '--no-labels'),
    ],
)
def test_missing_partners_are_named(folder, ending, cure, tmp_path, capsys):
    root = write_tree(tmp_path / 'source')
    path = root / f'{folder}/train/{FRAMES["train"][0]}_{ending}'
    path.unlink()
    arguments = [str(root), str(tmp_path / 'out'), '--workers', '1']
    assert run(CityscapesConverter, arguments) == 1
    error = capsys.readouterr().err
    assert f'{path} does not exist' in error
    assert cure in error
    assert run(CityscapesConverter, [*arguments, '--on-error', 'drop']) == 0
    manifest = json.loads((tmp_path / 'out/manifest.json').read_text())
    assert manifest['frames'] == 4
    assert len(manifest['left_out']) == 1


def test_wrong_folders(tmp_path):
    with pytest.raises(SourceError, match='leftImg8bit does not exist'):
        converter(tmp_path).sources()
    (tmp_path / 'leftImg8bit').mkdir()
    with pytest.raises(SourceError, match='holds none of the folders train, val'):
        converter(tmp_path).sources()
    (tmp_path / 'leftImg8bit/train/ulm').mkdir(parents=True)
    with pytest.raises(SourceError, match=r"for \['val'\], there are only \['train'\]"):
        converter(tmp_path, splits=['val']).sources()
    reader = converter(tmp_path)
    with pytest.raises(SourceError, match='no file ends in _leftImg8bit'):
        reader.plan(reader.sources()[0])
