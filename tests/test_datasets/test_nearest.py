"""Nearest resizing picks the pixel under the centre, for every type of pixel."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmmask3d.datasets.nearest import resize_nearest

sizes = st.integers(1, 90)


@settings(deadline=None, max_examples=150)
@given(source=st.tuples(sizes, sizes), target=st.tuples(sizes, sizes))
def test_against_brute_force(source, target):
    array = np.arange(source[0] * source[1], dtype=np.float32).reshape(source)
    got = resize_nearest(array, target[::-1])
    assert got.shape == target
    rows, columns = divmod(got.astype(int), source[1])
    assert (rows == rows[:, :1]).all()
    assert (columns == columns[:1]).all()
    for picked, s, t in ((rows[:, 0], source[0], target[0]), (columns[0], source[1], target[1])):
        for x, pick in enumerate(picked):
            exact, remainder = divmod((2 * x + 1) * s, 2 * t)
            assert pick == exact or (remainder == 0 and pick == exact - 1)


@pytest.mark.parametrize(
    'dtype', [bool, 'u1', 'i2', 'u2', '>u2', 'u4', 'i8', 'f2', 'f4', '>f4', 'f8']
)
@pytest.mark.parametrize('order', ['C', 'F'])
def test_keeps_the_type_and_picks_the_centre(dtype, order):
    array = (np.random.default_rng(0).random((9, 15)) * 2).astype(dtype, order=order)
    got = resize_nearest(array, (5, 3))
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, array[1::3, 1::3])
