"""Defects planted one by one: each is found, named and of the right level; nothing else is."""

import json
import shutil

import cv2
import numpy as np
import pytest

from mmmask3d.inspection.check import CheckOptions, check_sets
from mmmask3d.inspection.sources import LabelMaps, open_folder

QUICK = CheckOptions(workers=2, registration_frames=0, progress=False)


@pytest.fixture(scope='module')
def clean(make_rgbd_folder, tmp_path_factory):
    """Ten labelled frames in two splits; not to be changed."""
    folder = make_rgbd_folder(tmp_path_factory.mktemp('clean') / 'set', 10)
    for kind in ('sem', 'splits'):
        (folder / kind).mkdir()
    for i in range(10):
        labels = np.full((32, 48), 1 + i % 2, np.uint8)
        cv2.imwrite(str(folder / f'sem/frame_{i:03d}.png'), labels)
    names = [f'frame_{i:03d}\n' for i in range(10)]
    (folder / 'splits/train.txt').write_text(''.join(names[:7]))
    (folder / 'splits/val.txt').write_text(''.join(names[7:]))
    (folder / 'splits/all.txt').write_text(''.join(names))
    return folder


@pytest.fixture
def folder(clean, tmp_path):
    return shutil.copytree(clean, tmp_path / 'set')


def check(folder, options=QUICK, **given):
    source = open_folder(folder, {'img_suffix': '.png', **given})
    source.labels = [LabelMaps('sem', f'{folder}/sem', '.png', ('a', 'b'))]
    return check_sets([source], options)


def found_in(folder, **given):
    return {f.code: f for f in check(folder, **given)[1]}


def read(folder, kind, i):
    return cv2.imread(str(folder / kind / f'frame_{i:03d}.png'), cv2.IMREAD_UNCHANGED)


def write(folder, kind, i, array):
    assert cv2.imwrite(str(folder / kind / f'frame_{i:03d}.png'), array)


def test_a_clean_folder_has_no_finding(clean):
    checked, findings = check(clean)
    assert findings == []
    assert len(checked[0].measures) == 10


def cut(folder, kind, i):
    path = folder / kind / f'frame_{i:03d}.png'
    path.write_bytes(path.read_bytes()[:-40])


def copy(folder, a, b, *kinds):
    for kind in kinds:
        shutil.copy(folder / kind / f'frame_{a:03d}.png', folder / kind / f'frame_{b:03d}.png')


def change(function, *kinds):
    """Apply a function to the arrays of all frames."""

    def plant(folder):
        for kind in kinds:
            for i in range(10):
                write(folder, kind, i, function(read(folder, kind, i)))

    return plant


def flip_bit(folder, kind, i):
    path = folder / kind / f'frame_{i:03d}.png'
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def nearly(folder):
    """Frame 9 (val) is frame 0 (train) with other noise."""
    image = read(folder, 'rgb', 0).astype(float)
    noisy = image + np.random.default_rng(0).normal(0, 2, image.shape)
    write(folder, 'rgb', 9, np.clip(noisy, 0, 255).astype(np.uint8))


def append(folder, split, name):
    with (folder / f'splits/{split}.txt').open('a') as file:
        file.write(f'{name}\n')


def clip(depth):
    depth[-4:] = 3000
    depth[(depth > 3000)] = 3000
    return depth


def far(depth):
    depth[-1, 0] = 25000
    return depth


def rename(folder, i, suffix):
    path = folder / f'rgb/frame_{i:03d}.png'
    path.rename(path.with_suffix(suffix))


def copy_as(folder, name):
    for kind in ('rgb', 'depth'):
        path = folder / kind / 'frame_001.png'
        (folder / kind / name).write_bytes(path.read_bytes())


# name: what is done, then code: (level, files it must name)
PLANTED = {
    'a suffix in another case': (lambda f: rename(f, 3, '.PNG'), {}),
    'pictures of another suffix': (
        lambda f: copy_as(f, 'extra.jpeg'),
        {'left-over': ('warning', ['rgb/extra.jpeg', 'depth/extra.jpeg'])},
    ),
    'a link that leads back': (
        lambda f: (f / 'rgb/back').symlink_to(f / 'rgb'),
        {'repeated-link': ('note', ['rgb/back'])},
    ),
    'depth file missing': (
        lambda f: (f / 'depth/frame_003.png').unlink(),
        {
            'missing-partner': ('error', ['depth/frame_003.png']),
            'split-absent': ('error', ['rgb/frame_003.png']),
        },
    ),
    'colour file missing': (
        lambda f: (f / 'rgb/frame_003.png').unlink(),
        {
            'missing-partner': ('error', ['rgb/frame_003.png']),
            'split-absent': ('error', ['rgb/frame_003.png']),
        },
    ),
    'truncated': (
        lambda f: cut(f, 'depth', 4),
        {'truncated': ('error', ['depth/frame_004.png'])},
    ),
    'flipped bit': (
        lambda f: flip_bit(f, 'rgb', 4),
        {'damaged': ('error', ['rgb/frame_004.png'])},
    ),
    'not an image': (
        lambda f: (f / 'rgb/frame_001.png').write_text('x' * 99),
        {'unreadable': ('error', ['rgb/frame_001.png'])},
    ),
    'three channels of depth': (
        lambda f: write(f, 'depth', 1, read(f, 'rgb', 1)),
        {'unreadable': ('error', ['depth/frame_001.png'])},
    ),
    'size of one': (
        lambda f: write(f, 'depth', 2, read(f, 'depth', 2)[:, 1:]),
        {'size-mismatch': ('error', ['depth/frame_002.png'])},
    ),
    'another size': (
        lambda f: [write(f, k, 2, read(f, k, 2)[:, 8:]) for k in ('rgb', 'depth', 'sem')],
        {},
    ),
    'no reading': (
        lambda f: write(f, 'depth', 2, np.zeros((32, 48), np.uint16)),
        {'no-reading': ('error', ['depth/frame_002.png'])},
    ),
    'mostly holes': (
        lambda f: write(f, 'depth', 2, np.triu(read(f, 'depth', 2)[:, ::-1], 36)),
        {'mostly-holes': ('warning', ['depth/frame_002.png'])},
    ),
    'constant colour': (
        lambda f: write(f, 'rgb', 2, np.full((32, 48, 3), 9, np.uint8)),
        {'constant-colour': ('warning', ['rgb/frame_002.png'])},
    ),
    'constant depth': (
        lambda f: write(f, 'depth', 2, np.full((32, 48), 2000, np.uint16)),
        {'constant-depth': ('warning', ['depth/frame_002.png'])},
    ),
    'the same frame twice': (
        lambda f: copy(f, 2, 3, 'rgb', 'depth'),
        {'duplicate': ('warning', ['rgb/frame_003.png'])},
    ),
    'depth of another frame': (
        lambda f: copy(f, 2, 3, 'depth'),
        {'duplicate-depth': ('warning', ['depth/frame_002.png', 'depth/frame_003.png'])},
    ),
    'colour of another frame': (
        lambda f: copy(f, 2, 3, 'rgb'),
        {
            'duplicate-colour': ('warning', ['rgb/frame_002.png', 'rgb/frame_003.png']),
        },
    ),
    'label outside the classes': (
        lambda f: write(f, 'sem', 5, np.full((32, 48), 3, np.uint8)),
        {'label-range': ('error', ['sem/frame_005.png'])},
    ),
    'label map of another size': (
        lambda f: write(f, 'sem', 5, np.ones((16, 24), np.uint8)),
        {'label-size': ('error', ['sem/frame_005.png'])},
    ),
    'label map in colours': (
        lambda f: write(f, 'sem', 5, np.ones((32, 48, 3), np.uint8)),
        {'label-unreadable': ('error', ['sem/frame_005.png'])},
    ),
    'label map missing': (
        lambda f: (f / 'sem/frame_005.png').unlink(),
        {'unlabelled': ('note', ['rgb/frame_005.png'])},
    ),
    'frame in both splits': (
        lambda f: append(f, 'val', 'frame_001'),
        {'split-leak': ('error', ['rgb/frame_001.png'])},
    ),
    'content in both splits': (
        lambda f: copy(f, 1, 8, 'rgb'),
        {
            'split-leak-content': ('error', ['rgb/frame_008.png']),
            'duplicate-colour': ('warning', ['rgb/frame_001.png', 'rgb/frame_008.png']),
        },
    ),
    'look in both splits': (
        nearly,
        {
            'split-near': ('warning', ['rgb/frame_009.png']),
        },
    ),
    'split names a frame that is not there': (
        lambda f: append(f, 'val', 'frame_010'),
        {'split-absent': ('error', ['rgb/frame_010.png'])},
    ),
    'clipped': (change(clip, 'depth'), {'clipped': ('note', None)}),
    'too far': (change(far, 'depth'), {'far-readings': ('note', None)}),
    'in-filled': (
        change(lambda d: np.maximum(d, 900), 'depth'),
        {'in-filled': ('note', None)},
    ),
    'quantised': (
        change(lambda d: d // 100 * 100, 'depth'),
        {'quantised': ('warning', None)},
    ),
    'limit of the type': (
        change(lambda d: np.where(d == 0, 65535, d), 'depth'),
        {
            'limit-value': ('warning', None),
            'far-readings': ('note', None),
            'in-filled': ('note', None),
        },
    ),
}


@pytest.mark.parametrize('defect', PLANTED)
def test_planted(folder, defect):
    plant, expected = PLANTED[defect]
    plant(folder)
    found = found_in(folder)
    assert {code: f.level for code, f in found.items()} == {c: e[0] for c, e in expected.items()}
    for code, (_, files) in expected.items():
        assert found[code].advice
        if files is not None:
            assert list(found[code].files) == [f'{folder}/{name}' for name in files]
        assert len(found[code].details) in (0, len(found[code].files))


@pytest.mark.parametrize(
    ('scale', 'level'),
    [
        (1.0, 'error'),
        (100000.0, 'error'),
        (150.0, 'warning'),
        (200.0, 'warning'),
        (5000.0, 'warning'),
    ],
)
def test_unit(clean, scale, level):
    found = found_in(clean, depth_scale=scale)
    assert found['unit'].level == level
    assert found['unit'].advice.startswith('depth_scale=1000 (millimetres)')
    assert f'depth_scale={scale:g}' in found['unit'].message
    assert 'unit' not in found_in(clean, depth_scale=scale, depth_kind='relative')


def make_sure(folder):
    """Confidence 0, 1, 2 in columns, 16 of each."""
    (folder / 'sure').mkdir()
    levels = np.repeat(np.arange(3, dtype=np.uint8), 16)[None].repeat(32, 0)
    for i in range(10):
        write(folder, 'sure', i, levels)
    return levels


def check_sure(folder, minimum=2, suffix='.png'):
    given = {'img_suffix': '.png', 'min_confidence': minimum, 'confidence_suffix': suffix}
    (checked,), findings = check_sets([open_folder(folder, given, confidence='sure')], QUICK)
    return checked.measures, {f.code: f for f in findings}


def test_confidence_by_value(folder):
    levels = make_sure(folder)
    measures, found = check_sure(folder)
    shares = []
    for i, one in enumerate(measures):
        raw = read(folder, 'depth', i)
        valid = (raw > 0) & (levels >= 2)
        shares.append(1 - valid.sum() / (raw > 0).sum())
        assert one.depth.unsure == pytest.approx(shares[-1])
        assert one.depth.invalid == pytest.approx(1 - valid.mean())
        assert one.depth.median == pytest.approx(np.median(raw[valid]) / 1000)
    expected = f'min_confidence=2 drops {np.mean(shares):.1%} of the readings'
    assert found['low-confidence'].message == expected
    assert not {level for f in found.values() if (level := f.level) != 'note'}
    raw = read(folder, 'depth', 0)
    limit = int(np.median(raw[(raw > 0) & (levels >= 2)]))
    given = {'img_suffix': '.png', 'min_confidence': 2, 'max_depth': limit / 1000}
    limited = open_folder(folder, given, confidence='sure')
    first = check_sets([limited], QUICK)[0][0].measures[0].depth
    near = (raw > 0) & (raw <= limit)
    assert first.unsure == pytest.approx((near & (levels < 2)).sum() / near.sum())
    assert check(folder)[0][0].measures[0].depth.unsure is None


def test_confidence_that_cannot_be_used(folder):
    make_sure(folder)
    write(folder, 'sure', 1, np.ones((32, 40), np.uint8))
    cut(folder, 'sure', 2)
    write(folder, 'sure', 3, np.ones((32, 48), np.uint8))
    (folder / 'sure/frame_004.png').unlink()
    measures, found = check_sure(folder)
    for code, number in (
        ('confidence-unusable', 1),
        ('truncated', 2),
        ('no-reading', 3),
        ('missing-partner', 4),
    ):
        assert found[code].level == 'error'
        assert found[code].files == (f'{folder}/sure/frame_00{number}.png',)
    assert 'holds 1 to 1' in found['no-reading'].details[0]
    assert len(measures) == 9
    assert [m.depth is None for m in measures] == [False, True, True, True] + [False] * 5


def test_a_conversion_that_dropped_readings_says_so(folder):
    depth = {'depth': {'unsure_share': 0.125}}
    manifest = dict(frames=10, depth_kind='metric', depth_scale=1000, suffixes={}, classes={})
    (folder / 'manifest.json').write_text(json.dumps(manifest | dict(depth=depth)))
    found = {f.code: f for f in check_sets([open_folder(folder, {'img_suffix': '.png'})], QUICK)[1]}
    assert 'dropped 12.5% of the readings' in found['low-confidence'].message


@pytest.mark.parametrize(
    ('content', 'code', 'message'),
    [
        ('{"images": [', 'annotation-unreadable', 'JSONDecodeError'),
        ('{"images": []}', 'annotation-unreadable', 'KeyError'),
        (
            {'images': [], 'annotations': [{'image_id': 1, 'category_id': 7}], 'categories': []},
            'annotation-ids',
            '1 images and of categories [7]',
        ),
    ],
)
def test_annotations(folder, content, code, message):
    (folder / 'annotations').mkdir()
    path = folder / 'annotations/instances_train.json'
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    finding = found_in(folder)[code]
    assert (finding.level, finding.files) == ('error', (str(path),))
    assert message in finding.message


def test_workers_have_no_influence(folder):
    cut(folder, 'rgb', 3)
    copy(folder, 1, 2, 'rgb', 'depth')
    one = check(folder, CheckOptions(1, 0, progress=False))[1]
    many = check(folder, CheckOptions(5, 0, progress=False))[1]
    assert one == many


@pytest.mark.parametrize(('shift', 'expected'), [(0, []), (9, [('misregistered', 'error')])])
def test_registration(make_scene_folder, tmp_path, shift, expected):
    folder = make_scene_folder(tmp_path / 'set', n=24, size=(72, 96), shift=(shift, 0))
    source = open_folder(folder, {'img_suffix': '.png'})
    (checked,), findings = check_sets([source], CheckOptions(2, 30, progress=False))
    assert [(f.code, f.level) for f in findings if 'regist' in f.code] == expected
    for finding in findings:
        if finding.code == 'misregistered':
            assert finding.files == tuple(m.img_path for m in checked.measures)
            assert f'moved by {checked.registration.shift[0]:+.1f} pixels right' in finding.message
    assert checked.registration.verdict == ('misregistered' if shift else 'registered')
    assert checked.registration.shift == pytest.approx((-shift, 0), abs=1)
    assert checked.judged == list(range(24))


def test_few_frames_only_warn(make_scene_folder, tmp_path):
    folder = make_scene_folder(tmp_path / 'set', n=9, size=(72, 96), shift=(9, 0))
    source = open_folder(folder, {'img_suffix': '.png'})
    findings = check_sets([source], CheckOptions(2, 30, progress=False))[1]
    assert [f.level for f in findings if f.code == 'misregistered'] == ['warning']
