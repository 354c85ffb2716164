"""Registration by value: known shifts and scales, unrelated pairs, too few frames."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from mmmask3d.inspection.registration import LOG_SCALES, Correlator, has_contours, registration
from mmmask3d.visualization.edges import edge_pair

SMALL = (72, 96)  # height, width


def pairs_of(frames):
    return [edge_pair(*frame) for frame in frames]


def test_agreement_is_the_mean_over_contours(make_scenes):
    """Against a plain loop over contours."""
    one, other = pairs_of(make_scenes(2, (60, 80)))
    correlator = Correlator([one, other], radius=5)
    found = correlator.surfaces(one, other)
    same = list(LOG_SCALES).index(0)
    last = len(LOG_SCALES) - 1
    height, width = one.colour.shape[1:]
    for s, down, right in (
        (same, 0, 0),
        (same, -5, 3),
        (same, 2, 5),
        (last, 0, 0),
        (last, 4, -5),
    ):
        factor = np.exp(LOG_SCALES[s])
        total = 0.0
        for row, column, edge in zip(one.rows, one.columns, one.contours.T, strict=True):
            y = round((height - 1) / 2 + factor * (row - (height - 1) / 2)) + down
            x = round((width - 1) / 2 + factor * (column - (width - 1) / 2)) + right
            if 0 <= y < height and 0 <= x < width:
                total += float(edge @ other.colour[:, y, x])
        assert found[s, down + 5, right + 5] == pytest.approx(total / len(one.rows), abs=1e-4)


def test_registered(make_scenes):
    found = registration(pairs_of(make_scenes(12, SMALL)))
    assert found.verdict == 'registered'
    assert found.used == 12
    assert found.scale == 1
    assert np.abs(found.shift).max() <= 1
    assert found.displacement <= 0.01
    assert found.p_value <= 1 / 40
    assert found.agreement_as_is == found.agreement > 3 * found.agreement_shuffled


@pytest.mark.parametrize('shift', [(4, 0), (-3, 6), (13, 2)])
def test_a_shift_is_recovered(make_scenes, shift):
    found = registration(pairs_of(make_scenes(shift=shift)))
    assert found.verdict == 'misregistered'
    assert found.shift == pytest.approx((-shift[0], -shift[1]), abs=1)
    assert found.scale == 1
    assert found.displacement == pytest.approx(np.hypot(*shift) / 160, abs=0.01)
    assert found.interval[0] > 0.01
    assert found.agreement_as_is < found.agreement


def test_the_shift_is_in_pixels_of_the_frame(make_scenes):
    found = registration(pairs_of(make_scenes(8, (240, 320), shift=(12, -8))))
    assert found.width == 320
    assert found.shift == pytest.approx((-12, 8), abs=2)


@pytest.mark.parametrize('scale', [0.75, 1.4])
def test_another_field_of_view_is_recovered(make_scenes, scale):
    found = registration(pairs_of(make_scenes(16, SMALL, scale=scale, shift=(2, 0))))
    assert found.verdict == 'misregistered'
    assert found.scale == pytest.approx(1 / scale, rel=0.031)  # a step of the grid
    spread = abs(1 / scale - 1) * np.sqrt((72**2 + 96**2) / 12) / 96
    assert found.displacement == pytest.approx(spread, abs=0.03)


def test_within_the_tolerance(make_scenes):
    pairs = pairs_of(make_scenes(9, SMALL, shift=(3, 0)))
    assert registration(pairs, tolerance=0.05).verdict == 'registered'


def test_pairs_of_different_scenes_agree_nowhere(make_scenes):
    colour, depth = make_scenes(16, SMALL, seed=1), make_scenes(16, SMALL, seed=2)
    mixed = [(c[0], d[1], d[2]) for c, d in zip(colour, depth, strict=True)]
    found = registration(pairs_of(mixed))
    assert found.verdict == 'unmatched'
    assert found.p_value > 0.05


def test_too_few(make_scenes):
    flat = (np.zeros((*SMALL, 3), np.uint8), np.ones(SMALL, np.float32), np.ones(SMALL, bool))
    pairs = pairs_of([*make_scenes(8, SMALL), flat])
    assert [has_contours(pair) for pair in pairs] == [True] * 8 + [False]
    found = registration(pairs[:7])
    assert (found.verdict, found.used) == ('too few', 7)
    assert registration(pairs[:8]).used == 8


def test_the_same_seed_gives_the_same_result(make_scenes):
    pairs = pairs_of(make_scenes(9, SMALL))
    assert Correlator(pairs).surfaces(pairs[0], pairs[0]).shape == (len(LOG_SCALES), 21, 21)
    with ThreadPoolExecutor(3) as pool:
        one, two = registration(pairs, seed=3), registration(pairs, seed=3, run=pool.map)
    assert one == two
