"""Depth keeps its values, colour its bytes, and what is stored is what was meant."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mmmask3d.conversion import frame as module
from mmmask3d.conversion.frame import bring_to_size, encode, measure, store_depth
from mmmask3d.datasets import FrameError
from mmmask3d.datasets.depth_io import decode_depth, to_readings

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (24, 32, 3), dtype=np.uint8)
JPEG = cv2.imencode('.jpg', COLOUR)[1].tobytes()
PNG = cv2.imencode('.png', COLOUR)[1].tobytes()
DEPTH = np.where(RNG.random((24, 32)) < 0.3, 0, RNG.integers(1, 65536, (24, 32))).astype(np.uint16)


# ---------------------------------------------------------------- store_depth

ANY_FLOAT = hnp.arrays(
    st.sampled_from([np.float32, np.float64]),
    (3, 4),
    elements=st.one_of(
        st.floats(width=32),
        st.floats(0, 70, width=32),
        st.sampled_from([np.nan, np.inf, -np.inf, -1.0, 0.0, 65.535, 65.536, 66.0, 131.072]),
    ),
)


@settings(deadline=None, max_examples=300)
@given(ANY_FLOAT, hnp.arrays(bool, (3, 4)), st.sampled_from([1.0, 100.0, 1000.0, 5000.0]))
def test_stored_depth_never_wraps_round(depth, valid, scale):
    stored = store_depth(depth, valid, scale)
    assert stored.dtype == np.uint16
    for value, ok, got in zip(depth.flat, valid.flat, stored.flat, strict=True):
        units = float(value) * scale
        if not ok or not np.isfinite(units) or round(units) < 1 or round(units) > 65535:
            assert got == 0
        else:
            assert got == round(units)  # half to even, as numpy


def test_stored_depth_by_value():
    metres = np.array([[0.0004, 0.0006, 1.2344, 65.535, 65.5354, 65.536, 66.0, np.nan]])
    expected = [[0, 1, 1234, 65535, 65535, 0, 0, 0]]
    np.testing.assert_array_equal(store_depth(metres, metres > 0, 1000), expected)


# ---------------------------------------------------------------- bring_to_size


@settings(deadline=None, max_examples=150)
@given(
    data=st.data(),
    dtype=st.sampled_from([np.uint8, np.uint16, np.float32]),
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    factor=st.floats(0.1, 3),
)
def test_depth_of_another_size_holds_source_values_only(data, dtype, shape, factor):
    size = tuple(max(1, round(side * factor)) for side in shape[::-1])
    seed = data.draw(st.integers(0, 2**16))
    rng = np.random.default_rng(seed)
    depth = (rng.random(shape) * 250).astype(dtype)
    depth[rng.random(shape) < 0.4] = 0
    if dtype == np.float32:
        depth[rng.random(shape) < 0.1] = np.nan
    try:
        got = bring_to_size({'depth': depth}, size, 'f')[0]['depth']
    except FrameError:
        assert abs(shape[1] / shape[0] / (size[0] / size[1]) - 1) > 0.02
        return
    assert got.shape == size[::-1]
    assert got.dtype == dtype
    # Independent of OpenCV: the pixel under the centre, up to one where it falls between two.
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new) for new, old in zip(got.shape, shape, strict=True)
    )
    candidates = [
        depth[np.ix_(_floor(rows, d, shape[0]), _floor(columns, e, shape[1]))]
        for d in (0, 1e-6)
        for e in (0, 1e-6)
    ]
    same = [(got == c) | (np.isnan(got) & np.isnan(c)) for c in candidates]
    assert np.any(same, axis=0).all()


def _floor(positions, less, length):
    return np.clip(np.floor(positions - less), 0, length - 1).astype(int)


def test_labels_and_instances_move_with_depth():
    y, x = np.mgrid[0:24, 0:32]
    images = {
        'depth': (1 + y * 32 + x).astype(np.uint16),
        'label': ((y * 32 + x) % 13).astype(np.uint8),
        'instance': (y * 32 + x).astype(np.uint16),
    }
    got, _ = bring_to_size(images, (16, 12), 'f')
    np.testing.assert_array_equal(got['instance'], got['depth'] - 1)
    np.testing.assert_array_equal(got['label'], (got['depth'] - 1) % 13)


def test_colour_shrinks_by_the_mean_of_its_pixels():
    got = bring_to_size({'rgb': COLOUR}, (16, 12), 'f')[0]['rgb']
    means = COLOUR.reshape(12, 2, 16, 2, 3).mean((1, 3))
    assert np.abs(got - means).max() <= 0.51


def test_the_size_is_that_of_depth_else_of_colour():
    images = {'rgb': JPEG, 'depth': DEPTH[::2, ::2], 'label': np.zeros((24, 32), np.uint8)}
    got, _ = bring_to_size(images, None, 'f')
    assert {k: v.shape[:2] for k, v in got.items()} == dict.fromkeys(images, (12, 16))
    got, _ = bring_to_size({'label': images['label'][::2, ::2], 'rgb': JPEG}, None, 'f')
    assert {k: v.shape[:2] for k, v in got.items()} == {'label': (24, 32), 'rgb': (24, 32)}
    assert bring_to_size({'label': images['label']}, None, 'f')[0]['label'].shape == (24, 32)


@pytest.mark.parametrize('content', [JPEG, PNG])
def test_a_colour_file_of_the_right_size_is_kept_byte_for_byte(content):
    got, files = bring_to_size({'rgb': content, 'depth': DEPTH}, None, 'f')
    assert files == {'rgb': content}
    assert got['rgb'].shape == (24, 32, 3)
    suffix = '.jpg' if content is JPEG else '.png'
    assert encode(content, suffix, 'f') == content
    assert bring_to_size({'rgb': content, 'depth': DEPTH}, (16, 12), 'f')[1] == {}


@pytest.mark.parametrize('size', [(32, 24), (16, 12)])
def test_a_colour_file_is_decoded_once(monkeypatch, size):
    calls = []
    real = module.decode_colour
    monkeypatch.setattr(module, 'decode_colour', lambda *a: calls.append(a) or real(*a))
    _, files = bring_to_size({'rgb': JPEG, 'depth': DEPTH}, size, 'f')
    for content in files.values():
        encode(content, '.jpg', 'f')
    assert len(calls) == 1


def test_another_aspect_ratio_is_refused():
    with pytest.raises(FrameError, match=r'f: rgb of 32x24 .* distorted .* to 32x20'):
        bring_to_size({'rgb': JPEG, 'depth': DEPTH[:20]}, None, 'f')


# ---------------------------------------------------------------- encode


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
def test_png_depth_comes_back(dtype):
    image = DEPTH.astype(dtype)
    np.testing.assert_array_equal(decode_depth(encode(image, '.png', 'f'), 'f'), image)


def test_npy_depth_comes_back():
    image = DEPTH.astype(np.float32) / 7
    got = decode_depth(encode(image, '.npy', 'f'), 'f')
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, image)


def test_float_depth_is_not_squeezed_into_a_png():
    with pytest.raises(RuntimeError, match=r'f: \.png decodes to uint8.* encoded, float32'):
        encode(DEPTH.astype(np.float32), '.png', 'f')


@pytest.mark.parametrize(
    ('content', 'suffix', 'message'),
    [
        (PNG, '.jpg', r'expected a \.jpg file, found the format PNG'),
        (JPEG, '.png', r'expected a \.png file'),
        (b'', '.jpg', 'expected'),
    ],
)
def test_colour_bytes_that_are_not_what_they_are_said_to_be(content, suffix, message):
    with pytest.raises(FrameError, match=rf'(?s)f: .*{message}'):
        encode(content, suffix, 'f')


# ---------------------------------------------------------------- measure


def test_measured_depth_is_that_of_readings():
    depth = np.array([[0, 0, 10, 20, 40]], np.uint16)
    expected = {'invalid': 0.4, 'low': 10.0, 'median': 20.0, 'high': 40.0}
    assert measure('depth', depth) == expected
    floats = np.array([[np.nan, -3, 10, 20, 40, np.inf, 0]], np.float32)
    assert measure('depth_raw', floats) == expected | {'invalid': round(4 / 7, 6)}
    assert measure('depth', np.zeros((2, 2), np.uint16)) == {'invalid': 1.0}


def test_what_is_measured_is_what_the_loader_reads():
    floats = RNG.normal(1, 1, (40, 50)).astype(np.float32)
    floats[RNG.random(floats.shape) < 0.2] = np.nan
    depth, valid = to_readings(floats, 1.0)
    found = measure('depth', floats)
    assert found['invalid'] == round(1 - valid.mean(), 6)
    assert found['median'] == pytest.approx(float(np.median(depth[valid])))


def test_measured_labels_are_counts():
    assert measure('label', np.array([[0, 3, 3]], np.uint8)) == {'pixels': {'0': 1, '3': 2}}
    assert measure('rgb', COLOUR) == {}
