"""Any folder: units, readings and files by value, read back by the data set."""

import json
import re

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from mmmask3d.conversion.command_line import run
from mmmask3d.conversion.sources.folder import FolderConverter
from mmmask3d.datasets import FrameError, LoadRGBD, RGBDDataset
from mmmask3d.datasets.depth_io import decode_depth
from mmmask3d.inspection.sources import open_folder

RNG = np.random.default_rng(0)
HEIGHT, WIDTH = 24, 32
COLOUR = RNG.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
HOLES = RNG.random((HEIGHT, WIDTH)) < 0.2
METRES = np.where(HOLES, 0, RNG.uniform(0.5, 6, (HEIGHT, WIDTH)))


def stored_depth(path):
    return decode_depth(path.read_bytes(), str(path))


def write(path, array):
    """Write a file of the type its suffix says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == '.npy':
        np.save(path, array)
    else:
        assert cv2.imwrite(str(path), array)
    return path


def make(root, depth, colour_suffix='.jpg', depth_suffix='.png', names=('a/1', 'a/2', 'b/1')):
    for name in names:
        write(root / f'rgb/{name}{colour_suffix}', COLOUR)
        write(root / f'depth/{name}{depth_suffix}', depth)
    return root


def convert(source, out, *options, code=0):
    assert run(FolderConverter, [str(source), str(out), '--workers=1', *map(str, options)]) == code
    return out


def settings_of(out):
    settings = json.loads((out / 'manifest.json').read_text())['rgbd_dataset']
    return {'data_root': str(out), 'ann_file': 'splits/all.txt', **settings}


def load(out, index=0):
    """A frame as training reads it."""
    return RGBDDataset(pipeline=[LoadRGBD()], **settings_of(out))[index]


# ---------------------------------------------------------------- units and types


@pytest.mark.parametrize(
    ('unit', 'scale'), [('mm', 1000), ('cm', 100), ('5000', 5000), ('256.5', 256.5)]
)
def test_sixteen_bits_stay_as_they_are(tmp_path, unit, scale):
    stored = np.round(METRES * scale).astype(np.uint16)
    out = convert(make(tmp_path / 'in', stored), tmp_path / 'out', '--unit', unit)
    for name in ('a/1', 'a/2', 'b/1'):
        np.testing.assert_array_equal(stored_depth(out / f'depth/{name}.png'), stored)
        jpeg = (out / f'rgb/{name}.jpg').read_bytes()
        assert jpeg == (tmp_path / f'in/rgb/{name}.jpg').read_bytes()
    frame = load(out)
    np.testing.assert_allclose(frame['depth'], stored / scale, rtol=1e-6)
    np.testing.assert_array_equal(frame['valid'], stored > 0)


@pytest.mark.parametrize(
    ('dtype', 'suffix', 'unit', 'scale'),
    [
        (np.float32, '.npy', 'm', 1),
        (np.float64, '.npy', 'm', 1),
        (np.float16, '.npy', 'm', 1),
        (np.float32, '.tiff', 'm', 1),
        (np.float32, '.npy', 'mm', 1000),
        (np.int32, '.npy', 'mm', 1000),
        (np.int64, '.npy', '10000', 10000),
    ],
)
def test_other_types_become_millimetres(tmp_path, dtype, suffix, unit, scale):
    source = make(tmp_path / 'in', (METRES * scale).astype(dtype), depth_suffix=suffix, names=['a'])
    options = ('--unit', unit, '--depth', f'depth/*{suffix}')
    out = convert(source, tmp_path / 'out', *options)
    stored = stored_depth(out / 'depth/a.png')
    assert stored.dtype == np.uint16
    # Rounding to mm, and that of the source: up to 2 mm in float16, downwards in integers.
    error = {np.float16: 2.5, np.int32: 1, np.int64: 0.61}.get(dtype, 0.51)
    assert np.abs(stored - METRES * 1000).max() <= error
    np.testing.assert_array_equal(stored == 0, HOLES)
    exact = convert(source, tmp_path / 'npy', *options, '--depth-format=npy')
    kept = np.load(exact / 'depth/a.npy')
    assert kept.dtype == np.float32
    np.testing.assert_array_equal(kept, ((METRES * scale).astype(dtype) / scale).astype('f4'))
    np.testing.assert_array_equal(load(exact)['depth'], kept)


def test_sixteen_bit_tiff_and_eight_bit_png(tmp_path):
    stored = np.round(METRES * 1000).astype(np.uint16)
    make(tmp_path / 'in', stored, depth_suffix='.tiff', names=['a'])
    out = convert(tmp_path / 'in', tmp_path / 'out', '--unit=mm', '--depth=depth/*.tiff')
    np.testing.assert_array_equal(stored_depth(out / 'depth/a.png'), stored)
    small = np.round(METRES * 40).astype(np.uint8)
    make(tmp_path / 'in8', small, names=['a'])
    out = convert(tmp_path / 'in8', tmp_path / 'out8', '--unit=relative')
    np.testing.assert_array_equal(stored_depth(out / 'depth/a.png'), small)
    frame = load(out)
    np.testing.assert_allclose(frame['depth'], small / 255, rtol=1e-6)
    assert json.loads((out / 'manifest.json').read_text())['depth_kind'] == 'relative'


def test_relative_floats_stay_floats(tmp_path):
    values = (METRES / 7).astype(np.float32)
    make(tmp_path / 'in', values, depth_suffix='.npy', names=['a'])
    out = convert(tmp_path / 'in', tmp_path / 'out', '--unit=relative', '--depth=depth/*.npy')
    np.testing.assert_array_equal(load(out)['depth'], values)


def test_what_is_no_reading_becomes_0(tmp_path):
    stored = np.full((HEIGHT, WIDTH), 2000, np.uint16)
    stored[0, :4] = 65535, 0, 4001, 9999
    make(tmp_path / 'in', stored, names=['a'])
    options = ('--unit=mm', '--invalid', 65535, 9999, '--max-depth=4')
    out = convert(tmp_path / 'in', tmp_path / 'out', *options)
    got = stored_depth(out / 'depth/a.png')
    np.testing.assert_array_equal(got[0, :5], [0, 0, 0, 0, 2000])
    floats = np.full((HEIGHT, WIDTH), 2, np.float32)
    floats[0, :6] = np.nan, np.inf, -np.inf, -1, 66, 4
    make(tmp_path / 'in2', floats, depth_suffix='.npy', names=['a'])
    out = convert(
        tmp_path / 'in2', tmp_path / 'out2', '--unit=m', '--depth=depth/*.npy', '--max-depth=4'
    )
    np.testing.assert_array_equal(
        stored_depth(out / 'depth/a.png')[0, :7], [0, 0, 0, 0, 0, 4000, 2000]
    )


def test_depth_that_does_not_fit_16_bits_is_not_dropped_in_silence(tmp_path, capsys):
    floats = np.full((HEIGHT, WIDTH), 2, np.float32)
    floats[3, 3] = 66
    make(tmp_path / 'in', floats, depth_suffix='.npy', names=['a'])
    options = ('--unit=m', '--depth=depth/*.npy')
    convert(tmp_path / 'in', tmp_path / 'out', *options, code=1)
    assert 'depth up to 66 m does not fit into 16 bits of mm' in capsys.readouterr().err
    out = convert(tmp_path / 'in', tmp_path / 'npy', *options, '--depth-format=npy')
    assert load(out)['depth'][3, 3] == 66


def test_files_of_another_type_are_damage(tmp_path, capsys):
    make(tmp_path / 'in', np.round(METRES * 1000).astype(np.uint16))
    write(tmp_path / 'in/depth/a/2.png', (METRES * 40).astype(np.uint8))
    convert(tmp_path / 'in', tmp_path / 'out', '--unit=mm', code=1)
    assert 'a/2.png: depth of uint8, but uint16 in the first file' in capsys.readouterr().err


# ---------------------------------------------------------------- the unit is asked for


@pytest.mark.parametrize(
    ('dtype', 'scale'), [(np.uint16, 1000), (np.float32, 1), (np.uint8, 40), (np.float32, 1e-9)]
)
def test_without_a_unit_the_values_are_shown_and_nothing_is_made(tmp_path, capsys, dtype, scale):
    stored = (np.full((HEIGHT, WIDTH), 3) * scale).astype(dtype)
    stored[0, 0] = np.array(6 * scale).astype(dtype)
    suffix = '.npy' if dtype == np.float32 else '.png'
    make(tmp_path / 'in', stored, depth_suffix=suffix)
    convert(tmp_path / 'in', tmp_path / 'out', f'--depth=depth/**{suffix}', code=1)
    text = capsys.readouterr().err
    assert 'the unit of depth is not stated. 3 depth files of' in text
    assert f'from {stored.min():g} to {stored.max():g}, median {stored.max() / 2:g}' in text
    assert f'mm: {stored.max() / 2000:.3g} m' in text
    assert not (tmp_path / 'out').exists()


# ---------------------------------------------------------------- colour and sizes


def test_png_colour_stays_png_and_other_formats_become_png(tmp_path):
    stored = np.round(METRES * 1000).astype(np.uint16)
    make(tmp_path / 'png', stored, colour_suffix='.png', names=['a'])
    out = convert(tmp_path / 'png', tmp_path / 'out', '--unit=mm', '--rgb=rgb/*.png')
    assert (out / 'rgb/a.png').read_bytes() == (tmp_path / 'png/rgb/a.png').read_bytes()
    make(tmp_path / 'bmp', stored, colour_suffix='.bmp', names=['a'])
    out = convert(tmp_path / 'bmp', tmp_path / 'out2', '--unit=mm', '--rgb=rgb/*.bmp')
    np.testing.assert_array_equal(cv2.imread(str(out / 'rgb/a.png')), COLOUR)
    np.testing.assert_array_equal(load(out)['img'], COLOUR)


def test_a_png_that_is_called_jpg_becomes_one(tmp_path):
    make(tmp_path / 'in', np.round(METRES * 1000).astype(np.uint16), names=['a'])
    write(tmp_path / 'x.png', COLOUR).rename(tmp_path / 'in/rgb/a.jpg')
    out = convert(tmp_path / 'in', tmp_path / 'out', '--unit=mm')
    assert (out / 'rgb/a.jpg').read_bytes()[:3] == b'\xff\xd8\xff'


def test_a_list_may_mix_formats(tmp_path):
    stored = np.round(METRES * 1000).astype(np.uint16)
    for colour, depth in (('c/1.jpg', 'd/x.png'), ('c/2.png', 'd/y.npy')):
        write(tmp_path / 'in' / colour, COLOUR)
        write(tmp_path / 'in' / depth, stored)
    (tmp_path / 'list.txt').write_text('c/1.jpg d/x.png\nc/2.png d/y.npy\n')
    options = ('--unit=mm', '--pairs', tmp_path / 'list.txt')
    out = convert(tmp_path / 'in', tmp_path / 'out', *options)
    np.testing.assert_array_equal(cv2.imread(str(out / 'rgb/c/2.png')), COLOUR)
    jpeg = cv2.imread(str(tmp_path / 'in/c/1.jpg'))
    np.testing.assert_array_equal(cv2.imread(str(out / 'rgb/c/1.png')), jpeg)
    np.testing.assert_array_equal(load(out, 1)['depth'], (stored / np.float32(1000)))
    frames = [json.loads(line) for line in (out / 'frames.jsonl').read_text().splitlines()]
    assert frames[1] == {'name': 'c/2', 'rgb': 'c/2.png', 'depth': 'd/y.npy'}


def test_colour_is_brought_to_the_size_of_depth_or_both_to_a_given_one(tmp_path):
    stored = np.round(METRES * 1000).astype(np.uint16)
    make(tmp_path / 'in', stored[::2, ::2], names=['a'])
    out = convert(tmp_path / 'in', tmp_path / 'out', '--unit=mm')
    frame = load(out)
    np.testing.assert_array_equal(frame['depth'], stored[::2, ::2] / np.float32(1000))
    assert frame['img'].shape == (12, 16, 3)
    out = convert(tmp_path / 'in', tmp_path / 'small', '--unit=mm', '--size', 8, 6)
    assert load(out)['img'].shape == (6, 8, 3)


def test_tiff_depth_of_phones_comes_as_it_is_stored(tmp_path):
    """Half floats in metres, which OpenCV does not read."""
    stored = METRES.astype(np.float16)
    source = make(tmp_path / 'in', stored.astype(np.float32), names=['a'], depth_suffix='.tiff')
    tifffile.imwrite(source / 'depth/a.tiff', stored)
    frame = load(convert(source, tmp_path / 'out', '--unit=m', '--depth=depth/**.tiff'))
    assert frame['valid'].sum() == (stored > 0).sum()
    np.testing.assert_allclose(frame['depth'], stored.astype(np.float32), atol=0.0005)


# ---------------------------------------------------------------- phones


def lying(root, orientation, stored):
    """Colour stored lying with an EXIF orientation, depth of another place."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    for name in ('rgb', 'depth'):
        (root / name).mkdir(parents=True)
    Image.fromarray(COLOUR[..., ::-1]).save(root / 'rgb/1.png', exif=exif)
    write(root / 'depth/1.png', stored)
    return root


@pytest.mark.parametrize(('orientation', 'turn'), [(6, -1), (8, 1)])
def test_depth_that_is_upright_needs_colour_turned_and_the_message_says_how(
    tmp_path, capsys, orientation, turn
):
    stored = np.round(METRES * 1000).astype(np.uint16)
    source = lying(tmp_path / 'in', orientation, np.rot90(stored, turn))
    options = ('--unit=mm', '--rgb=rgb/**.png')
    convert(source, tmp_path / 'out', *options, code=1)
    message = capsys.readouterr().err
    assert f'EXIF orientation {orientation}' in message
    assert '--size' not in message
    data = RGBDDataset(
        data_root=str(source),
        depth_scale=1000,
        img_suffix='.png',
        pipeline=[LoadRGBD()],
        test_mode=True,
    )
    with pytest.raises(FrameError, match=f'EXIF orientation {orientation}'):
        data[0]
    # The cure that the message names, taken from it.
    (cure,) = re.findall(r'--orientation shown', message)
    frame = load(convert(source, tmp_path / 'cured', *options, *cure.split()))
    np.testing.assert_array_equal(frame['img'], np.rot90(COLOUR, turn))
    np.testing.assert_array_equal(frame['depth'], np.rot90(stored, turn) / np.float32(1000))


def test_depth_that_lies_as_colour_is_stored_is_left_alone(tmp_path):
    stored = np.round(METRES * 1000).astype(np.uint16)
    out = convert(
        lying(tmp_path / 'in', 6, stored), tmp_path / 'out', '--unit=mm', '--rgb=rgb/**.png'
    )
    frame = load(out)
    np.testing.assert_array_equal(frame['img'], COLOUR)
    np.testing.assert_array_equal(frame['depth'], stored / np.float32(1000))


# ---------------------------------------------------------------- confidence

MAPS = ('--confidence', 'sure/**.png')
LEVELS = RNG.integers(0, 3, (HEIGHT, WIDTH))
SCALES = {'ARKit': (0, 1, 2), 'bytes': (0, 128, 255)}


def make_sure(root, scale='ARKit', depth=None, **options):
    """Three frames with a confidence map each."""
    depth = np.round(METRES * 1000).astype(np.uint16) if depth is None else depth
    make(root, depth, **options)
    for name in options.get('names', ('a/1', 'a/2', 'b/1')):
        write(root / f'sure/{name}.png', np.array(SCALES[scale], np.uint8)[LEVELS])
    return root


@pytest.mark.parametrize(('scale', 'level'), [('ARKit', 1), ('bytes', 2)])
def test_readings_of_low_confidence_are_none(tmp_path, capsys, scale, level):
    source = make_sure(tmp_path / 'in', scale)
    minimum = SCALES[scale][level]
    out = convert(source, tmp_path / 'out', '--unit=mm', *MAPS, '--min-confidence', minimum)
    expected = np.where(level <= LEVELS, np.round(METRES * 1000), 0)
    for name in ('a/1', 'a/2', 'b/1'):
        np.testing.assert_array_equal(stored_depth(out / f'depth/{name}.png'), expected)
    manifest = json.loads((out / 'manifest.json').read_text())
    readings = ~HOLES
    dropped = (readings & (level > LEVELS)).sum() / readings.sum()
    assert manifest['depth']['depth']['unsure_share'] == pytest.approx(dropped, abs=1e-4)
    assert manifest['depth']['depth']['invalid_share'] == pytest.approx(
        (expected == 0).mean(), abs=1e-4
    )
    assert manifest['options']['min_confidence'] == minimum
    assert manifest['options']['confidence'] == 'sure/**.png'
    printed = capsys.readouterr().out
    assert f'{100 * dropped:.1f} % of the readings dropped for low confidence' in printed
    lines = (out / 'frames.jsonl').read_text().splitlines()
    assert json.loads(lines[0])['confidence'] == 'sure/a/1.png'
    assert not (out / 'sure').exists()


def test_confidence_is_applied_before_the_size_changes(tmp_path):
    source = make_sure(tmp_path / 'in', names=['a'])
    call = ('--unit=mm', *MAPS, '--min-confidence=1', '--size', WIDTH // 2, HEIGHT // 2)
    out = convert(source, tmp_path / 'out', *call)
    expected = np.where(LEVELS >= 1, np.round(METRES * 1000), 0)[1::2, 1::2]
    np.testing.assert_array_equal(stored_depth(out / 'depth/a.png'), expected)


def test_without_maps_the_manifest_says_nothing_of_them(tmp_path, capsys):
    out = convert(make_sure(tmp_path / 'in'), tmp_path / 'out', '--unit=mm')
    manifest = json.loads((out / 'manifest.json').read_text())
    assert 'unsure_share' not in manifest['depth']['depth']
    assert manifest['options']['min_confidence'] is None
    assert 'confidence' not in capsys.readouterr().out
    convert(out.parent / 'in', out, '--unit=mm', *MAPS, '--min-confidence=1', code=1)
    assert 'min_confidence None (asked for: 1.0)' in capsys.readouterr().err


def test_a_threshold_of_another_scale(tmp_path, capsys):
    source = make_sure(tmp_path / 'in')
    convert(source, tmp_path / 'out', '--unit=mm', *MAPS, '--min-confidence=50', code=1)
    error = capsys.readouterr().err
    assert '0 of 3 frames found are converted' in error
    assert (
        'no reading has a confidence of at least 50; where there are readings it holds 0' in error
    )
    # One map that reaches it is enough; the frames that do not are damage.
    write(source / 'sure/b/1.png', np.full((HEIGHT, WIDTH), 50, np.uint8))
    options = ('--unit=mm', *MAPS, '--min-confidence=50', '--on-error=drop')
    out = convert(source, tmp_path / 'out', *options)
    left_out = json.loads((out / 'manifest.json').read_text())['left_out']
    assert (out / 'splits/all.txt').read_text() == 'b/1\n'
    assert 'holds 0 to 2' in left_out[0]


def test_confidence_maps_that_are_damaged(tmp_path, capsys):
    source = make_sure(tmp_path / 'in')
    write(source / 'sure/a/1.png', LEVELS[:, 1:].astype(np.uint8))
    (source / 'sure/a/2.png').write_bytes(b'')
    options = ('--unit=mm', *MAPS, '--min-confidence=1')
    convert(source, tmp_path / 'out', *options, code=1)
    error = capsys.readouterr().err
    assert f'a confidence map of {HEIGHT}x{WIDTH - 1}' in error
    assert 'the file is empty' in error
    out = convert(source, tmp_path / 'out', *options, '--on-error=drop')
    assert (out / 'splits/all.txt').read_text() == 'b/1\n'


def test_recordings_of_two_rates(tmp_path):
    """Colour at 10.0, 10.1, ...; depth and its confidence at half the rate and 20 ms late."""
    stored = np.round(METRES * 1000).astype(np.uint16)
    source = tmp_path / 'in'
    for i in range(5):
        write(source / f'rgb/{10 + i / 10:.1f}.jpg', COLOUR)
    for i in range(0, 5, 2):
        write(source / f'depth/{10.02 + i / 10:.2f}.png', stored + np.uint16(i))
        write(source / f'sure/{10.02 + i / 10:.2f}.png', LEVELS.astype(np.uint8))
    options = ('--unit=mm', '--max-difference=0.04', *MAPS, '--min-confidence=1')
    out = convert(source, tmp_path / 'out', *options)
    assert (out / 'splits/all.txt').read_text().split() == ['10.0', '10.2', '10.4']
    np.testing.assert_array_equal(
        stored_depth(out / 'depth/10.4.png'), np.where(LEVELS >= 1, stored + 4, 0)
    )


# ---------------------------------------------------------------- index, splits, restart


def test_in_place_nothing_is_copied(tmp_path, read_tree):
    stored = np.round(METRES * 5000).astype(np.uint16)
    stored[0, 0] = 60000
    source = make(tmp_path / 'my in', stored, names=['a b/1', 'a b/2', 'c/1'])
    before = read_tree(source)
    options = ('--unit=5000', '--in-place', '--val=0.3', '--max-depth=8', '--invalid', 60000)
    out = convert(source, tmp_path / 'index', *options)
    assert read_tree(source) == before
    assert set(read_tree(out)) == {
        'manifest.json', 'frames.jsonl', 'splits/all.txt', 'splits/train.txt', 'splits/val.txt'
    }  # fmt: skip
    assert (out / 'splits/val.txt').read_text() == 'rgb/c/1.jpg\tdepth/c/1.png\n'
    assert (out / 'splits/train.txt').read_text().startswith('rgb/a b/1.jpg\tdepth/a b/1.png\n')
    frame = load(out, 1)
    assert frame['frame'] == 'rgb/a b/2'
    expected = np.where(stored == 60000, 0, stored) / np.float32(5000)
    np.testing.assert_allclose(frame['depth'], expected, rtol=1e-6)
    found = json.loads((out / 'manifest.json').read_text())['depth']['depth']
    assert found['high'] == pytest.approx(expected.max(), rel=1e-5)
    looked_at = open_folder(out)  # as `mmmask3d check` and `browse` do
    assert len(looked_at.frames) == 3
    assert looked_at.frames.get_data_info(0)['depth_invalid'] == (0, 60000)
    assert {k: len(v) for k, v in looked_at.splits.items()} == {'all': 3, 'train': 2, 'val': 1}
    assert len(open_folder(out, split='val').frames) == 1


def test_a_frame_that_is_gone_from_the_source_is_not_read(tmp_path):
    source = make(tmp_path / 'in', np.round(METRES * 1000).astype(np.uint16), names=['1', '2'])
    out = convert(source, tmp_path / 'out', '--unit=mm')
    for file in source.glob('*/2.*'):
        file.unlink()
    convert(source, out, '--unit=mm')
    settings = json.loads((out / 'manifest.json').read_text())['rgbd_dataset']
    assert len(RGBDDataset(data_root=str(out), **settings)) == 1


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (
            lambda r: write(r / 'depth/a/1.png', np.ones((4, 5), np.uint16)),
            'reads pairs of one size',
        ),
        (lambda r: (r / 'rgb/a/1.jpg').write_bytes(b'\xff\xd8\xff'), 'truncated JPEG'),
        (lambda r: (r / 'depth/a/1.png').write_bytes(b''), 'is empty'),
        (lambda r: (r / 'rgb/a').rename(r / 'rgb/#'), 'no partner'),
    ],
)
def test_in_place_files_are_checked(tmp_path, capsys, change, message):
    source = make(tmp_path / 'in', np.round(METRES * 1000).astype(np.uint16))
    change(source)
    convert(source, tmp_path / 'out', '--unit=mm', '--in-place', code=1)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize('name', [' a', 'a ', 'a\u2028b', 'a\x85b'])
def test_in_place_a_name_that_would_break_the_index_is_refused(tmp_path, capsys, name):
    rgb = make(tmp_path / 'in', np.round(METRES * 1000).astype(np.uint16), names=['x', 'y'])
    for kind, suffix in (('rgb', '.jpg'), ('depth', '.png')):
        (rgb / f'{kind}/x{suffix}').rename(rgb / f'{kind}/{name}{suffix}')
    source = rgb
    convert(source, tmp_path / 'out', '--unit=mm', '--in-place', '--on-error=drop')
    lines = (tmp_path / 'out/splits/all.txt').read_text().split('\n')
    data = RGBDDataset(pipeline=[LoadRGBD()], **settings_of(tmp_path / 'out'))
    assert len(data) == len(lines) - 1
    assert [data[i]['img'].shape for i in range(len(data))] == [(HEIGHT, WIDTH, 3)] * len(data)


def test_in_place_excludes_what_would_change_files(tmp_path, capsys):
    source = make(tmp_path / 'in', np.round(METRES * 1000).astype(np.uint16))
    maps = ['--confidence=depth/**.png', '--min-confidence=1']
    small, floats, shown = ['--size', '8', '6'], ['--depth-format=npy'], ['--orientation=shown']
    for option in (small, floats, shown, maps):
        convert(source, tmp_path / 'out', '--unit=mm', '--in-place', *option, code=1)
        assert '--in-place leaves files as they are' in capsys.readouterr().err


def test_another_validation_share_needs_no_conversion(tmp_path, capsys):
    source = make(
        tmp_path / 'in', np.round(METRES * 1000).astype(np.uint16), names=['a/1', 'b/1', 'c/1']
    )
    out = convert(source, tmp_path / 'out', '--unit=mm', '--val=0.3')
    assert (out / 'splits/val.txt').read_text() == 'c/1\n'
    capsys.readouterr()
    convert(source, tmp_path / 'out', '--unit=mm', '--val=0.7')
    assert 'nothing to do' in capsys.readouterr().out
    assert (out / 'splits/val.txt').read_text() == 'b/1\nc/1\n'
    convert(source, tmp_path / 'out', '--unit=mm')
    assert not (out / 'splits/val.txt').exists()
    convert(source, tmp_path / 'out', '--unit=cm', code=1)
    assert 'unit 1000.0 (asked for: 100.0)' in capsys.readouterr().err


def test_no_depth_file_that_can_be_read(tmp_path, capsys):
    source = make(tmp_path / 'in', METRES.astype(np.uint8), names=['a'])
    (source / 'depth/a.png').write_bytes(b'no png')
    convert(source, tmp_path / 'out', '--unit=mm', code=1)
    assert 'no depth file can be read' in capsys.readouterr().err
