"""Finding frames, giving them with the settings of their source, and what is reported."""

import copy
import multiprocessing
import pickle
import re
import unicodedata

import cv2
import numpy as np
import pytest
import torch
from mmcv.transforms import BaseTransform
from mmengine.dataset import ConcatDataset, RepeatDataset, default_collate
from mmengine.registry import DATASETS as ROOT_DATASETS
from torch.utils.data import DataLoader

import mmmask3d.registry  # noqa: F401 (the generic dict configs below need the registrations)
from mmmask3d.datasets import (
    EpochIndex,
    EpochIndexSampler,
    FrameError,
    LoadRGBD,
    PackRGBDInputs,
    RGBDDataset,
)

LOAD = [LoadRGBD(), PackRGBDInputs()]
TRAIN = [
    dict(type='mmmask3d.LoadRGBD'),
    dict(type='mmmask3d.RGBDRandomResizedCrop', scale=(32, 24)),
    dict(type='mmmask3d.RGBDRandomFlip', prob=0.5),
    dict(type='mmpretrain.ColorJitter', brightness=0.4),
    dict(type='mmmask3d.DepthAwareMasking', patch_size=8, rgb_ratio=0.5, depth_ratio=0.5),
    dict(type='mmmask3d.PackRGBDInputs'),
]


def dataset(root, **kwargs):
    settings = dict(data_root=str(root), img_suffix='.png', pipeline=LOAD)
    return RGBDDataset(**(settings | kwargs))


def frames(data):
    return [data.get_data_info(i)['frame'] for i in range(len(data))]


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.fixture
def root(tmp_path, write_frame):
    """Five frames in nested folders."""
    names = ['b/1', 'a/2', 'a/1', 'c', 'a/10']
    rng = np.random.default_rng(0)
    for name in names:
        img = rng.integers(0, 256, (36, 48, 3), dtype=np.uint8)
        depth = rng.integers(500, 9000, (36, 48)).astype(np.uint16)
        depth[:, : rng.integers(1, 20)] = 0
        write_frame(tmp_path, name, img, depth)
    return tmp_path


# ---------------------------------------------------------------- finding frames


def test_folders_are_scanned_in_a_fixed_order(root, write_frame):
    write_frame(root, '.thumbnails/1')
    (root / 'rgb' / 'readme.txt').write_text('other files are no frames')
    assert frames(dataset(root)) == ['a/1', 'a/10', 'a/2', 'b/1', 'c']


def test_index_file(root):
    (root / 'train.txt').write_text(
        '# two ways to name a frame\n\nc\r\nb/1.png a/2.png\na/1.png\tb/1.png\n  a/10  \n'
    )
    data = dataset(root, ann_file='train.txt')
    assert frames(data) == ['c', 'b/1', 'a/1', 'a/10']
    pairs = [
        tuple(data.get_data_info(i)[key] for key in ('img_path', 'depth_path')) for i in range(4)
    ]
    assert pairs == [
        (f'{root}/rgb/{colour}.png', f'{root}/depth/{depth}.png')
        for colour, depth in (('c', 'c'), ('b/1', 'a/2'), ('a/1', 'b/1'), ('a/10', 'a/10'))
    ]


def test_prefixes_may_lie_side_by_side(tmp_path, write_frame):
    """ScanNet's layout: scene/color/0.jpg and scene/depth/0.png, paired by an index."""
    img, depth = write_frame(tmp_path, '0')
    (tmp_path / 'index.txt').write_text('rgb/0.png depth/0.png\n')
    data = dataset(tmp_path, ann_file='index.txt', data_prefix=dict(img_path='', depth_path=''))
    info = data.get_data_info(0)
    assert (info['img_path'], info['depth_path']) == (str(img), str(depth))


def test_what_a_frame_carries(root):
    data = dataset(root, depth_scale=5000, depth_invalid=[0, 65535], max_depth=8, min_depth=1)
    assert data.get_data_info(-1) == dict(
        img_path=f'{root}/rgb/c.png',
        depth_path=f'{root}/depth/c.png',
        frame='c',
        sample_idx=4,
        depth_scale=5000.0,
        depth_invalid=(0, 65535),
        min_depth=1.0,
        max_depth=8,
        depth_kind='metric',
    )
    for index in (5, -6):
        with pytest.raises(IndexError, match='5 frames'):
            data.get_data_info(index)


@pytest.mark.parametrize('serialize_data', [True, False])
def test_subsets(root, serialize_data):
    data = dataset(root, serialize_data=serialize_data, on_error='drop')
    assert frames(data.get_subset([3, 0])) == ['b/1', 'a/1']
    assert frames(dataset(root, serialize_data=serialize_data, indices=2)) == ['a/1', 'a/10']
    data.get_subset_([4])
    assert frames(data) == ['c']
    (root / 'depth/c.png').write_bytes(b'')
    with pytest.raises(RuntimeError, match='1 frames in a row'):
        data[0]


def test_a_link_back_gives_each_frame_once(tmp_path, write_frame, warnings_logged):
    """``ln -s STORE/rgb/train data/rgb/train`` twice: the second link lands in the store."""
    for name in ('train/1', 'train/2'):
        write_frame(tmp_path / 'store', name)
    for kind in ('rgb', 'depth'):
        (tmp_path / 'data' / kind).mkdir(parents=True)
        (tmp_path / 'data' / kind / 'train').symlink_to(tmp_path / 'store' / kind / 'train')
        (tmp_path / 'store' / kind / 'train/train').symlink_to(tmp_path / 'store' / kind / 'train')
    data = dataset(tmp_path / 'data')
    assert frames(data) == ['train/1', 'train/2']
    for kind, line in zip(('rgb', 'depth'), warnings_logged, strict=True):
        assert '1 links lead to a folder that is listed already or holds them, and are' in line
        assert f'{tmp_path}/data/{kind}/train/train.' in line


@pytest.mark.parametrize('ann_file', ['', 'index.txt'])
def test_the_case_of_suffixes_does_not_matter(tmp_path, write_frame, warnings_logged, ann_file):
    values = {}
    for name in ('kitchen/1', 'office/1', 'office/2'):
        values[name] = np.full((12, 16), 1000 * (len(values) + 1), np.uint16)
        image, depth = write_frame(tmp_path, name, depth=values[name])
        if name.startswith('office'):
            image.rename(image.with_suffix('.PNG'))
            depth.rename(depth.with_suffix('.Png'))
    (tmp_path / 'index.txt').write_text('\n'.join(values))
    data = dataset(tmp_path, ann_file=ann_file)
    assert frames(data) == list(values)
    assert data.get_data_info(1)['img_path'] == f'{tmp_path}/rgb/office/1.PNG'
    for i, depth in enumerate(values.values()):
        assert (data[i]['inputs']['depth'] == depth[0, 0] / 1000).all()
    assert (data.num_without_partner, warnings_logged) == (0, [])


def test_pictures_of_other_suffixes_are_counted_and_named(tmp_path, write_frame, warnings_logged):
    for name in ('kitchen/1', 'office/1', 'office/2'):
        image, depth = write_frame(tmp_path, name)
        if name.startswith('office'):
            image.rename(image.with_suffix('.jpeg'))
            depth.rename(depth.with_suffix('.tiff'))
    assert frames(dataset(tmp_path)) == ['kitchen/1']
    for kind, suffix, line in zip(
        ('rgb', 'depth'), ('.jpeg', '.tiff'), warnings_logged, strict=True
    ):
        assert '2 files are no frames' in line
        assert f"2 '{suffix}'" in line
        assert f'{tmp_path}/{kind}/office/1{suffix}' in line


def test_colour_and_depth_in_one_folder_leave_nothing_over(tmp_path, write_frame, warnings_logged):
    image, depth = write_frame(tmp_path, '1')
    (tmp_path / 'all').mkdir()
    image.rename(tmp_path / 'all/1.color.png')
    depth.rename(tmp_path / 'all/1.depth.png')
    settings = dict(img_suffix='.color.png', depth_suffix='.depth.png')
    prefix = dict(img_path='all', depth_path='all')
    assert frames(dataset(tmp_path, data_prefix=prefix, **settings)) == ['1']
    prefix = dict(img_path='all', depth_path='all/')
    assert frames(dataset(tmp_path, data_prefix=prefix, **settings)) == ['1']
    assert warnings_logged == []


def test_two_files_of_one_frame_are_refused(tmp_path, write_frame):
    image, _ = write_frame(tmp_path, '1')
    image.with_suffix('.PNG').write_bytes(image.read_bytes())
    with pytest.raises(ValueError, match=r"rgb: two files are the same frame '1': '1\.PNG' and"):
        dataset(tmp_path, on_error='drop')
    (tmp_path / 'index.txt').write_text('1')
    assert dataset(tmp_path, ann_file='index.txt').get_data_info(0)['img_path'] == str(image)


@pytest.mark.parametrize('form', ['NFC', 'NFD'])
@pytest.mark.parametrize('ann_file', ['', 'index.txt'])
def test_names_pair_in_any_unicode_form(tmp_path, write_frame, form, ann_file):
    name = 'Küche/Möbel é'
    image, depth = write_frame(tmp_path, unicodedata.normalize('NFD', name))
    colour = tmp_path / unicodedata.normalize('NFC', f'rgb/{name}.png')
    colour.parent.mkdir()
    image.rename(colour)
    line = unicodedata.normalize(form, f'{name}.png\t{name}.png')
    (tmp_path / 'index.txt').write_text(line)
    data = dataset(tmp_path, ann_file=ann_file)
    info = data.get_data_info(0)
    assert (info['img_path'], info['depth_path']) == (str(colour), str(depth))
    assert info['frame'] == name
    assert data.num_without_partner == 0


def test_confidence_maps_in_another_case_and_form(tmp_path, write_frame):
    _, depth = write_frame(tmp_path, 'ü')
    path = tmp_path / 'confidence' / unicodedata.normalize('NFD', 'ü.PNG')
    path.parent.mkdir()
    path.write_bytes(depth.read_bytes())
    prefix = dict(img_path='rgb', depth_path='depth', confidence_path='confidence')
    data = dataset(tmp_path, data_prefix=prefix, min_confidence=1)
    assert data.get_data_info(0)['confidence_path'] == str(path)


def test_folders_and_index_are_found_in_any_unicode_form(tmp_path, write_frame):
    root = tmp_path / unicodedata.normalize('NFD', 'Küche')
    write_frame(root, '1')
    (root / unicodedata.normalize('NFD', 'für.txt')).write_text('1')
    assert frames(dataset(tmp_path / 'Küche')) == ['1']
    assert frames(dataset(tmp_path / 'Küche', ann_file='für.txt')) == ['1']


@pytest.mark.parametrize('encoding', ['utf-8-sig', 'utf-16'])
def test_an_index_from_windows(root, encoding):
    (root / 'index.txt').write_bytes('c\r\n\r\n a/2 \r\n'.encode(encoding))
    assert frames(dataset(root, ann_file='index.txt')) == ['c', 'a/2']


# ---------------------------------------------------------------- what is reported at start-up


def test_wrong_root(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere/rgb' \(data_prefix.*holds: nothing"):
        dataset(tmp_path / 'nowhere')


def test_wrong_folder_says_what_is_there(root):
    prefix = dict(img_path='rgb', depth_path='depths')
    with pytest.raises(FileNotFoundError, match=r"depths'.*holds: depth, rgb.*data_prefix"):
        dataset(root, data_prefix=prefix)
    (root / 'index.txt').write_text('c\n')
    with pytest.raises(FileNotFoundError, match=r"depths'.*holds: depth, index\.txt, rgb"):
        dataset(root, data_prefix=prefix, ann_file='index.txt')


def test_wrong_suffix_says_what_is_there(root):
    with pytest.raises(FileNotFoundError, match=r"'\.jpg'; found: 5 '\.png'\. Check img_suffix"):
        dataset(root, img_suffix='.jpg')
    with pytest.raises(FileNotFoundError, match=r"'\.npy'; found: 5 '\.png'.*depth_suffix"):
        dataset(root, depth_suffix='.npy')


def test_missing_index(root):
    (root / 'splits').mkdir()
    (root / 'splits/val.txt').write_text('c\n')
    with pytest.raises(FileNotFoundError, match=r"splits/train\.txt'.*holds: val\.txt"):
        dataset(root, ann_file='splits/train.txt')


def test_malformed_index(root):
    (root / 'index.txt').write_text('c\nliving room 1.png living room 1.png\n')
    with pytest.raises(ValueError, match=r'index\.txt:2: .*found 6 fields.*tab'):
        dataset(root, ann_file='index.txt')


def test_empty_index(root):
    (root / 'index.txt').write_text('# nothing yet\n\n')
    with pytest.raises(ValueError, match=r"no frame found: index '.*index\.txt'"):
        dataset(root, ann_file='index.txt')


@pytest.mark.parametrize('ann_file', ['', 'index.txt'])
def test_missing_partners(root, warnings_logged, ann_file):
    (root / 'index.txt').write_text('c\na/2\na/1\nb/1\n')
    (root / 'rgb/a/1.png').unlink()
    (root / 'depth/a/2.png').unlink()
    with pytest.raises(
        FileNotFoundError,
        match=r'2 of \d frames.*1 colour files .*rgb/a/1\.png; 1 depth files .*depth/a/2\.png'
        r".*on_error='drop'",
    ):
        dataset(root, ann_file=ann_file)
    assert warnings_logged == []
    data = dataset(root, ann_file=ann_file, on_error='drop')
    assert data.num_without_partner == 2
    assert frames(data) == (['c', 'b/1'] if ann_file else ['a/10', 'b/1', 'c'])
    (line,) = warnings_logged
    assert 'rgb/a/1.png' in line
    assert 'left out' in line


def test_an_index_with_suffixes_in_single_names(root):
    (root / 'index.txt').write_text('c.png\n')
    with pytest.raises(FileNotFoundError, match=r'c\.png\.png.*a single name has no suffix'):
        dataset(root, ann_file='index.txt', on_error='drop')


def test_many_missing_partners_are_counted_not_listed(tmp_path, write_frame):
    for i in range(9):
        write_frame(tmp_path, str(i))[1].unlink()
    write_frame(tmp_path, 'whole')
    with pytest.raises(FileNotFoundError, match=r'9 of 10 frames.*depth/2\.png, \.\.\.') as error:
        dataset(tmp_path)
    assert 'depth/3.png' not in str(error.value)


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(depth_scale=0), 'depth_scale'),
        (dict(depth_scale=float('nan')), 'depth_scale'),
        (dict(max_depth=0), 'min_depth < max_depth'),
        (dict(min_depth=-1), 'min_depth'),
        (dict(min_depth=float('nan')), 'min_depth'),
        (dict(min_depth=3, max_depth=2), 'got 3 and 2'),
        (dict(depth_kind='disparity'), "'metric' or 'relative', got 'disparity'"),
        (dict(on_error='ignore'), "'raise' or 'drop', got 'ignore'"),
        (dict(seed=-1), 'seed'),
        (dict(seed=None), 'seed'),
        (dict(depth_invalid=65535), 'such as (0, 65535); got 65535'),
        (dict(data_prefix=dict(img_path='rgb')), "'img_path' and 'depth_path'"),
        (dict(data_prefix=dict(img='rgb', depth='depth')), "got ['depth', 'img']"),
    ],
)
def test_arguments_are_checked(root, kwargs, message):
    with pytest.raises(ValueError, match=message if '\\' in message else re.escape(message)):
        dataset(root, **kwargs)


# ---------------------------------------------------------------- unusable frames


def test_unusable_frames_are_dropped_and_counted_once(root, warnings_logged):
    content = (root / 'depth/a/10.png').read_bytes()
    (root / 'depth/a/10.png').write_bytes(content[:-30])
    assert cv2.imwrite(str(root / 'depth/a/2.png'), np.zeros((36, 48), np.uint16))
    data = dataset(root, on_error='drop')
    (root / 'rgb/c.png').unlink()  # lost since the start
    for _ in range(2):
        samples = [data[i]['data_samples'].frame for i in range(5)]
        assert samples == ['a/1', 'b/1', 'b/1', 'b/1', 'a/1']
    assert data.num_unreadable == 3
    assert len(warnings_logged) == 3
    for line, reason in zip(
        warnings_logged, ('truncated', 'no depth reading', 'does not exist'), strict=True
    ):
        assert 'is dropped' in line
        assert reason in line


def test_what_workers_drop_is_counted_here(root):
    for name in ('a/10', 'c'):
        (root / f'depth/{name}.png').write_bytes(b'\x89PNG')
    data = dataset(root, on_error='drop')
    loader = DataLoader(data, batch_size=1, num_workers=2, collate_fn=default_collate)
    assert [batch['data_samples'][0].frame for batch in loader] == [
        'a/1',
        'a/2',
        'a/2',
        'b/1',
        'a/1',
    ]
    assert data.num_unreadable == 2


def test_nothing_readable(root):
    data = dataset(root, on_error='drop', max_refetch=2)
    for path in (root / 'depth').rglob('*.png'):
        path.write_bytes(b'')
    with pytest.raises(RuntimeError, match=r"3 frames in a row .*'a/1'.*on_error='raise'"):
        data[0]


class Fails(BaseTransform):
    def transform(self, results):
        raise ValueError('a mistake in the pipeline')


def test_drop_hides_no_mistakes(root):
    with pytest.raises(ValueError, match='a mistake in the pipeline'):
        dataset(root, on_error='drop', pipeline=[Fails()])[0]
    with pytest.raises(ValueError, match='not a multiple of patch_size 32'):
        dataset(
            root,
            on_error='drop',
            pipeline=[LoadRGBD(), dict(type='mmmask3d.DepthAwareMasking', patch_size=32)],
        )[0]


def test_a_transform_that_gives_nothing_is_reported(root):
    with pytest.raises(FrameError, match="'a/1': a transform of the pipeline returned None"):
        dataset(root, pipeline=[lambda results: None])[0]


# ---------------------------------------------------------------- several sources


def test_sources_with_other_units_concatenate(tmp_path, write_frame):
    metres = np.linspace(0.5, 5, 12 * 16).reshape(12, 16)
    stored = dict(
        mm=dict(depth=(metres * 1000).astype(np.uint16)),
        tum=dict(depth=(metres * 5000).astype(np.uint16)),
        npy=dict(depth=metres.astype(np.float32), suffix='.npy'),
        relative=dict(depth=(metres * 51).astype(np.uint8)),
    )
    for name, frame in stored.items():
        write_frame(tmp_path / name, '7', **frame)
    source = dict(type='mmmask3d.RGBDDataset', img_suffix='.png', pipeline=LOAD)
    data = ROOT_DATASETS.build(
        dict(
            type='ConcatDataset',
            datasets=[
                dict(source, data_root=str(tmp_path / 'mm'), depth_scale=1000),
                dict(source, data_root=str(tmp_path / 'tum'), depth_scale=5000, max_depth=4.0),
                dict(source, data_root=str(tmp_path / 'npy'), depth_scale=1, depth_suffix='.npy'),
                dict(
                    source,
                    data_root=str(tmp_path / 'relative'),
                    depth_scale=255,
                    depth_kind='relative',
                ),
            ],
        )
    )
    assert isinstance(data, ConcatDataset)
    batch = default_collate([data[i] for i in range(4)])
    depth, valid = batch['inputs']['depth'][:, 0], batch['inputs']['valid'][:, 0]
    limited = torch.from_numpy(np.where(metres <= 4, metres, 0)).float()
    expected = torch.from_numpy(metres).float()
    torch.testing.assert_close(depth[0], expected, atol=0.0011, rtol=0)
    torch.testing.assert_close(depth[1][valid[1]], limited[valid[1]], atol=0.0003, rtol=0)
    assert valid[1].sum() == (limited > 0).sum() < valid[0].sum()
    torch.testing.assert_close(depth[2], expected)
    torch.testing.assert_close(depth[3], expected / 5, atol=0.004, rtol=0)
    kinds = [sample.depth_kind for sample in batch['data_samples']]
    assert kinds == ['metric', 'metric', 'metric', 'relative']


# ---------------------------------------------------------------- reproducible draws


def test_a_sample_is_a_function_of_seed_epoch_and_index(root):
    data = dataset(root, pipeline=TRAIN, seed=3)
    first = data[EpochIndex(2, epoch=4)]['inputs']
    np.random.random(7), torch.rand(3)
    again = dataset(root, pipeline=TRAIN, seed=3)[EpochIndex(2, epoch=4)]['inputs']
    assert same(first, again)
    for other in (
        data[EpochIndex(2, epoch=5)],
        dataset(root, pipeline=TRAIN, seed=4)[EpochIndex(2, epoch=4)],
        data[EpochIndex(2, epoch=4, seed=1)],
    ):
        for key in ('img', 'depth', 'rgb_mask', 'depth_mask'):
            assert not torch.equal(first[key], other['inputs'][key])


def loaded(data, workers, epoch):
    sampler = EpochIndexSampler(data, seed=0)
    sampler.set_epoch(epoch)
    loader = DataLoader(
        data, batch_size=2, sampler=sampler, num_workers=workers, collate_fn=default_collate
    )
    return [batch['inputs'] for batch in loader]


def test_the_number_of_workers_changes_nothing(root):
    data = dataset(root, pipeline=TRAIN)
    alone, shared = loaded(data, 0, epoch=1), loaded(data, 2, epoch=1)
    assert len(alone) == len(shared) == 3
    assert all(same(a, b) for a, b in zip(alone, shared, strict=True))


def test_test_mode_gives_the_same_masks_every_time(root):
    data = dataset(root, pipeline=TRAIN, test_mode=True)
    first = data[1]['inputs']
    assert same(first, data[1]['inputs'])
    assert same(first, data[EpochIndex(1, epoch=9, seed=7)]['inputs'])
    assert not torch.equal(first['rgb_mask'], data[2]['inputs']['rgb_mask'])
    other = dataset(root, pipeline=TRAIN, test_mode=True, seed=1)[1]['inputs']
    for key in ('img', 'depth', 'rgb_mask', 'depth_mask'):
        assert not torch.equal(first[key], other[key])


def test_an_ordinary_sampler_draws_from_the_global_generators(root):
    data = dataset(root, pipeline=TRAIN)
    np.random.seed(0)
    first, second = data[1]['inputs'], data[1]['inputs']
    assert not torch.equal(first['rgb_mask'], second['rgb_mask'])
    np.random.seed(0)
    assert torch.equal(first['rgb_mask'], data[1]['inputs']['rgb_mask'])


def test_repeats_and_sources_draw_for_themselves(root):
    """One frame met twice in an epoch, by repetition or in two sources, is augmented twice."""
    for wrapped in (
        RepeatDataset(dataset(root, pipeline=TRAIN), times=2),
        ConcatDataset([dataset(root, pipeline=TRAIN), dataset(root, pipeline=TRAIN)]),
    ):
        once, twice = (wrapped[EpochIndex(i, epoch=0)] for i in (1, 6))
        assert once['data_samples'].frame == twice['data_samples'].frame == 'a/10'
        assert not torch.equal(once['inputs']['rgb_mask'], twice['inputs']['rgb_mask'])
        assert same(once['inputs'], wrapped[EpochIndex(1, epoch=0)]['inputs'])


@pytest.mark.parametrize('test_mode', [False, True])
def test_a_stand_in_frame_has_the_draws_of_the_index_asked_for(root, test_mode):
    whole = dataset(root, pipeline=TRAIN, test_mode=test_mode)
    expected, neighbour = (whole[EpochIndex(i, 3, seed=5)]['inputs'] for i in (1, 2))
    (root / 'depth/a/10.png').write_bytes(b'')
    data = dataset(root, pipeline=TRAIN, on_error='drop', test_mode=test_mode)
    stand_in = data[EpochIndex(1, 3, seed=5)]
    assert stand_in['data_samples'].frame == 'a/2'
    assert torch.equal(stand_in['inputs']['rgb_mask'], expected['rgb_mask'])
    assert not torch.equal(stand_in['inputs']['rgb_mask'], neighbour['rgb_mask'])
    assert same(data[EpochIndex(2, 3, seed=5)]['inputs'], neighbour)


# ---------------------------------------------------------------- holding and sharing


@pytest.mark.parametrize('clone', [copy.deepcopy, lambda data: pickle.loads(pickle.dumps(data))])
@pytest.mark.parametrize('lazy_init', [True, False])
def test_copies(root, clone, lazy_init):
    data = dataset(root, pipeline=TRAIN, on_error='drop', lazy_init=lazy_init)
    copied = clone(data)
    assert same(data[EpochIndex(3, 1)]['inputs'], copied[EpochIndex(3, 1)]['inputs'])
    assert frames(copied) == frames(data)


def test_folders_of_a_backend_that_cannot_list(memory_files):
    with pytest.raises(ValueError, match=r"MemoryBackend cannot list .*rgb'.*index file"):
        dataset('memory://root')


def test_a_backend_is_used_from_index_to_pixels(memory_files):
    depth = np.linspace(1000, 5000, 12 * 16).reshape(12, 16).astype(np.uint16)
    memory_files['memory://root/index.txt'] = b'7\nlost\n'
    for name, array in (('rgb', np.zeros((12, 16, 3), np.uint8)), ('depth', depth)):
        memory_files[f'memory://root/{name}/7.png'] = cv2.imencode('.png', array)[1].tobytes()
    data = dataset('memory://root', ann_file='index.txt')
    torch.testing.assert_close(
        data[0]['inputs']['depth'][0], torch.from_numpy(depth.astype(np.float32)) / 1000
    )
    with pytest.raises(FileNotFoundError, match=r"'lost': memory://root/rgb/lost\.png"):
        data[1]


@pytest.fixture
def million(memory_files):
    """A data set of a million frames, read from an index through a backend (no file is made)."""
    count = 1_000_000
    names = [f'scene{i // 1000:04d}_00/{i % 1000:06d}' for i in range(count)]
    memory_files['memory://root/index.txt'] = '\n'.join(names).encode()
    return dataset('memory://root', ann_file='index.txt'), names


def private_bytes():
    """Memory of this process that no other one shares."""
    with open('/proc/self/smaps_rollup') as file:
        return sum(int(line.split()[1]) for line in file if line.startswith('Private_')) * 1024


def read_all(data, step, connection):
    before = private_bytes()
    last = ''
    for i in range(0, len(data), step):
        last = data.get_data_info(i)['frame']
    connection.send((last, private_bytes() - before))


def test_a_million_frames_are_cheap_and_shared(million):
    data, names = million
    assert len(data) == 1_000_000
    assert data.data_list == []
    for i in (0, 1, 123_456, -1):
        assert data.get_data_info(i)['frame'] == names[i]
    held = data.data_bytes.nbytes + data.data_address.nbytes
    per_frame = held / len(data)
    assert per_frame < 2 * len(names[0]) + 38  # the files, 22 bytes of pickle, 8 of address
    # A forked worker that touches every page of the list copies none of it.
    receiver, sender = multiprocessing.Pipe(duplex=False)
    context = multiprocessing.get_context('fork')
    worker = context.Process(target=read_all, args=(data, 50, sender))
    worker.start()
    assert receiver.poll(60)
    last, grown = receiver.recv()
    worker.join()
    assert last == names[-50]
    assert grown < held / 4
