"""SUN RGB-D: rotated bits, labels and the official split, by value; damage is named."""

import json
import shutil
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
import scipy.io

from mmmask3d.conversion.command_line import build_parser, run
from mmmask3d.conversion.paths import SourceError
from mmmask3d.conversion.sources import sunrgbd
from mmmask3d.conversion.sources.sunrgbd import SUNRGBDConverter, folder_in_tree, unrotate
from mmmask3d.datasets.classes import NYU40_CLASSES, SUNRGBD37_CLASSES
from mmmask3d.datasets.depth_io import FrameError

# The masking of a base alone: elsewhere its patches are the encoder's.
PATCHES = {'model.backbone.patch_size': 16}
ROOT = Path(__file__).parents[3]
AUTHORS = '/n/fs/sun3d/data/SUNRGBD'  # of whose machine the lists speak
# Folder, colour, depth, (height, width), part: one of every sensor, sizes in proportion.
FRAMES = [
    ('kv2/kinect2data/000002_2014-05-26_rgbf000103-resize', '103.jpg', '103.png', (53, 73), 'test'),
    ('realsense/lg/2014_10_22-14_55', '2.jpg', '2-000000033369.png', (53, 68), 'test'),
    ('kv1/NYUdata/NYU0003', 'NYU0003.jpg', 'NYU0003.png', (43, 56), 'train'),
    ('xtion/sun3ddata/hotel/hotel/0000110-0', '110.jpg', '110-0.png', (44, 59), 'train'),
]
# As the lists have them: a trailing slash, then a doubled one in the path of the file.
WITH_SLASH = {1}


def rotated(depth):
    """Millimetres as they are stored: the three highest bits become the lowest."""
    return ((depth.astype(np.uint32) << 3 | depth.astype(np.uint32) >> 13) & 0xFFFF).astype('u2')


def make_frame(index):
    """Colour (BGR), raw and in-filled depth in millimetres, labels."""
    rng = np.random.default_rng(index)
    height, width = FRAMES[index][3]
    axes = np.meshgrid(np.linspace(20, 230, height), np.linspace(20, 230, width), indexing='ij')
    image = np.stack([*axes, np.full((height, width), 50 * index)], axis=2).astype(np.uint8)
    filled = rng.integers(500, 7999, (height, width)).astype(np.uint16)
    raw = np.where(rng.random((height, width)) < 0.2, 0, filled).astype(np.uint16)
    raw[0, :4] = [7999, 8000, 8191, 65535]
    labels = rng.integers(0, 38, (height, width)).astype(np.uint8)
    return image, raw, filled, labels


def frame_path(index):
    folder = f'{AUTHORS}/{FRAMES[index][0]}'
    return folder + '/' if index in WITH_SLASH else folder


def save_png(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), array)


def write_tree(root):
    for index, (folder, image, depth, _, _) in enumerate(FRAMES):
        colour, raw, filled, _ = make_frame(index)
        at = root / 'SUNRGBD' / folder
        save_png(at / 'image' / image, colour)
        save_png(at / 'depth' / depth, rotated(raw))
        save_png(at / 'depth_bfx' / depth, rotated(filled))


def write_meta(root, paths=None, fields=('rgbpath', 'rgbname', 'depthname')):
    """SUNRGBDMeta.mat: a struct array whose other fields are passed over."""
    paths = paths or [frame_path(i) for i in range(len(FRAMES))]
    dtype = [(f, object) for f in ('K', *fields, 'groundtruth3DBB')]
    meta = np.empty((1, len(paths)), dtype)
    for i, path in enumerate(paths):
        _, image, depth, _, _ = FRAMES[i]
        meta[0, i]['K'] = np.eye(3)
        boxes = np.array([('chair', 1.5), ('bed', 2.5)], [('classname', object), ('c', object)])
        meta[0, i]['groundtruth3DBB'] = boxes
        values = {'rgbpath': f'{path}/image/{image}', 'rgbname': image, 'depthname': depth}
        for field in fields:
            meta[0, i][field] = values[field]
    (root / 'SUNRGBDtoolbox/Metadata').mkdir(parents=True, exist_ok=True)
    content = {'SUNRGBDMeta': meta}
    scipy.io.savemat(root / 'SUNRGBDtoolbox' / sunrgbd.META, content, do_compression=True)


def write_split(root, train=None, test=None):
    def cells(part, given):
        paths = [frame_path(i) for i, f in enumerate(FRAMES) if f[4] == part]
        paths = paths if given is None else given
        array = np.empty((1, len(paths)), object)
        array[0, :] = paths
        return array

    (root / 'SUNRGBDtoolbox/traintestSUNRGBD').mkdir(parents=True, exist_ok=True)
    content = {'alltrain': cells('train', train), 'alltest': cells('test', test)}
    scipy.io.savemat(root / 'SUNRGBDtoolbox' / sunrgbd.ALL_SPLIT, content, do_compression=True)


def write_labels(root, mat73, labels=None):
    """SUNRGBD2Dseg.mat: a 1 x N struct array with names, seglabel and seglabelall."""
    labels = labels or [make_frame(i)[3] for i in range(len(FRAMES))]
    with mat73(root / 'SUNRGBDtoolbox' / sunrgbd.SEGMENTATION) as file:
        file.file.create_group('SUNRGBD2Dseg').attrs['MATLAB_class'] = np.bytes_('struct')
        hidden = [file.hidden(array, array.dtype.name) for array in labels]
        file.references('SUNRGBD2Dseg/seglabel', hidden, True, 'cell')
        other = [file.hidden(np.full(array.shape, 100, np.uint16), 'uint16') for array in labels]
        file.references('SUNRGBD2Dseg/seglabelall', other, True, 'cell')


@pytest.fixture
def source(tmp_path, mat73):
    """The data set as distributed."""
    root = tmp_path / 'sunrgbd'
    write_tree(root)
    write_meta(root)
    write_split(root)
    write_labels(root, mat73)
    return root


def converter(root, *options):
    args = build_parser(SUNRGBDConverter).parse_args([str(root), 'unused', *options])
    return SUNRGBDConverter(args)


def read_all(root, *options):
    """Frames by name, without the machinery around; a problem is raised."""
    made = converter(root, *options)
    (tree,) = made.sources()
    plan = made.plan(tree)
    if plan.problems:
        raise SourceError('; '.join(plan.problems))
    with made.open(tree) as opened:
        return {ref.name: made.read(opened, ref.locator) for ref in plan.frames}


def load(path):
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert image is not None, path
    return image


# -------------------------------------------------------------------- by value


def test_rotation_of_all_16_bit_values():
    """Python integers and the rule of read3dPoints.m: bitor(bitshift(d,-3), bitshift(d,16-3))."""
    stored = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    expected = [(d >> 3) | ((d << 13) % 65536) for d in range(65536)]
    np.testing.assert_array_equal(unrotate(stored).ravel(), expected)
    assert unrotate(stored).dtype == np.uint16
    np.testing.assert_array_equal(unrotate(rotated(stored)), stored)
    np.testing.assert_array_equal(rotated(unrotate(stored)), stored)


def test_every_pixel_arrives(source, tmp_path, capsys):
    out = tmp_path / 'out'
    arguments = [str(source), str(out), '--workers', '1', '--filled']
    assert run(SUNRGBDConverter, arguments) == 0
    for index, (folder, image, _, _, _) in enumerate(FRAMES):
        _, raw, filled, labels = make_frame(index)
        stored = (source / 'SUNRGBD' / folder / 'image' / image).read_bytes()
        assert (out / 'rgb' / f'{folder}.jpg').read_bytes() == stored
        depth = load(out / 'depth' / f'{folder}.png')
        assert depth.dtype == np.uint16
        # What the toolbox cuts off at 8 m is no reading.
        assert depth[0, :4].tolist() == [7999, 0, 0, 0]
        np.testing.assert_array_equal(depth, np.where(raw < 8000, raw, 0))
        np.testing.assert_array_equal(load(out / 'depth_filled' / f'{folder}.png'), filled)
        label = load(out / 'label37' / f'{folder}.png')
        assert label.dtype == np.uint8
        np.testing.assert_array_equal(label, labels)
    lists = {p.stem: p.read_text().split() for p in (out / 'splits').iterdir()}
    assert lists['test'] == sorted(FRAMES[i][0] for i in (0, 1))
    assert lists['train'] == sorted(FRAMES[i][0] for i in (2, 3))
    manifest = json.loads((out / 'manifest.json').read_text())
    assert manifest['classes'] == {'label37': list(SUNRGBD37_CLASSES)}
    assert manifest['left_out'] == []
    assert run(SUNRGBDConverter, arguments) == 0
    assert 'all 4 frames are there, nothing to do' in capsys.readouterr().out


def test_max_depth(source):
    frames = read_all(source, '--max-depth', '70')
    depth = frames[FRAMES[0][0]].images['depth']
    np.testing.assert_array_equal(depth, make_frame(0)[1])
    frames = read_all(source, '--max-depth', '2.5')
    raw = make_frame(0)[1]
    depth = frames[FRAMES[0][0]].images['depth']
    np.testing.assert_array_equal(depth, np.where(raw < 2500, raw, 0))


def test_without_labels(source, tmp_path):
    """Neither the large file of labels nor in-filled depth is needed."""
    (source / 'SUNRGBDtoolbox' / sunrgbd.SEGMENTATION).unlink()
    shutil.rmtree(source / 'SUNRGBD' / FRAMES[0][0] / 'depth_bfx')
    with pytest.raises(SourceError, match=r'SUNRGBD2Dseg\.mat does not exist'):
        read_all(source)
    shutil.move(source / 'SUNRGBDtoolbox', tmp_path / 'elsewhere')
    options = ['--no-labels', '--toolbox', str(tmp_path / 'elsewhere')]
    frames = read_all(source, *options)
    assert [sorted(f.images) for f in frames.values()] == [['depth', 'rgb']] * 4
    assert converter(source, *options).options() != converter(source).options()


@pytest.mark.parametrize('dtype', ['u1', 'u2', 'f8'])
def test_labels_of_any_numeric_type(source, mat73, dtype):
    labels = [make_frame(i)[3].astype(dtype) for i in range(len(FRAMES))]
    write_labels(source, mat73, labels)
    frames = read_all(source)
    for index, frame in enumerate(frames.values()):
        np.testing.assert_array_equal(frame.images['label37'], make_frame(index)[3])


def test_classes():
    assert len(SUNRGBD37_CLASSES) == 37
    # seg37list.mat of the toolbox.
    toolbox = [
        'wall', 'floor', 'cabinet', 'bed', 'chair', 'sofa', 'table', 'door', 'window', 'bookshelf',
        'picture', 'counter', 'blinds', 'desk', 'shelves', 'curtain', 'dresser', 'pillow', 'mirror',
        'floor_mat', 'clothes', 'ceiling', 'books', 'fridge', 'tv', 'paper', 'towel',
        'shower_curtain', 'box', 'whiteboard', 'person', 'night_stand', 'toilet', 'sink', 'lamp',
        'bathtub', 'bag',
    ]  # fmt: skip
    ours = {'fridge': 'refridgerator', 'tv': 'television'}
    assert [ours.get(n, n.replace('_', ' ')) for n in toolbox] == list(SUNRGBD37_CLASSES)
    assert tuple(NYU40_CLASSES[:37]) == SUNRGBD37_CLASSES


def test_paths_of_the_lists():
    where = 'list'
    assert folder_in_tree('/n/fs/sun3d/data/SUNRGBD/kv1/b/c', where) == 'kv1/b/c'
    assert folder_in_tree('SUNRGBD/kv1/b', where) == 'kv1/b'
    assert folder_in_tree('/data/SUNRGBD/xtion/SUNRGBD/b', where) == 'xtion/SUNRGBD/b'
    for wrong in ('', '/n/fs/sun3d/data/kv1/b', '/data/SUNRGBD/', '/data/MYSUNRGBD/kv1'):
        with pytest.raises(SourceError, match=r'list: .*does not lie in a folder SUNRGBD'):
            folder_in_tree(wrong, where)


# -------------------------------------------------------------------- read by the configs


def test_the_configs_read_what_is_written(source, tmp_path):
    pytest.importorskip('mmseg')
    from mmengine.registry import init_default_scope

    from mmmask3d.engine.run_config import load_config
    from mmmask3d.registry import DATASETS

    out = tmp_path / 'out'
    assert run(SUNRGBDConverter, [str(source), str(out), '--workers', '1']) == 0
    folder = ROOT / 'configs/_base_/datasets'
    for name, scope in [('sunrgbd_pretrain', 'mmmask3d'), ('sunrgbd_37_seg', 'mmseg')]:
        for part in ('train', 'val'):
            init_default_scope(scope)
            dataset = load_config(folder / f'{name}.py', cfg_options=PATCHES)[
                f'{part}_dataloader'
            ].dataset
            dataset.data_root = str(out)
            built = DATASETS.build(dataset)
            assert len(built) == 2
            sample = built[0]
            assert sample['inputs'] is not None
    labels = sample['data_samples'].gt_sem_seg.data.numpy()[0]
    stored = make_frame(0)[3].astype(int)  # the first of the test part, by name
    np.testing.assert_array_equal(labels, np.where(stored == 0, 255, stored - 1))
    assert sample['inputs'].shape == (3, 240, 320)
    assert built.metainfo['classes'] == SUNRGBD37_CLASSES
    assert len(built.metainfo['palette']) == 37


# -------------------------------------------------------------------- damage


def encoded(array, suffix='.png'):
    return cv2.imencode(suffix, array)[1].tobytes()


FIRST = FRAMES[0]
SHAPE = FIRST[3]
DEPTH, IMAGE, FILLED = f'depth/{FIRST[2]}', f'image/{FIRST[1]}', f'depth_bfx/{FIRST[2]}'


@pytest.mark.parametrize(
    ('file', 'content', 'message'),
    [
        (DEPTH, b'', '103.png: expected a PNG image, found 0 bytes'),
        (DEPTH, encoded(np.ones(SHAPE, np.uint16))[:-20], 'truncated PNG'),
        (
            DEPTH,
            encoded(np.ones(SHAPE, np.uint8)),
            'expected a grey PNG of 16 bits, found grey of 8 bits',
        ),
        (DEPTH, encoded(np.ones((*SHAPE, 3), np.uint8)), 'grey PNG of 16 bits, found RGB of 8'),
        (DEPTH, encoded(np.ones((*SHAPE, 3), np.uint8), '.jpg'), 'found the format JPEG'),
        (DEPTH, None, r'No such file .*103\.png'),
        (IMAGE, b'', '103.jpg: expected a JPEG image, found 0 bytes'),
        (IMAGE, encoded(np.zeros((*SHAPE, 3), np.uint8)), 'found the format PNG'),
        (IMAGE, encoded(np.zeros((106, 146, 3), np.uint8), '.jpg'), '146x106 pixels, .* has 73x53'),
        (IMAGE, None, r'No such file .*103\.jpg'),
        (FILLED, encoded(np.ones((52, 73), np.uint16)), 'depth_bfx.*73x52 pixels, .* has 73x53'),
    ],
)
def test_damaged_frame(source, file, content, message):
    path = source / 'SUNRGBD' / FIRST[0] / file
    made = converter(source, '--filled')
    (tree,) = made.sources()
    plan = made.plan(tree)
    assert not plan.problems
    path.unlink() if content is None else path.write_bytes(content)
    with made.open(tree) as opened:
        with pytest.raises((FrameError, OSError), match=message):
            made.read(opened, plan.frames[0].locator)
        made.read(opened, plan.frames[1].locator)


def test_what_is_damaged_is_named_and_the_others_are_kept(source, tmp_path, capsys):
    colour = source / 'SUNRGBD' / FRAMES[0][0] / IMAGE
    colour.write_bytes(colour.read_bytes()[:-30])  # found when it is read
    (source / 'SUNRGBD' / FRAMES[1][0] / 'depth' / FRAMES[1][2]).unlink()  # found before
    out = tmp_path / 'out'
    arguments = [str(source), str(out), '--workers', '1']
    assert run(SUNRGBDConverter, arguments) == 1
    errors = capsys.readouterr().err
    assert f'frame {FRAMES[0][0]}: {colour}: truncated JPEG' in errors
    assert f'{FRAMES[1][2]} does not exist, expected a file of the frame {FRAMES[1][0]}' in errors
    assert '2 parts of the data set cannot be read' in errors
    assert run(SUNRGBDConverter, [*arguments, '--on-error', 'drop']) == 0
    assert (out / 'splits/all.txt').read_text().split() == sorted(f[0] for f in FRAMES[2:])


@pytest.mark.parametrize(
    ('label', 'message'),
    [
        (np.zeros((5, 6), np.uint8), 'declared as uint8 6x5 .* expected 73x53'),
        (np.full(SHAPE, 0.5), 'holds float64 from 0.5 to 0.5, expected ids of 0 to 37'),
        (np.full(SHAPE, 300, np.uint16), 'holds uint16 from 300 to 300'),
        (np.full(SHAPE, -1.0), 'holds float64 from -1'),
        (np.full(SHAPE, np.nan), 'holds float64'),
        (np.zeros(SHAPE[:1] + (1,) + SHAPE[1:], np.uint8), 'declared as uint8 73x1x53'),
    ],
)
def test_damaged_label(source, mat73, label, message):
    write_labels(source, mat73, [label, *(make_frame(i)[3] for i in range(1, len(FRAMES)))])
    with pytest.raises((FrameError, SourceError), match=f'seglabel of frame 1 .*{message}'):
        read_all(source)


def test_label_ids_beyond_the_classes(source, mat73, tmp_path, capsys):
    labels = [make_frame(i)[3] for i in range(len(FRAMES))]
    labels[2][0, 0] = 38
    write_labels(source, mat73, labels)
    assert run(SUNRGBDConverter, [str(source), str(tmp_path / 'out'), '--workers', '1']) == 1
    message = 'NYU0003: label37 has the ids 38, expected 0 (unlabelled) or 1 to 37'
    assert message in capsys.readouterr().err


def test_labels_of_another_download(source, mat73):
    write_labels(source, mat73, [make_frame(0)[3]])
    with pytest.raises(SourceError, match=r'has labels of 1 frames, but .* lists 4'):
        read_all(source)
    path = source / 'SUNRGBDtoolbox' / sunrgbd.SEGMENTATION
    with h5py.File(path, 'w') as file:
        file.create_group('SUNRGBD2Dseg')
    with pytest.raises(SourceError, match='seglabel is missing'):
        read_all(source)
    path.write_bytes(b'MATLAB 5.0 MAT-file')
    with pytest.raises(SourceError, match=r'SUNRGBD2Dseg\.mat: no HDF5 signature'):
        read_all(source)


@pytest.mark.parametrize(
    'path',
    [
        f'{AUTHORS}/../../outside/frame',
        f'{AUTHORS}/kv1/../../../outside/frame',
        f'{AUTHORS}//etc/frame',
        f'{AUTHORS}/kv1\\..\\frame',
        f'{AUTHORS}/kv1/fr\name',
    ],
)
def test_paths_that_climb_out_of_the_tree(source, path):
    """Even where the split agrees."""
    paths = [path, *(frame_path(i) for i in range(1, len(FRAMES)))]
    write_meta(source, paths)
    write_split(source, test=paths[:2])
    made = converter(source)
    plan = made.plan(*made.sources())
    assert [f.name for f in plan.frames] == [f[0] for f in FRAMES[1:]]
    assert len(plan.problems) == 1
    assert 'SUNRGBDMeta.mat, entry 1' in plan.problems[0]


@pytest.mark.parametrize(
    ('train', 'test', 'message'),
    [
        (
            None,
            [frame_path(2), frame_path(0)],
            'alltest, entry 1: .* is listed twice',
        ),
        ([frame_path(3), frame_path(3)], None, 'alltrain, entry 2: .* is listed twice'),
        ([frame_path(3), frame_path(3) + '//'], None, 'alltrain, entry 2: .* is listed twice'),
        ([frame_path(3)], None, 'entry 3: kv1/NYUdata/NYU0003 is in neither part of'),
        (['/data/elsewhere/kv1'], None, "'/data/elsewhere/kv1' does not lie in a folder SUNRGBD"),
    ],
)
def test_splits_that_cannot_be(source, train, test, message):
    write_split(source, train, test)
    with pytest.raises(SourceError, match=message):
        read_all(source)


def test_lists_that_are_something_else(source):
    meta = source / 'SUNRGBDtoolbox' / sunrgbd.META
    content = meta.read_bytes()
    split = source / 'SUNRGBDtoolbox' / sunrgbd.ALL_SPLIT
    scipy.io.savemat(split, {'alltrain': 1, 'alltest': 2})
    with pytest.raises(
        SourceError, match=r'alltrain, entry 1: .* does not lie in a folder SUNRGBD'
    ):
        read_all(source)
    scipy.io.savemat(split, {'alltrain': 1})
    with pytest.raises(SourceError, match='lacks the variable alltest, found alltrain'):
        read_all(source)
    write_meta(source, fields=('rgbpath', 'rgbname'))
    with pytest.raises(SourceError, match=r'entry 1: SUNRGBDMeta has no fields .*depthname'):
        read_all(source)
    scipy.io.savemat(meta, {'SUNRGBDMeta': 1})
    with pytest.raises(SourceError, match='entry 1: SUNRGBDMeta has no fields'):
        read_all(source)
    meta.write_bytes(content[: len(content) // 2])
    with pytest.raises(SourceError, match=r'SUNRGBDMeta\.mat: cannot be read as a MATLAB'):
        read_all(source)


def test_missing_parts_say_what_is_there(tmp_path, source, capsys):
    assert run(SUNRGBDConverter, [str(tmp_path), str(tmp_path / 'out')]) == 1
    message = capsys.readouterr().err
    assert 'SUNRGBD does not exist, expected the unpacked SUNRGBD.zip' in message
    assert 'holds: sunrgbd' in message
    (source / 'SUNRGBDtoolbox' / sunrgbd.ALL_SPLIT).unlink()
    assert run(SUNRGBDConverter, [str(source), str(tmp_path / 'out')]) == 1
    assert 'allsplit.mat does not exist, expected the unpacked SUNRGBDtoolbox.zip' in (
        capsys.readouterr().err
    )
