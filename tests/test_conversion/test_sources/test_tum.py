"""TUM RGB-D: pairs by time, depth unchanged, and lists that lie."""

import itertools
import json
import math
import unicodedata
from argparse import Namespace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mmmask3d.conversion.command_line import run
from mmmask3d.conversion.paths import SourceError
from mmmask3d.conversion.sources.tum import TUMConverter, associate, read_list
from mmmask3d.datasets import LoadRGBD, RGBDDataset
from mmmask3d.engine.run_config import load_config
from mmmask3d.registry import DATASETS

ROOT = Path(__file__).parents[3]
START = 1305031102.0
SIZE = (32, 24)


def write_sequence(folder, colour=8, seed=0, size=SIZE):
    """A sequence as distributed: colour at 30 Hz, depth 9 ms later and now and then missing."""
    rng = np.random.default_rng(seed)
    written = {}
    lists = {'rgb': [], 'depth': []}
    for kind in lists:
        (folder / kind).mkdir(parents=True)
    for i in range(colour):
        time = START + i / 30
        image = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        depth = rng.integers(1, 65536, (size[1], size[0]), dtype=np.uint16)
        depth[:3, : 4 + i] = 0
        for kind, at, array in (('rgb', time, image), ('depth', time + 0.009, depth)):
            if kind == 'depth' and i % 5 == 3:
                continue
            name = f'{kind}/{at:.6f}.png'
            assert cv2.imwrite(str(folder / name), array)
            lists[kind].append(f'{at:.6f} {name}')
        written[f'{time:.6f}'] = image, depth
    for kind, lines in lists.items():
        head = f"# {kind} maps\n# file: 'x.bag'\n# timestamp filename\n"
        (folder / f'{kind}.txt').write_text(head + ''.join(f'{line}\n' for line in lines))
    poses = [f'{START + i / 100:.4f} {i} 0.5 -1 0 0 0 1' for i in range(colour * 4)]
    (folder / 'groundtruth.txt').write_text('# tx ty tz qx qy qz qw\n' + '\n'.join(poses) + '\n')
    return written


@pytest.fixture
def source(tmp_path):
    """Two sequences; returns the folder and what was written, by sequence and time stamp."""
    root = tmp_path / 'source'
    return root, {name: write_sequence(root / name, seed=i) for i, name in enumerate(['a', 'b'])}


def converter(root, **options):
    defaults = dict(unit=5000.0, max_difference=0.02, offset=0.0, every=1, jpeg=False, val=[])
    return TUMConverter(Namespace(source=Path(root), **defaults | options))


def load(out, **options):
    settings = json.loads((out / 'manifest.json').read_text())['rgbd_dataset']
    defaults = dict(data_root=str(out), ann_file='splits/all.txt', test_mode=True)
    return RGBDDataset(pipeline=[LoadRGBD()], **defaults | settings | options)


# ---------------------------------------------------------------- association


def all_pairs(first, second, limit, offset):
    """What the benchmark's own tool does: every pair, the closest first."""
    candidates = sorted(
        (abs(a - (b + offset)), a, b)
        for a, b in itertools.product(first, second)
        if abs(a - (b + offset)) < limit
    )
    left, right, pairs = set(first), set(second), []
    for _, a, b in candidates:
        if a in left and b in right:
            left.remove(a)
            right.remove(b)
            pairs.append((a, b))
    return sorted(pairs)


stamps = st.lists(st.integers(0, 60), unique=True, max_size=25)


@settings(deadline=None, max_examples=400, derandomize=True)
@given(first=stamps, second=stamps, limit=st.integers(1, 80), offset=st.integers(-9, 9))
@example(first=[10], second=[8, 12], limit=5, offset=0)
@example(first=[8, 12], second=[10], limit=5, offset=0)
@example(first=[1, 2, 3], second=[2, 3, 4], limit=9, offset=0)
def test_the_pairs_are_those_of_the_benchmarks_tool(first, second, limit, offset):
    got = [(first[i], second[j]) for i, j in associate(first, second, limit, offset)]
    assert got == all_pairs(first, second, limit, offset)


# ---------------------------------------------------------------- lists


def test_lists_with_comments_commas_tabs_and_any_order(tmp_path):
    path = tmp_path / 'rgb.txt'
    path.write_text('# a\n2.5 rgb/b.png\r\n\n1.5,rgb/a.png\n3e0\trgb/c.png \n')
    lines, problems = read_list(path, 1)
    assert [(line.time, line.fields, line.number) for line in lines] == [
        (1.5, ('rgb/a.png',), 4),
        (2.5, ('rgb/b.png',), 2),
        (3.0, ('rgb/c.png',), 5),
    ]
    assert problems == []


@pytest.mark.parametrize(
    ('line', 'message'),
    [
        ('nan rgb/x.png', r"time stamp in seconds, found 'nan'"),
        ('inf rgb/x.png', 'found .inf'),
        ('1e999 rgb/x.png', 'found .1e999'),
        ('0x10 rgb/x.png', 'found .0x10'),
        ('rgb/x.png', 'found .rgb/x.png'),
        ('7.0', 'expected 2 fields, found 1'),
        ('7.0 rgb/x.png depth/x.png', 'expected 2 fields, found 3'),
        ('1.50 rgb/y.png', 'time stamp 1.50 is that of line 1 already'),
    ],
)
def test_bad_lines_are_named_and_the_others_kept(line, message, tmp_path):
    path = tmp_path / 'rgb.txt'
    path.write_text(f'1.5 rgb/a.png\n{line}\n2.5 rgb/b.png\n')
    lines, problems = read_list(path, 1)
    assert [entry.time for entry in lines] == [1.5, 2.5]
    assert len(problems) == 1
    with pytest.raises(SourceError, match=rf'^\S*rgb\.txt:2: .*{message}'):
        raise SourceError(problems[0])


def test_bytes_that_are_no_text(tmp_path):
    (tmp_path / 'rgb.txt').write_bytes(b'1.5 rgb/a.png\n\xff\xfe\n')
    with pytest.raises(SourceError, match=r'rgb\.txt: expected text.*byte 14 \(line 2\)'):
        read_list(tmp_path / 'rgb.txt', 1)


# ---------------------------------------------------------------- end to end


def test_round_trip_by_value(source, tmp_path, capsys):
    root, written = source
    out = tmp_path / 'out'
    assert run(TUMConverter, [str(root), str(out), '--workers', '1', '--val', 'b']) == 0
    assert "img_suffix='.png'" in capsys.readouterr().out
    manifest = json.loads((out / 'manifest.json').read_text())
    assert manifest['depth_scale'] == 5000
    frames = 0
    for split, sequence in (('train', 'a'), ('val', 'b')):
        listed = (out / f'splits/{split}.txt').read_text().split()
        # Depth of every fifth frame is missing.
        times = [time for i, time in enumerate(written[sequence]) if i % 5 != 3]
        assert listed == [f'{sequence}/{time}' for time in times]
        data = load(out, ann_file=f'splits/{split}.txt')
        for i, time in enumerate(times):
            image, depth = written[sequence][time]
            np.testing.assert_array_equal(data[i]['img'], image)
            np.testing.assert_array_equal(data[i]['valid'], depth > 0)
            np.testing.assert_allclose(data[i]['depth'], depth / 5000, rtol=1e-6)
            colour = out / f'rgb/{sequence}/{time}.png'
            assert colour.read_bytes() == (root / f'{sequence}/rgb/{time}.png').read_bytes()
            stored = cv2.imread(str(out / f'depth/{sequence}/{time}.png'), cv2.IMREAD_UNCHANGED)
            np.testing.assert_array_equal(stored, depth)
            frames += 1
    assert manifest['frames'] == frames == 14


def test_a_recording_in_another_unit(source, tmp_path, capsys):
    """Same values, other metres: the config that is printed reads what was recorded."""
    root, written = source
    _, depth = written['a'][f'{START:.6f}']
    out = tmp_path / 'out'
    assert run(TUMConverter, [str(root), str(out), '--workers=1', '--unit=mm']) == 0
    assert 'depth_scale=1000.0' in capsys.readouterr().out
    manifest = json.loads((out / 'manifest.json').read_text())
    assert manifest['depth_scale'] == manifest['options']['unit'] == 1000
    assert manifest['depth']['depth']['high'] == pytest.approx(65.5, abs=0.1)
    frame = load(out)[0]
    np.testing.assert_allclose(frame['depth'], depth / 1000, rtol=1e-6)
    # Another unit is another conversion.
    assert run(TUMConverter, [str(root), str(out), '--workers=1']) == 1
    assert 'unit 1000.0 (asked for: 5000.0)' in capsys.readouterr().err


def test_the_base_config_reads_it(source, tmp_path):
    root, written = source
    arguments = [str(root), str(tmp_path / 'out'), '--workers', '1', '--val', 'b']
    assert run(TUMConverter, arguments) == 0
    cfg = load_config(ROOT / 'configs/_base_/datasets/tum_pretrain.py')
    for loader, sequence in ((cfg.train_dataloader, 'a'), (cfg.val_dataloader, 'b')):
        with DATASETS.switch_scope_and_registry('mmmask3d'):
            data = DATASETS.build(loader.dataset | dict(data_root=str(tmp_path / 'out')))
        _, depth = written[sequence][f'{START:.6f}']
        frame = LoadRGBD()(data.get_data_info(0))
        expected = np.where(depth <= 50_000, depth / 5000, 0)  # max_depth is 10 m
        np.testing.assert_allclose(frame['depth'], expected, rtol=1e-6)


def test_poses_by_time(source):
    root, _ = source
    frames = converter(root).plan('a').frames
    for frame in frames:
        extra = frame.locator[2]
        assert math.isclose(extra['depth_time'] - extra['time'], 0.009, abs_tol=2e-6)
        i = round((extra['time'] - START) * 100)
        assert extra['pose'] == [i, 0.5, -1, 0, 0, 0, 1]
        assert abs(extra['pose_time'] - extra['time']) < 0.0051
    (root / 'a/groundtruth.txt').write_text(f'{START + 100} 0 0 0 0 0 0 1\n')
    assert all('pose' not in frame.locator[2] for frame in converter(root).plan('a').frames)


def test_options(source, tmp_path):
    root, written = source
    assert len(converter(root, every=3).plan('a').frames) == 3
    assert not converter(root, offset=1.0).plan('a').frames
    shifted = converter(root, offset=-0.009 - 1 / 30).plan('a').frames
    assert shifted[0].locator[0] != shifted[0].locator[1].replace('depth', 'rgb')
    assert math.isclose(
        shifted[0].locator[2]['depth_time'] - shifted[0].locator[2]['time'], 0.009 + 1 / 30,
        abs_tol=2e-6,
    )  # fmt: skip
    assert len(converter(root, max_difference=0.0089).plan('a').frames) == 0
    arguments = [str(root), str(tmp_path / 'jpeg'), '--workers=1', '--jpeg', '--size', '16', '12']
    assert run(TUMConverter, arguments) == 0
    data = load(tmp_path / 'jpeg', img_suffix='.jpg')
    image, depth = written['a'][f'{START:.6f}']
    np.testing.assert_allclose(data[0]['depth'] * 5000, depth[1::2, 1::2], rtol=1e-6)
    small = cv2.resize(image, (16, 12), interpolation=cv2.INTER_AREA)
    coded = cv2.imencode('.jpg', small, [cv2.IMWRITE_JPEG_QUALITY, 95])[1]
    np.testing.assert_array_equal(data[0]['img'], cv2.imdecode(coded, cv2.IMREAD_COLOR))


@pytest.mark.parametrize('options', [(), ('--jpeg',)])
def test_a_recording_of_other_colour_formats(source, tmp_path, options):
    """As phones and RealSense tools write them: a motion photo is stored byte for byte."""
    root, written = source
    image, _ = written['a'][f'{START:.6f}']
    motion = cv2.imencode('.jpg', image)[1].tobytes() + bytes(40) + b'\xff\xda' + bytes(40)
    for path in (root / 'a/rgb').iterdir():
        path.write_bytes(motion)
    for path in (root / 'b/rgb').iterdir():
        path.write_bytes(cv2.imencode('.webp', image, [cv2.IMWRITE_WEBP_QUALITY, 101])[1])
    assert run(TUMConverter, [str(root), str(tmp_path / 'out'), '--workers=1', *options]) == 0
    suffix = '.jpg' if options else '.png'
    data = load(tmp_path / 'out', img_suffix=suffix)
    if options:
        assert Path(data.get_data_info(0)['img_path']).read_bytes() == motion
    stored = [data[i]['img'] for i in (0, len(data) - 1)]
    np.testing.assert_array_equal(stored[0], cv2.imdecode(np.frombuffer(motion, np.uint8), 1))
    if not options:
        np.testing.assert_array_equal(stored[1], image)
    names = [data.get_data_info(i)['frame'][0] for i in (0, len(data) - 1)]
    assert names == ['a', 'b']


def test_one_sequence_alone_is_named_by_its_folder(source, tmp_path):
    root, _ = source
    assert run(TUMConverter, [str(root / 'a'), str(tmp_path / 'out'), '--workers', '1']) == 0
    assert all(
        line.startswith('a/') for line in (tmp_path / 'out/splits/train.txt').read_text().split()
    )


# ---------------------------------------------------------------- damage


def rewrite(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize('name', ['../../etc/passwd', '/etc/passwd'])
def test_names_that_climb_are_refused(name, source, tmp_path, capsys):
    root, _ = source
    rewrite(root / 'a/rgb.txt', f'rgb/{START:.6f}.png', name)
    assert run(TUMConverter, [str(root), str(tmp_path / 'out'), '--workers', '1']) == 1
    error = capsys.readouterr().err
    assert f'a/rgb.txt:4: names the file {name!r}' in error
    arguments = [str(root), str(tmp_path / 'out'), '--workers', '1', '--on-error', 'drop']
    assert run(TUMConverter, arguments) == 0
    assert len(load(tmp_path / 'out')) == 13


def test_missing_files_and_folders_in_their_place(source):
    root, _ = source
    name = f'{START:.6f}.png'
    (root / 'a/rgb' / name).unlink()
    (root / 'a/rgb' / name).mkdir()
    plan = converter(root).plan('a')
    assert len(plan.frames) == 6
    assert len(plan.problems) == 1
    assert plan.problems[0].startswith(f'{root}/a/rgb.txt:4: ')
    (root / 'b/depth.txt').unlink()
    with pytest.raises(SourceError, match=r'b/depth\.txt does not exist'):
        converter(root).plan('b')


@pytest.mark.parametrize('encoding', ['utf-8-sig', 'utf-16'])
def test_lists_from_windows_and_names_from_a_mac(source, tmp_path, encoding):
    root, _ = source
    nfd, nfc = (unicodedata.normalize(form, 'Küche') for form in ('NFD', 'NFC'))
    before = converter(root).plan('a')
    (root / 'a/rgb').rename(root / f'a/{nfd}')
    for name in ('rgb.txt', 'depth.txt'):
        text = (root / 'a' / name).read_text().replace('rgb/', f'{nfc}/')
        (root / 'a' / name).write_bytes(text.replace('\n', '\r\n').encode(encoding))
    plan = converter(root).plan('a')
    assert plan.problems == []
    assert [f.name for f in plan.frames] == [f.name for f in before.frames]
    for now, then in zip(plan.frames, before.frames, strict=True):
        assert now.locator[0] == then.locator[0].replace('rgb/', f'{nfd}/')
        assert now.locator[1:] == then.locator[1:]


def test_sizes_that_differ_are_not_registered(source, tmp_path, capsys):
    root, _ = source
    path = sorted((root / 'b/depth').iterdir())[0]
    assert cv2.imwrite(str(path), np.ones((12, 16), np.uint16))
    assert run(TUMConverter, [str(root), str(tmp_path / 'out'), '--workers', '1']) == 1
    error = capsys.readouterr().err
    assert f'{path}: 16x12 pixels' in error
    assert '32x24' in error


def test_a_sequence_for_val_that_is_not_there(source):
    with pytest.raises(SourceError, match=r"--val: \['c'\] are no sequences .* it has a, b"):
        converter(source[0], val=['c']).sources()


def test_a_folder_without_sequences(tmp_path, capsys):
    assert run(TUMConverter, [str(tmp_path), str(tmp_path / 'out')]) == 1
    assert 'no rgb.txt is there' in capsys.readouterr().err
    (tmp_path / 'file').write_text('')
    assert run(TUMConverter, [str(tmp_path / 'file'), str(tmp_path / 'out')]) == 1
