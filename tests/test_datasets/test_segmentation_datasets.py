"""Label maps of the indoor data sets: ids, classes and what is refused."""

import struct
import unicodedata
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

pytest.importorskip('mmseg')

from mmmask3d.datasets.classes import SCANNET20_CLASSES
from mmmask3d.datasets.segmentation import (
    NYU13_CLASSES,
    NYU40_CLASSES,
    SUNRGBD37_CLASSES,
    NYUv2SegDataset,
    RoomsSegDataset,
    ScanNetSegDataset,
    SUNRGBDSegDataset,
    distinct_palette,
)

PIPELINE = [
    dict(type='mmseg.LoadImageFromFile'),
    dict(type='mmmask3d.LoadSegLabels'),
]
CASES = {
    'rooms': (RoomsSegDataset, 'semantic', 13, {}),
    'nyu13': (NYUv2SegDataset, 'label13', 13, {}),
    'nyu40': (NYUv2SegDataset, 'label40', 40, dict(num_classes=40)),
    'scannet': (ScanNetSegDataset, 'label20', 20, {}),
    'sunrgbd': (SUNRGBDSegDataset, 'label37', 37, {}),
}


def write(root, folder, name, labels):
    for sub, array in (('rgb', np.zeros((*labels.shape[:2], 3), np.uint8)), (folder, labels)):
        (root / sub).mkdir(exist_ok=True, parents=True)
        suffix = '.jpg' if sub == 'rgb' else '.png'
        assert cv2.imwrite(str(root / sub / (name + suffix)), array)


@pytest.fixture(params=CASES)
def case(request, tmp_path):
    """(function that builds the data set, root, label folder, number of classes)."""
    kind, folder, num_classes, kwargs = CASES[request.param]
    ids = np.arange(num_classes + 1, dtype=np.uint8)[None].repeat(2, axis=0)
    write(tmp_path, folder, 'a', ids)
    write(tmp_path, folder, 'b', ids[:, ::-1])
    (tmp_path / 'splits').mkdir()
    (tmp_path / 'splits/train.txt').write_text('b\n\n')

    def build(**more):
        return kind(**(dict(data_root=str(tmp_path), pipeline=PIPELINE) | kwargs | more))

    return build, tmp_path, folder, num_classes


def test_ids_start_at_0_and_unlabelled_is_255(case):
    build, root, folder, num_classes = case
    data = build()
    assert [info['img_path'] for info in map(data.get_data_info, range(len(data)))] == [
        f'{root}/rgb/{name}.jpg' for name in 'ab'
    ]
    np.testing.assert_array_equal(data[0]['gt_seg_map'][0], [255, *range(num_classes)])
    assert data[0]['seg_map_path'] == f'{root}/{folder}/a.png'


def test_the_split_file_chooses(case):
    build, _, _, num_classes = case
    data = build(ann_file='splits/train.txt')
    assert len(data) == 1
    np.testing.assert_array_equal(data[0]['gt_seg_map'][0], [*range(num_classes)][::-1] + [255])


def test_classes_and_colours(case):
    build, _, _, num_classes = case
    meta = build().metainfo
    assert len(meta['classes']) == len(set(meta['classes'])) == len(meta['palette']) == num_classes
    published = {
        13: NYU13_CLASSES,
        20: SCANNET20_CLASSES,
        37: SUNRGBD37_CLASSES,
        40: NYU40_CLASSES,
    }
    assert meta['classes'] == published[num_classes]
    assert {'bed', 'floor', 'wall'} < set(meta['classes'])


def test_ids_beyond_the_classes_are_refused(case):
    build, root, folder, num_classes = case
    labels = np.zeros((2, 4), np.uint8)
    labels[1, 2] = num_classes + 1
    write(root, folder, 'a', labels)
    with pytest.raises(ValueError, match=rf'a\.png: .*\[{num_classes + 1}\].*1\.\.{num_classes}\)'):
        build()[0]


def test_labels_of_16_bits_are_refused(case):
    """mmseg would read 257 as 1."""
    build, root, folder, _ = case
    write(root, folder, 'a', np.array([[0, 257, 269, 1]] * 2, np.uint16))
    with pytest.raises(ValueError, match=r'a\.png: a label map of 16 bits, expected 8'):
        build()[0]


@pytest.mark.parametrize(
    ('save', 'message'),
    [
        (dict(format='JPEG', quality=95), 'a label map as JPEG, whose loss'),
        (dict(format='TIFF'), 'a label map of 16 bits, expected 8'),
    ],
)
def test_other_files_that_would_change_ids_are_refused(case, save, message):
    build, root, folder, _ = case
    ids = np.array([[1, 2, 1, 1]] * 2, np.uint16 if save['format'] == 'TIFF' else np.uint8)
    Image.fromarray(ids).save(root / folder / 'a.png', **save)
    with pytest.raises(ValueError, match=rf'a\.png: {message}'):
        build()[0]


@pytest.mark.parametrize(('bits', 'row'), [(1, b'\x55'), (2, b'\x1b'), (4, b'\x12\x34')])
def test_labels_of_fewer_bits_are_refused(case, bits, row):
    """Pillow would read 1, 2 of 4 bits as 17, 34, which are classes as well."""
    build, root, folder, _ = case

    def chunk(kind, data):
        body = kind + data
        return struct.pack('>I', len(data)) + body + struct.pack('>I', zlib.crc32(body))

    header = struct.pack('>IIBBBBB', 4, 1, bits, 0, 0, 0, 0)
    parts = (b'IHDR', header), (b'IDAT', zlib.compress(b'\0' + row)), (b'IEND', b'')
    content = b'\x89PNG\r\n\x1a\n' + b''.join(chunk(*part) for part in parts)
    (root / folder / 'a.png').write_bytes(content)
    with pytest.raises(ValueError, match=rf'a\.png: a label map of {bits} bits, expected 8'):
        build()[0]


def test_the_indices_of_a_palette_are_labels(case):
    build, root, folder, _ = case
    ids = np.array([[1, 2, 3, 0]] * 2, np.uint8)
    image = Image.fromarray(ids, 'P')
    image.putpalette([0, 0, 0, 250, 9, 9, 9, 250, 9, 9, 9, 250])
    write(root, folder, 'a', ids)
    image.save(root / folder / 'a.png')
    labels = build()[0]['gt_seg_map']
    np.testing.assert_array_equal(labels, np.where(ids == 0, 255, ids - 1))


def test_colour_coded_labels_are_refused(case):
    build, root, folder, _ = case
    write(root, folder, 'a', np.zeros((2, 4, 3), np.uint8))
    with pytest.raises(ValueError, match=r'a\.png: .*one channel.*\(2, 4, 3\)'):
        build()[0]


@pytest.mark.parametrize(
    ('lost', 'message'),
    [('rgb/b.jpg', r'1 of 1 colour files .*rgb/b\.jpg'), ('{labels}/b.png', '1 of 1 label files')],
)
def test_missing_files_are_named_at_start_up(case, lost, message):
    build, root, folder, _ = case
    (root / lost.format(labels=folder)).unlink()
    with pytest.raises(FileNotFoundError, match=message):
        build(ann_file='splits/train.txt')


def test_labels_are_not_asked_for_where_none_are_loaded(case):
    build, root, folder, _ = case
    (root / folder / 'b.png').unlink()
    assert len(build(ann_file='splits/train.txt', pipeline=PIPELINE[:1])) == 1


@pytest.mark.parametrize('ann_file', ['', 'splits/x.txt'])
def test_split_links_case_and_unicode_are_as_for_pairs(case, ann_file, tmp_path):
    build, root, folder, num_classes = case
    for name in ('rgb/a.jpg', f'{folder}/a.png'):
        (root / name).unlink()
    nfd, nfc = (unicodedata.normalize(form, 'ü') for form in ('NFD', 'NFC'))
    (root / 'rgb/b.jpg').rename(root / f'rgb/{nfd}.JPG')
    (root / f'{folder}/b.png').rename(root / f'{folder}/{nfc}.Png')
    (root / 'rgb/loop').symlink_to(root / 'rgb')
    (root / 'splits/x.txt').write_bytes(f'{nfc}\r\n\r\n'.encode('utf-16'))
    data = build(ann_file=ann_file)
    assert [data.get_data_info(i)['img_path'] for i in range(len(data))] == [
        str(root / f'rgb/{nfd}.JPG')
    ]
    expected = [255, *range(num_classes)][::-1]
    assert data[0]['gt_seg_map'][0].tolist() == expected


def test_wrong_places(case):
    build, root, _, _ = case
    with pytest.raises(FileNotFoundError, match=r'nowhere.*data_root'):
        build(data_root=str(root / 'nowhere'))
    with pytest.raises(FileNotFoundError, match=r'splits/test\.txt does not exist'):
        build(ann_file='splits/test.txt')
    (root / 'splits/empty.txt').write_text('\n')
    with pytest.raises(ValueError, match=r'splits/empty\.txt names no frame'):
        build(ann_file='splits/empty.txt')


def test_another_number_of_classes_is_refused(tmp_path):
    with pytest.raises(ValueError, match='13 or 40, got 20'):
        NYUv2SegDataset(num_classes=20, data_root=str(tmp_path))


@pytest.mark.parametrize('num_colours', [1, 13, 40])
def test_palette_colours_differ(num_colours):
    palette = np.array(distinct_palette(num_colours))
    assert palette.shape == (num_colours, 3)
    assert palette.min() >= 0
    assert palette.max() <= 255
    distance = np.abs(palette[:, None] - palette[None]).sum(axis=-1)
    assert distance[~np.eye(num_colours, dtype=bool)].min(initial=999) > 20
    assert distinct_palette(num_colours) == distinct_palette(40)[:num_colours]
