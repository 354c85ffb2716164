"""Files of a packed data set, read under the paths of the folder it was."""

import copy
import json
import pickle
import unicodedata
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine import fileio
from mmengine.dataset import default_collate
from mmengine.fileio.backends import LocalBackend
from torch.utils.data import DataLoader

lmdb = pytest.importorskip('lmdb')

from mmmask3d.conversion.packing import pack  # noqa: E402
from mmmask3d.datasets import (  # noqa: E402
    EpochIndex,
    FrameError,
    PackedLmdbBackend,
    RGBDDataset,
)
from mmmask3d.datasets.packed_lmdb import (  # noqa: E402
    MANIFEST_KEY,
    PackedDatabaseError,
    PackedFileError,
    with_checksum,
)


@pytest.fixture
def root(tmp_path, write_frame):
    """Five frames in nested folders, an index, and the same packed."""
    root = tmp_path / 'data/frames'
    rng = np.random.default_rng(0)
    for name in ['b/1', 'a/2', 'a/1', 'a-c/1', 'c']:
        depth = rng.integers(500, 9000, (24, 32)).astype(np.uint16)
        write_frame(root, name, rng.integers(0, 256, (24, 32, 3), dtype=np.uint8), depth)
    (root / 'splits').mkdir()
    (root / 'splits/train.txt').write_text('c\na/2\nb/1\n')
    (root / 'ä.json').write_text('{"ä": 1}', encoding='utf-8')
    pack(root, tmp_path / 'frames.lmdb')
    return root


@pytest.fixture
def arguments(root, tmp_path):
    """`backend_args` of the packed frames."""
    return dict(backend='packed_lmdb', db_path=str(tmp_path / 'frames.lmdb'), data_root=str(root))


def files_of(root):
    return [p for p in sorted(root.rglob('*')) if p.is_file()]


# ---------------------------------------------------------------- mmengine's interface


def test_every_file_through_fileio(root, arguments):
    for path in files_of(root):
        assert fileio.get(str(path), backend_args=arguments) == path.read_bytes()
        assert fileio.exists(path, backend_args=arguments)
        assert fileio.isfile(path, backend_args=arguments)
        assert not fileio.isdir(path, backend_args=arguments)
    text = fileio.get_text(root / 'ä.json', backend_args=arguments)
    assert text == '{"ä": 1}'
    assert fileio.load(root / 'ä.json', backend_args=arguments) == {'ä': 1}
    with fileio.get_local_path(root / 'ä.json', backend_args=arguments) as local:
        assert local.endswith('ä.json')
        with open(local, 'rb') as file:
            assert file.read() == (root / 'ä.json').read_bytes()
    for folder in (root, root / 'rgb', root / 'rgb/a', f'{root}/rgb/'):
        assert fileio.isdir(folder, backend_args=arguments)
        assert fileio.exists(folder, backend_args=arguments)
        assert not fileio.isfile(folder, backend_args=arguments)
    joined = fileio.join_path(str(root), 'rgb', 'c.png', backend_args=arguments)
    assert joined == f'{root}/rgb/c.png'


@pytest.mark.parametrize('recursive', [True, False])
@pytest.mark.parametrize(
    'options',
    [
        {},
        dict(list_dir=False),
        dict(list_file=False),
        dict(list_dir=False, suffix='.png'),
        dict(list_dir=False, suffix=('.txt', '.json')),
    ],
)
@pytest.mark.parametrize('folder', ['', 'rgb', 'rgb/a', 'rgb/'])
def test_folders_are_listed_as_on_disk(root, arguments, folder, options, recursive):
    path = f'{root}/{folder}' if folder else str(root)
    packed = fileio.get_file_backend(path, backend_args=arguments)
    expected = sorted(LocalBackend().list_dir_or_file(path, recursive=recursive, **options))
    got = list(packed.list_dir_or_file(path, recursive=recursive, **options))
    assert sorted(got) == expected
    assert expected or folder == 'rgb/a' or options


def test_what_is_not_there(root, arguments):
    for name in ('rgb/none.png', 'rgb', 'x' * 600, 'rgb/\udcff.png'):
        with pytest.raises(FileNotFoundError, match=r'does not exist: .*frames\.lmdb has no'):
            fileio.get(f'{root}/{name}', backend_args=arguments)
        assert not fileio.isfile(f'{root}/{name}', backend_args=arguments)
    backend = fileio.get_file_backend(backend_args=arguments)
    with pytest.raises(
        FileNotFoundError, match=r"no folder 'depths'.*: depth, rgb, splits, ä\.json"
    ):
        list(backend.list_dir_or_file(f'{root}/depths'))
    with pytest.raises(FileNotFoundError, match="no folder 'rg'"):
        list(backend.list_dir_or_file(f'{root}/rg'))  # a beginning of a name is no folder


@pytest.mark.parametrize(
    ('data_root', 'path', 'key'),
    [
        ('data/x', 'data/x/rgb/0.png', 'rgb/0.png'),
        ('data/x/', 'data/x//rgb/./0.png', 'rgb/0.png'),
        ('./data/x', 'data/x/rgb/0.png', 'rgb/0.png'),
        ('/data/x', '/data/x/rgb/../rgb/0.png', 'rgb/0.png'),
        ('', 'rgb/0.png', 'rgb/0.png'),
        ('.', './rgb/0.png', 'rgb/0.png'),
        ('data', 'data/data/0.png', 'data/0.png'),
        ('/', '/rgb/0.png', 'rgb/0.png'),
    ],
)
def test_the_root_is_stripped(data_root, path, key):
    assert PackedLmdbBackend('a.lmdb', data_root)._key(path) == key


@pytest.mark.parametrize(
    ('data_root', 'path'),
    [
        ('data/x', 'data/xy/rgb/0.png'),
        ('data/x', 'rgb/0.png'),
        ('data/x', '/data/x/rgb/0.png'),
        ('data/x', 'data/x/../y/0.png'),
        ('data/x', 'other/data/x/0.png'),
        ('', '/rgb/0.png'),
        ('', '../rgb/0.png'),
        ('', '..'),
        ('/', '//manifest'),
    ],
)
def test_other_folders_are_refused(data_root, path):
    backend = PackedLmdbBackend('a.lmdb', data_root)
    with pytest.raises(PackedDatabaseError, match='does not lie below data_root'):
        backend._key(path)


# ---------------------------------------------------------------- the data sets


TRAIN = [
    dict(type='mmmask3d.LoadRGBD'),
    dict(type='mmmask3d.RGBDRandomResizedCrop', scale=(16, 16)),
    dict(type='mmmask3d.DepthAwareMasking', patch_size=8),
    dict(type='mmmask3d.PackRGBDInputs'),
]


def dataset(root, arguments=None, **options):
    pipeline = copy.deepcopy(TRAIN)
    pipeline[0]['backend_args'] = arguments
    settings = dict(data_root=str(root), img_suffix='.png', pipeline=pipeline)
    return RGBDDataset(backend_args=arguments, **(settings | options))


def frames(data):
    return [data.get_data_info(i)['frame'] for i in range(len(data))]


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize('ann_file', ['', 'splits/train.txt'])
def test_backend_args_alone_change(root, arguments, ann_file):
    folder = dataset(root, ann_file=ann_file)
    packed = dataset(root, arguments, ann_file=ann_file)
    assert frames(packed) == frames(folder)
    for i in range(len(folder)):
        index = EpochIndex(i, epoch=2)
        assert same(folder[index]['inputs'], packed[index]['inputs'])
        assert folder[index]['data_samples'].img_path == packed[index]['data_samples'].img_path


def test_workers(root, arguments):
    data = dataset(root, arguments)
    alone = [data[i]['data_samples'].frame for i in range(len(data))]  # opened here before
    loader = DataLoader(data, batch_size=1, num_workers=2, collate_fn=default_collate)
    for _ in range(2):
        assert [batch['data_samples'][0].frame for batch in loader] == alone
    assert data[0]['data_samples'].frame == alone[0]


def test_several_backends_share_a_database(root, arguments):
    backend = PackedLmdbBackend(arguments['db_path'], arguments['data_root'])
    others = [
        PackedLmdbBackend(arguments['db_path']),
        copy.deepcopy(backend),
        pickle.loads(pickle.dumps(backend)),
    ]
    text = (root / 'splits/train.txt').read_bytes()
    assert backend.get(f'{root}/splits/train.txt') == text
    assert others[0].get('splits/train.txt') == text
    del backend
    for other in others[1:]:
        assert other.get(f'{root}/splits/train.txt') == text


def test_missing_parts_are_reported_as_for_folders(root, arguments, tmp_path):
    prefix = dict(img_path='rgb', depth_path='depths')
    with pytest.raises(
        FileNotFoundError,
        match=r"the folder '.*depths' \(data_prefix\['depth_path'\]\).*depth, rgb",
    ):
        dataset(root, arguments, data_prefix=prefix)
    with pytest.raises(FileNotFoundError, match=r"splits/val\.txt' does not exist.*frames\.lmdb"):
        dataset(root, arguments, ann_file='splits/val.txt')
    with pytest.raises(FileNotFoundError, match=r"ends in '\.jpg'; found: 5 '\.png'"):
        dataset(root, arguments, img_suffix='.jpg')
    (root / 'depth/a/2.png').unlink()
    pack(root, tmp_path / 'less.lmdb')
    less = dict(arguments, db_path=str(tmp_path / 'less.lmdb'))
    for ann_file in ('', 'splits/train.txt'):
        with pytest.raises(FileNotFoundError, match=r'1 of \d frames.*depth/a/2\.png'):
            dataset(root, less, ann_file=ann_file)
        data = dataset(root, less, ann_file=ann_file, on_error='drop')
        assert 'a/2' not in frames(data)
        assert data.num_without_partner == 1


def test_a_damaged_frame_is_dropped_a_damaged_database_is_not(root, arguments, tmp_path):
    # Everywhere: a page that LMDB no longer uses may hold the bytes as well, before the one in use.
    part = (root / 'rgb/a/2.png').read_bytes()[100:200]
    content = (tmp_path / 'frames.lmdb').read_bytes()
    assert part in content
    other = bytes([part[0] ^ 1]) + part[1:]
    (tmp_path / 'bad.lmdb').write_bytes(content.replace(part, other))
    bad = dict(arguments, db_path=str(tmp_path / 'bad.lmdb'))
    with pytest.raises(FrameError, match=r"'a/2': .*'rgb/a/2\.png' in .*bad\.lmdb: the checksum"):
        dataset(root, bad)[2]
    data = dataset(root, bad, on_error='drop')
    assert data[2]['data_samples'].frame == 'b/1'
    assert data.num_unreadable == 1
    with pytest.raises(PackedFileError, match='rgb/a/2'):
        fileio.get(f'{root}/rgb/a/2.png', backend_args=bad)
    # Only the loader meets this one, when the data set is complete already.
    mixed = dataset(root, on_error='drop')
    mixed.pipeline.transforms[0].backend_args = dict(bad, db_path=str(tmp_path / 'none.lmdb'))
    with pytest.raises(PackedDatabaseError, match=r'none\.lmdb: .*found nothing.*db_path'):
        mixed[0]


# ---------------------------------------------------------------- other libraries' readers


@pytest.fixture
def packed_and_labelled(root, arguments, tmp_path):
    for name in ('a/1', 'a/2', 'b/1', 'c', 'a-c/1'):
        path = root / f'label13/{name}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), np.full((24, 32), 1 + len(name), np.uint8))
    pack(root, tmp_path / 'labelled.lmdb')
    return dict(arguments, db_path=str(tmp_path / 'labelled.lmdb'))


@pytest.mark.parametrize('ann_file', ['', 'splits/train.txt'])
def test_segmentation_data_sets(root, packed_and_labelled, ann_file):
    pytest.importorskip('mmseg')
    from mmmask3d.datasets.segmentation import NYUv2SegDataset

    def build(arguments):
        return NYUv2SegDataset(
            data_root=str(root),
            ann_file=ann_file,
            img_suffix='.png',
            backend_args=arguments,
            pipeline=[
                dict(type='mmcv.LoadImageFromFile', backend_args=arguments),
                dict(type='mmmask3d.LoadSegLabels', backend_args=arguments),
            ],
        )

    folder, packed = build(None), build(packed_and_labelled)
    assert len(packed) == len(folder) == (3 if ann_file else 5)
    for i in range(len(folder)):
        a, b = folder[i], packed[i]
        assert a['img_path'] == b['img_path']
        np.testing.assert_array_equal(a['img'], b['img'])
        np.testing.assert_array_equal(a['gt_seg_map'], b['gt_seg_map'])


def test_coco_annotations(root, arguments, tmp_path):
    pytest.importorskip('mmdet')
    from mmdet.datasets import CocoDataset

    box = dict(id=1, image_id=7, category_id=1, bbox=[2, 3, 10, 9], area=90, iscrowd=0)
    content = dict(
        images=[dict(id=7, file_name='c.png', height=24, width=32)],
        annotations=[box],
        categories=[dict(id=1, name='chair')],
    )
    (root / 'annotations').mkdir()
    (root / 'annotations/train.json').write_text(json.dumps(content))
    packed = dict(arguments, db_path=str(tmp_path / 'coco.lmdb'))
    pack(root, Path(packed['db_path']))
    data = CocoDataset(
        data_root=str(root),
        ann_file='annotations/train.json',
        data_prefix=dict(img='rgb'),
        metainfo=dict(classes=('chair',)),
        backend_args=packed,
        pipeline=[dict(type='mmcv.LoadImageFromFile', backend_args=packed)],
    )
    np.testing.assert_array_equal(data[0]['img'], cv2.imread(f'{root}/rgb/c.png'))
    assert data[0]['instances'][0]['bbox'] == [2, 3, 12, 12]


# ---------------------------------------------------------------- damaged databases


def test_truncated_databases(root, arguments, tmp_path):
    """LMDB maps the file and would be killed (SIGBUS) beyond its end."""
    content = (tmp_path / 'frames.lmdb').read_bytes()
    page = 4096
    for length in (0, 100, page, 2 * page + 1, len(content) - page, len(content) - 1):
        path = tmp_path / f'{length}.lmdb'
        path.write_bytes(content[:length])
        with pytest.raises(PackedDatabaseError, match=rf'{length}\.lmdb: '):
            PackedLmdbBackend(str(path)).get('splits/train.txt')
    longer = tmp_path / 'longer.lmdb'
    longer.write_bytes(content + bytes(page))
    assert PackedLmdbBackend(str(longer)).get('splits/train.txt') == b'c\na/2\nb/1\n'


def test_other_files_and_folders(tmp_path):
    (tmp_path / 'text.lmdb').write_bytes(b'no database at all\n' * 1000)
    (tmp_path / 'folder.lmdb').mkdir()
    for name, message in (
        ('text', 'no LMDB database, or a damaged one'),
        ('folder', 'found a folder'),
        ('nothing', 'found nothing'),
    ):
        with pytest.raises(PackedDatabaseError, match=rf'{name}\.lmdb: .*{message}'):
            PackedLmdbBackend(str(tmp_path / f'{name}.lmdb')).get('a')


def write_database(path, items):
    with (
        lmdb.open(str(path), subdir=False, lock=False, map_size=2**20) as environment,
        environment.begin(write=True) as transaction,
    ):
        for key, value in items.items():
            transaction.put(key, value)


@pytest.mark.parametrize(
    ('manifest', 'message'),
    [
        (None, 'has no manifest'),
        (b'{"format": "mmmask3d packed files", "version": 1}\x00\x00\x00\x00', 'the checksum'),
        (with_checksum(MANIFEST_KEY, b'{"version": 1}'), 'damaged manifest'),
        (
            with_checksum(MANIFEST_KEY, b'{"format": "mmmask3d packed files", "version": 2}'),
            "version 2, expected 'mmmask3d packed files' version 1",
        ),
    ],
)
def test_manifests(tmp_path, manifest, message):
    items = {b'a': with_checksum(b'a', b'x')}
    if manifest is not None:
        items[MANIFEST_KEY] = manifest
    write_database(tmp_path / 'a.lmdb', items)
    with pytest.raises(PackedDatabaseError, match=rf'a\.lmdb: .*{message}'):
        PackedLmdbBackend(str(tmp_path / 'a.lmdb')).get('a')


@pytest.mark.parametrize('value', [b'', b'xabcd', with_checksum(b'b', b'x')])
def test_values_without_their_checksum(tmp_path, value):
    manifest = with_checksum(MANIFEST_KEY, b'{"format": "mmmask3d packed files", "version": 1}')
    write_database(tmp_path / 'a.lmdb', {b'a': value, MANIFEST_KEY: manifest})
    with pytest.raises(PackedFileError, match=r"'a' in .*a\.lmdb: the checksum"):
        PackedLmdbBackend(str(tmp_path / 'a.lmdb')).get('a')


def test_a_replaced_database_is_opened_anew(root, arguments, tmp_path):
    backend = PackedLmdbBackend(arguments['db_path'])
    assert backend.get('splits/train.txt') == b'c\na/2\nb/1\n'
    (root / 'splits/train.txt').write_text('c\n')
    (tmp_path / 'frames.lmdb').unlink()
    pack(root, tmp_path / 'frames.lmdb')
    assert PackedLmdbBackend(arguments['db_path']).get('splits/train.txt') == b'c\n'
    assert backend.get('splits/train.txt') == b'c\na/2\nb/1\n'  # what it has open


def test_names_are_found_in_any_unicode_form(tmp_path, write_frame):
    """Packed from a folder that came from a Mac, read by lists written elsewhere."""
    root = tmp_path / 'data'
    nfd = unicodedata.normalize('NFD', 'Küche')
    image, depth = write_frame(root, f'{nfd}/1')
    (root / 'index.txt').write_text('Küche/1')
    pack(root, tmp_path / 'x.lmdb')
    backend = PackedLmdbBackend(str(tmp_path / 'x.lmdb'), str(root))
    for name in (f'{root}/rgb/Küche/1.png', f'{root}/rgb/{nfd}/1.png'):
        assert backend.get(name) == image.read_bytes()
        assert backend.isfile(name)
        assert backend.isdir(name.rpartition('/')[0])
    assert list(backend.list_dir_or_file(f'{root}/rgb/Küche', list_dir=False)) == ['1.png']
    assert not backend.exists(f'{root}/rgb/Köche')
    with pytest.raises(FileNotFoundError, match='Köche'):
        backend.get(f'{root}/rgb/Köche/1.png')
    arguments = dict(backend='packed_lmdb', db_path=str(tmp_path / 'x.lmdb'), data_root=str(root))
    for ann_file in ('', 'index.txt'):
        info = dataset(root, arguments, ann_file=ann_file).get_data_info(0)
        assert info['img_path'] == f'{root}/rgb/Küche/1.png'
        assert info['depth_path'] == f'{root}/depth/Küche/1.png'
    copied = pickle.loads(pickle.dumps(backend))
    assert copied.get(f'{root}/depth/Küche/1.png') == depth.read_bytes()
