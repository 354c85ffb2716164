"""Predicted depth becomes a target that does not depend on its unknown factor and offset."""

import json

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmmask3d.conversion.command_line import run
from mmmask3d.conversion.sources.predicted_depth import (
    PredictedDepthConverter,
    read_prediction,
    relative_target,
)
from mmmask3d.datasets import FrameError, LoadRGBD, RGBDDataset
from mmmask3d.models.depth_target import DepthTarget

HEIGHT, WIDTH = 24, 32
RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
METRES = RNG.uniform(0.5, 6, (HEIGHT, WIDTH))
ALL = np.ones((HEIGHT, WIDTH), bool)


def standardised(values, valid):
    """What the network is asked for, by the code that asks."""
    target = DepthTarget('standardise')
    depth = torch.from_numpy(np.where(valid, values, 0).astype(np.float32))[None, None]
    mask = torch.from_numpy(valid)[None, None]
    return target.encode(depth, target.statistics(depth, mask))[0, 0].numpy()[valid]


def reference(values, valid):
    """Zero mean and unit deviation in float64, written out."""
    inside = values[valid].astype(np.float64)
    return (inside - inside.mean()) / inside.std()


def write(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == '.npy':
        np.save(path, array)
    else:
        assert cv2.imwrite(str(path), array)


def make(root, prediction, suffix='.npy', colour=COLOUR):
    write(root / 'rgb/a.jpg', colour)
    write(root / f'depth/a{suffix}', prediction)
    return root


def convert(source, out, *options, code=0):
    depth = [f'--depth=depth/*{next((source / "depth").iterdir()).suffix}']
    call = [str(source), str(out), '--workers=1', *depth, *map(str, options)]
    assert run(PredictedDepthConverter, call) == code
    return out


def load(out):
    settings = json.loads((out / 'manifest.json').read_text())['rgbd_dataset']
    data = RGBDDataset(data_root=str(out), pipeline=[LoadRGBD()], **settings)
    return data[0]


# ---------------------------------------------------------------- confidence


def test_predictions_of_low_confidence_are_none(tmp_path):
    """The target is scaled to the range of those that are left."""
    sure = np.where(RNG.random((HEIGHT, WIDTH)) < 0.7, 0.9, 0.1).astype(np.float32)
    values = np.where(sure > 0.5, METRES, 1000.0).astype(np.float32)
    source = make(tmp_path / 'in', values)
    write(source / 'sure/a.npy', sure)
    options = ('--kind=depth', '--confidence=sure/*.npy', '--min-confidence=0.5')
    out = convert(source, tmp_path / 'out', *options)
    frame = load(out)
    np.testing.assert_array_equal(frame['valid'], sure > 0.5)
    expected = relative_target(METRES, sure > 0.5, 'depth', 'a')[0]
    np.testing.assert_allclose(frame['depth'], expected, atol=1e-5)
    manifest = json.loads((out / 'manifest.json').read_text())
    share = (sure < 0.5).mean()
    assert manifest['depth']['depth']['unsure_share'] == pytest.approx(share, abs=1e-4)


# ---------------------------------------------------------------- the target


@settings(deadline=None, max_examples=100)
@given(
    seed=st.integers(0, 2**32 - 1),
    factor=st.floats(1e-3, 1e3),
    offset=st.floats(-100, 100),
    kind=st.sampled_from(['depth', 'inverse']),
)
def test_factor_and_offset_do_not_matter(seed, factor, offset, kind):
    rng = np.random.default_rng(seed)
    values = rng.uniform(0, 1, (12, 16))
    valid = rng.random(values.shape) < 0.8
    first, *_ = relative_target(values, valid, kind, 'f')
    second, *_ = relative_target(values * factor + offset, valid, kind, 'f')
    np.testing.assert_allclose(first, second, atol=1e-9)
    assert first[valid].min() == pytest.approx(1 / 65535)
    assert first[valid].max() == 1
    assert (first[~valid] == 0).all()


@pytest.mark.parametrize('depth_format', ['png', 'npy'])
@pytest.mark.parametrize(
    ('kind', 'prediction'),
    [
        ('depth', 3.7 * METRES + 11),
        ('inverse', 40 / METRES - 2),  # larger is nearer; negative values among them
    ],
)
def test_the_network_is_asked_for_the_standardised_prediction(
    tmp_path, kind, prediction, depth_format
):
    make(tmp_path / 'in', prediction.astype(np.float32))
    options = ('--kind', kind, '--depth-format', depth_format)
    frame = load(convert(tmp_path / 'in', tmp_path / 'out', *options))
    assert frame['valid'].all()
    assert frame['depth_kind'] == 'relative'
    got = standardised(frame['depth'], frame['valid'])
    expected = reference(prediction if kind == 'depth' else -prediction, ALL)
    assert np.abs(got - expected).max() < (3e-4 if depth_format == 'png' else 1e-4)
    # The same way round as every other source: farther is larger.
    assert np.corrcoef(got, METRES.ravel())[0, 1] > 0.5
    ranks = np.argsort(METRES.ravel())
    assert (np.diff(got[ranks]) >= 0).all()


def test_inverse_depth_near_0_does_not_blow_up(tmp_path):
    """A far wall and sky: 1/x of it would reach 1e6 and leave nothing of the rest."""
    prediction = (1 / METRES).astype(np.float32)
    prediction[:6] = 0  # sky
    prediction[6] = 1e-6
    make(tmp_path / 'in', prediction)
    frame = load(convert(tmp_path / 'in', tmp_path / 'out', '--kind=inverse'))
    assert frame['valid'].all()
    got = standardised(frame['depth'], frame['valid']).reshape(HEIGHT, WIDTH)
    assert np.abs(got).max() < 6
    assert got[:6].min() == got.max()
    assert got[7:].std() > 0.5
    inverted = standardised(1 / np.maximum(prediction, 1e-6), ALL).reshape(HEIGHT, WIDTH)
    assert inverted[7:].std() < 1e-4  # what inverting would have done


def test_0_is_a_prediction_unless_it_is_named(tmp_path):
    prediction = np.round(METRES * 40).astype(np.uint8)
    prediction[:3] = 0
    make(tmp_path / 'in', prediction, '.png')
    frame = load(convert(tmp_path / 'in', tmp_path / 'out', '--kind=inverse'))
    assert frame['valid'].all()
    assert (frame['depth'][:3] == 1).all()  # farthest
    frame = load(convert(tmp_path / 'in', tmp_path / 'out0', '--kind=inverse', '--invalid', 0))
    np.testing.assert_array_equal(frame['valid'], prediction > 0)


def test_what_is_no_prediction(tmp_path):
    prediction = METRES.astype(np.float32)
    prediction[0, :4] = np.nan, np.inf, -np.inf, 1e4
    make(tmp_path / 'in', prediction)
    options = ('--kind=depth', '--max-value=1000')
    frame = load(convert(tmp_path / 'in', tmp_path / 'out', *options))
    np.testing.assert_array_equal(frame['valid'], prediction == METRES.astype(np.float32))
    valid = frame['valid']
    np.testing.assert_allclose(
        standardised(frame['depth'], valid), reference(METRES, valid), atol=3e-4
    )


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        (np.full((4, 4), 3.0), 'values from 3 to 3'),
        (np.full((4, 4), np.nan), 'no value of the prediction is valid'),
        (np.array([[-1.7e308, 1.7e308]]), 'no relative depth can be made'),
        (np.where(np.arange(400) == 0, 1e6, np.arange(400.0))[None], 'flatten all others'),
    ],
)
def test_predictions_without_a_target(values, message):
    with pytest.raises(FrameError, match=message):
        relative_target(values, np.isfinite(values), 'depth', 'f')


def test_most_of_a_frame_may_be_sky():
    values = np.where(np.arange(1000) < 900, 0, np.arange(1000.0))[None]
    target, low, high = relative_target(values, np.ones_like(values, bool), 'inverse', 'f')
    assert (low, high) == (0, 999)
    assert (target[0, :900] == 1).all()


# ---------------------------------------------------------------- files and sizes


def test_the_range_of_the_prediction_is_kept(tmp_path):
    prediction = (METRES * 3 + 1).astype(np.float32)
    make(tmp_path / 'in', prediction)
    out = convert(tmp_path / 'in', tmp_path / 'out', '--kind=inverse')
    (line,) = (out / 'frames.jsonl').read_text().splitlines()
    record = json.loads(line)
    assert record['low'] == prediction.min()
    assert record['high'] == prediction.max()
    stored = cv2.imread(str(out / 'depth/a.png'), cv2.IMREAD_UNCHANGED).astype(float)
    back = record['high'] - (stored - 1) / 65534 * (record['high'] - record['low'])
    assert np.abs(back - prediction).max() <= (record['high'] - record['low']) / 65534


@pytest.mark.parametrize(
    ('prediction', 'colour', 'options', 'expected'),
    [
        ((24, 32), (24, 32), (), (24, 32)),
        ((12, 16), (24, 32), (), (12, 16)),  # colour comes down to it
        ((48, 64), (24, 32), (), (24, 32)),  # and it down to colour
        ((20, 20), (24, 32), (), (24, 32)),  # squeezed into a square
        ((12, 16), (24, 32), ('--size', 8, 6), (6, 8)),
        ((40, 40), (24, 32), ('--size', 64, 48), (48, 64)),
    ],
)
def test_sizes(tmp_path, prediction, colour, options, expected):
    y, x = np.mgrid[0 : prediction[0], 0 : prediction[1]]
    values = 1.0 + y * prediction[1] + x
    values[: prediction[0] // 4] = np.nan
    image = np.zeros((*colour, 3), np.uint8)
    make(tmp_path / 'in', values, colour=image)
    out = convert(tmp_path / 'in', tmp_path / 'out', '--kind=depth', '--depth-format=npy', *options)
    frame = load(out)
    assert frame['img'].shape == (*expected, 3)
    assert frame['depth'].shape == expected
    # Picked, never mixed: each value is one of the prediction, at its place, and holes stay.
    record = json.loads((out / 'frames.jsonl').read_text())
    back = (frame['depth'] * 65535 - 1) / 65534 * (record['high'] - record['low']) + record['low']
    rows = np.minimum(
        (np.arange(expected[0]) + 0.5) * prediction[0] / expected[0], prediction[0] - 1
    )
    columns = (np.arange(expected[1]) + 0.5) * prediction[1] / expected[1]
    picked = values[np.ix_(rows.astype(int), columns.astype(int))]
    valid = frame['valid']
    assert np.abs(back[valid] - np.round(back[valid])).max() < 0.05
    assert np.isin(np.round(back[valid]), values[~np.isnan(values)]).all()
    # Shrunk by an even factor, the centre falls between two pixels, and either may be picked.
    if expected[0] >= prediction[0] or prediction[0] % expected[0]:
        np.testing.assert_array_equal(valid, ~np.isnan(picked))
        assert np.abs(back[valid] - picked[valid]).max() < 0.05


def test_a_prediction_of_the_picture_as_shown_is_not_squeezed(tmp_path, capsys):
    """cv2.imread turns a phone's picture, so the network saw it upright."""
    source = make(tmp_path / 'in', np.rot90(METRES, -1))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(COLOUR[..., ::-1]).save(source / 'rgb/a.png', exif=exif)
    (source / 'rgb/a.jpg').unlink()
    seen = cv2.imread(str(source / 'rgb/a.png'))
    assert seen.shape[:2] == (WIDTH, HEIGHT)
    options = ('--kind=depth', '--rgb=rgb/*.png', '--depth-format=npy')
    convert(source, tmp_path / 'out', *options, code=1)
    assert 'EXIF orientation 6' in capsys.readouterr().err
    frame = load(convert(source, tmp_path / 'cured', *options, '--orientation', 'shown'))
    np.testing.assert_array_equal(frame['img'], seen)
    order = np.argsort(frame['depth'], axis=None)
    np.testing.assert_array_equal(order, np.argsort(np.rot90(METRES, -1), axis=None))


def test_grey_saved_as_rgb_is_read_and_false_colours_are_refused(tmp_path):
    grey = np.round(METRES * 40).astype(np.uint8)
    write(tmp_path / 'grey.png', np.repeat(grey[..., None], 3, axis=2))
    np.testing.assert_array_equal(read_prediction(tmp_path / 'grey.png'), grey)
    write(tmp_path / 'colour.png', cv2.applyColorMap(grey, cv2.COLORMAP_INFERNO))
    with pytest.raises(FrameError, match=r'colour\.png: a picture of depth in false colours'):
        read_prediction(tmp_path / 'colour.png')
    write(tmp_path / 'wide.png', np.round(METRES * 9000).astype(np.uint16))
    assert read_prediction(tmp_path / 'wide.png').dtype == np.uint16


@pytest.mark.parametrize('shape', [(1, HEIGHT, WIDTH), (HEIGHT, WIDTH, 1)])
def test_a_batch_dimension_is_named(tmp_path, capsys, shape):
    make(tmp_path / 'in', METRES.reshape(shape))
    convert(tmp_path / 'in', tmp_path / 'out', '--kind=depth', code=1)
    assert 'expected a depth map of shape (H, W)' in capsys.readouterr().err


def test_the_kind_has_to_be_said(tmp_path, capsys):
    make(tmp_path / 'in', METRES)
    with pytest.raises(SystemExit):
        convert(tmp_path / 'in', tmp_path / 'out')
    assert 'the following arguments are required: --kind' in capsys.readouterr().err
