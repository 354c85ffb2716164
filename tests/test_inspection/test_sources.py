"""Folders that describe themselves, folders with options, configs, and what is refused."""

import argparse
import json
import shutil
import unicodedata

import cv2
import numpy as np
import pytest
from mmengine.config import Config

from mmmask3d.cli.options import read_overrides
from mmmask3d.cli.source_options import add_source_arguments
from mmmask3d.datasets.classes import NYU13_CLASSES
from mmmask3d.inspection.instances import InstanceReader
from mmmask3d.inspection.measures import measure
from mmmask3d.inspection.sources import (
    LabelMaps,
    SourceOptionsError,
    open_config,
    open_folder,
    open_sources,
)


def parse(*arguments):
    parser = argparse.ArgumentParser()
    add_source_arguments(parser)
    args = parser.parse_args([str(a) for a in arguments])
    args.cfg_options = read_overrides(args.cfg_options)
    return args


@pytest.fixture
def folder(make_rgbd_folder, tmp_path):
    return make_rgbd_folder(tmp_path / 'frames', 4)


def names(source):
    return [source.frames.get_data_info(i)['frame'] for i in range(len(source.frames))]


def manifest(**changes):
    content = {
        'frames': 4,
        'depth_kind': 'relative',
        'depth_scale': 255.0,
        'suffixes': {'rgb': '.png', 'depth': '.png', 'label13': '.png', 'instance': '.png'},
        'classes': {'label13': list(NYU13_CLASSES)},
    }
    return json.dumps({**content, **changes})


def test_confidence_maps_of_a_folder(folder):
    shutil.copytree(folder / 'depth', folder / 'sure')
    options = ['--img-suffix=.png', '--confidence=sure', '--min-confidence=1000']
    (source,) = open_sources(parse(folder, *options))
    assert source.frames.min_confidence == 1000
    info = source.frames.get_data_info(1)
    assert info['confidence_path'] == f'{folder}/sure/frame_001.png'
    (folder / 'sure/frame_001.png').unlink()
    (source,) = open_sources(parse(folder, *options))
    assert source.frames.noted['missing'] == [f'{folder}/sure/frame_001.png']
    assert names(source) == ['frame_000', 'frame_002', 'frame_003']
    for wrong, message in (
        (options[:2], 'belong together'),
        (options[:1] + options[2:], 'belong together'),
        (options + ['--confidence-suffix=.npy'], '4 confidence maps do not exist'),
        (options + ['--confidence=nowhere'], 'nowhere'),
    ):
        with pytest.raises(SourceOptionsError, match=message):
            open_sources(parse(folder, *wrong))
    with pytest.raises(SourceOptionsError, match='--confidence: options of a data folder'):
        open_sources(parse('config.py', '--confidence=sure'))


def test_a_converted_folder_describes_itself(folder):
    (folder / 'manifest.json').write_text(manifest())
    (folder / 'splits').mkdir()
    (folder / 'splits/train.txt').write_text('frame_000\nframe_002\n')
    (folder / 'annotations').mkdir()
    (folder / 'annotations/instances_train.json').write_text('{}')
    source = open_folder(folder)
    assert len(names(source)) == 4
    assert (source.frames.depth_kind, source.frames.depth_scale) == ('relative', 255)
    assert not source.metric
    assert source.unit == 'relative'
    assert source.labels[0].classes == NYU13_CLASSES
    assert source.labels[0].path('a/b') == f'{folder}/label13/a/b.png'
    assert source.instances.folder == f'{folder}/instance'
    assert source.annotations == {'train': f'{folder}/annotations/instances_train.json'}
    assert source.splits == {
        'train': [f'{folder}/rgb/frame_000.png', f'{folder}/rgb/frame_002.png']
    }
    part = open_folder(folder, split='train')
    assert names(part) == ['frame_000', 'frame_002']
    assert open_folder(folder, {'depth_kind': 'metric', 'depth_scale': 1000.0}).metric


def test_generated_rooms_describe_themselves(tiny_rooms):
    source = open_folder(tiny_rooms)
    assert len(source.frames) == 6
    assert [maps.kind for maps in source.labels] == ['semantic']
    assert source.labels[0].classes == NYU13_CLASSES
    counts = {name: len(listed) for name, listed in source.splits.items()}
    assert counts == {'all': 6, 'train': 4, 'val': 2}


def test_a_plain_folder_with_options(folder):
    (folder / 'depth').rename(folder / 'z')
    (folder / 'sem').mkdir()
    (folder / 'names.txt').write_text('chair\ntable\n')
    args = parse(
        *(folder, '--depth', 'z', '--img-suffix', '.png', '--depth-scale', '5000'),
        *('--depth-invalid', '0', '65535', '--max-depth', '8', '--depth-kind', 'metric'),
        *('--labels', f'sem={folder}/names.txt'),
    )
    (source,) = open_sources(args)
    assert source.frames.depth_scale == 5000
    assert source.frames.depth_invalid == (0, 65535)
    assert source.frames.max_depth == 8
    assert source.labels[0].classes == ('chair', 'table')
    (none,) = open_sources(parse(folder, '--depth', 'z', '--img-suffix', '.png', '--depth-invalid'))
    assert none.frames.depth_invalid == ()


def test_missing_partners_are_all_named(folder):
    for i in range(3):
        (folder / f'depth/frame_00{i}.png').unlink()
    (folder / 'rgb/frame_003.png').rename(folder / 'rgb/other.png')
    (folder / 'depth/other.png').write_bytes((folder / 'depth/frame_003.png').read_bytes())
    source = open_folder(folder, {'img_suffix': '.png'})
    assert names(source) == ['other']
    assert source.frames.noted['missing'] == [
        f'{folder}/rgb/frame_003.png',
        *(f'{folder}/depth/frame_00{i}.png' for i in range(3)),
    ]


def test_a_config_with_several_sources(folder, make_rgbd_folder, tmp_path):
    other = make_rgbd_folder(tmp_path / 'other', 2, seed=1)
    path = tmp_path / 'config.py'
    path.write_text(f"""
load = dict(type='LoadRGBD', backend_args=dict(backend='local'))
one = dict(type='mmmask3d.RGBDDataset', data_root={str(folder)!r}, img_suffix='.png',
           pipeline=[load])
two = dict(type='RGBDDataset', data_root={str(other)!r}, img_suffix='.png', depth_scale=5000,
           on_error='drop')
train_dataloader = dict(
    dataset=dict(type='ConcatDataset', datasets=[dict(type='RepeatDataset', times=2, dataset=one),
                                                 two]))
val_dataloader = dict(dataset=dict(**two, test_mode=True, indices=1))
test_dataloader = val_dataloader
""")
    first, second, third = open_sources(parse(path))
    assert (len(first.frames), len(second.frames), len(third.frames)) == (4, 2, 1)
    assert second.frames.depth_scale == 5000
    assert first.backend_args == {'backend': 'local'}
    assert second.backend_args is None
    assert list(first.splits) == list(second.splits) == ['train']
    assert list(third.splits) == ['val', 'test']
    (only,) = open_sources(parse(path), 'val')
    assert len(only.frames) == 1
    changed = parse(path, '--cfg-options', 'val_dataloader.dataset.depth_scale=7')
    assert open_sources(changed, 'val')[0].frames.depth_scale == 7


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['nowhere'], 'no folder, and no config'),
        (['nowhere.py'], r'nowhere\.py: config file not found'),
        (['{folder}', '--img-suffix', '.tif'], r"found: 4 '.png'. Check img_suffix"),
        (['{folder}', '--rgb', 'colour'], "the folder '.*colour'.* does not exist"),
        (['{folder}', '--img-suffix', '.png', '--labels', 'sem'], 'expected FOLDER=CLASSES'),
        (['{folder}', '--img-suffix', '.png', '--labels', 'sem=3'], 'sem does not exist'),
        (['{folder}', '--img-suffix', '.png', '--labels', 'rgb=255'], 'from 1 to 254'),
        (['{folder}', '--cfg-options', 'a=1'], 'belongs to a config'),
        (['{folder}', '--img-suffix', '.png', '--depth-scale', '0'], 'must be > 0'),
        (['{config}', '--depth-scale', '5', '--rgb', 'x'], '--depth-scale, --rgb: options of a'),
        (['{config}'], "expected RGBDDataset .* found 'CocoDataset'"),
    ],
)
def test_what_is_refused(arguments, message, folder, tmp_path):
    config = tmp_path / 'other.py'
    config.write_text("train_dataloader = dict(dataset=dict(type='CocoDataset'))")
    given = [a.format(folder=folder, config=config) for a in arguments]
    with pytest.raises(SourceOptionsError, match=message):
        open_sources(parse(*given))


def test_damaged_descriptions_are_named(folder):
    (folder / 'manifest.json').write_text('{"frames": 4}')
    with pytest.raises(SourceOptionsError, match=r'manifest.json is no manifest'):
        open_folder(folder)
    (folder / 'manifest.json').write_text('{"frames": ')
    with pytest.raises(SourceOptionsError, match=r'manifest.json is no JSON'):
        open_folder(folder)


def test_a_split_and_an_index_exclude_each_other(folder):
    with pytest.raises(SourceOptionsError, match='not both'):
        open_folder(folder, {'ann_file': 'a.txt'}, split='train')


def test_a_loader_that_is_not_there():
    with pytest.raises(SourceOptionsError, match='no val_dataloader'):
        open_config(Config({'train_dataloader': None}), ['val'])


def test_folders_and_ids_of_the_manifest_are_followed(folder):
    (folder / 'rgb').rename(folder / 'leftImg8bit')
    content = manifest(
        suffixes={'rgb': '.png', 'depth': '.png', 'label': '_ids.png', 'instance': '_things.png'},
        folders={'rgb': 'leftImg8bit', 'depth': 'depth', 'label': 'gt', 'instance': 'gt'},
        classes={'label': ['road', 'sky']},
        first_ids={'label': 0},
        ignore_ids={'label': 255},
    )
    (folder / 'manifest.json').write_text(content)
    source = open_folder(folder)
    assert len(names(source)) == 4
    (maps,) = source.labels
    assert maps.path('a/b') == f'{folder}/gt/a/b_ids.png'
    assert source.instances.path('a/b') == f'{folder}/gt/a/b_things.png'
    assert maps.names == {0: 'road', 1: 'sky', 255: 'unlabelled'}
    stored = np.array([[0, 1, 255], [2, 254, 0]], np.uint8)
    assert maps.from_one(stored).tolist() == [[1, 2, 0], [254, 254, 1]]


def test_ids_count_from_one_where_nothing_is_said():
    maps = LabelMaps('label', 'l', '.png', ('a', 'b'))
    assert maps.names == {0: 'unlabelled', 1: 'a', 2: 'b', 255: 'ignored'}
    assert maps.from_one(np.array([0, 1, 2, 3, 255], np.uint8)).tolist() == [0, 1, 2, 254, 255]


def test_ids_outside_are_told_by_the_ids_of_the_manifest(folder):
    content = manifest(classes={'gt': ['road', 'sky']}, first_ids={'gt': 0}, ignore_ids={'gt': 255})
    (folder / 'manifest.json').write_text(content)
    (folder / 'gt').mkdir()
    source = open_folder(folder)
    shape = cv2.imread(str(folder / 'rgb/frame_000.png')).shape[:2]
    for i, ids in enumerate([(0, 1, 255), (0, 2, 255)]):
        stored = np.resize(np.array(ids, np.uint8), shape)
        assert cv2.imwrite(f'{folder}/gt/frame_00{i}.png', stored)
    fine, wrong = (measure(source, i)[0] for i in range(2))
    assert not fine.problems
    (problem,) = wrong.problems
    assert problem.code == 'label-range'
    assert problem.message == 'ids 2 outside 255 (unlabelled), 0 to 1, 255 (ignored)'


def test_lists_of_a_mac_and_of_windows(folder):
    """Split and COCO file as other systems write them, for a frame in NFD."""
    nfd, nfc = (unicodedata.normalize(form, 'Küche') for form in ('NFD', 'NFC'))
    for kind in ('rgb', 'depth'):
        (folder / kind / 'frame_001.png').rename(folder / kind / f'{nfd}.png')
    (folder / 'sem').mkdir()
    (folder / 'instance').mkdir()
    ids = np.array([[1, 2], [2, 1]], np.uint8)
    for kind in ('sem', 'instance'):
        assert cv2.imwrite(str(folder / kind / f'{nfc}.png'), ids)
    (folder / 'splits').mkdir()
    (folder / 'splits/train.TXT').write_bytes(f'{nfc}\r\nframe_000'.encode('utf-8-sig'))
    (folder / 'splits/._train.txt').write_bytes(b'\x00\x05\x16\x07')
    source = open_folder(folder, dict(img_suffix='.png'))
    assert source.splits == {'train': [f'{folder}/rgb/{nfd}.png', f'{folder}/rgb/frame_000.png']}
    frame = next(name for name in names(source) if not name.isascii())
    maps = LabelMaps('sem', f'{folder}/sem', '.png', ('a', 'b'))
    assert maps.path(frame) == f'{folder}/sem/{nfc}.png'
    source.instances = LabelMaps('instance', f'{folder}/instance', '.png', ())
    reader = InstanceReader(source)
    assert reader.read(frame, f'{folder}/rgb/{nfd}.png').tolist() == ids.tolist()
    image = dict(id=1, file_name=f'{nfc}.png', height=2, width=2)
    thing = dict(id=1, image_id=1, area=4, segmentation=[[0, 0, 2, 0, 2, 2, 0, 2]])
    coco = json.dumps(dict(images=[image], annotations=[thing]))
    (folder / 'instances.json').write_bytes(coco.encode('utf-8-sig'))
    source.annotations = {'train': str(folder / 'instances.json')}
    found = InstanceReader(source).read(frame, f'{folder}/rgb/{nfd}.png')
    assert found.tolist() == [[1, 1], [1, 1]]
