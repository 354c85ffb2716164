"""Equal and nearly equal frames against all pairs computed one by one."""

import numpy as np
import pytest

from mmmask3d.inspection.duplicates import FLAT, NEAR, near_pairs, same_content


def test_same_content():
    assert same_content(['a', 'b', None, 'a', None, 'c', 'b', 'a']) == [[0, 3, 7], [1, 6]]


def centred(rng, n, spread):
    values = rng.normal(0, 1, (n, 192))
    values -= values.mean(1, keepdims=True)
    return (values / values.std(1, keepdims=True) * spread).astype(np.float32)


@pytest.mark.parametrize('block', [3, 1024])
def test_near_pairs_by_value(monkeypatch, block):
    monkeypatch.setattr('mmmask3d.inspection.duplicates._BLOCK', block)
    rng = np.random.default_rng(0)
    base = centred(rng, 6, 20.0)
    near = base[1] + centred(rng, 1, NEAR - 0.2)[0]
    far = base[2] + centred(rng, 1, NEAR + 0.2)[0]
    flat = centred(rng, 2, FLAT - 1) * 0.5
    frames = np.concatenate([base, near[None], far[None], flat]).astype(np.float32)
    np.testing.assert_array_equal(near_pairs(frames[6:], frames[:6]), [1, -1, -1, -1])
    np.testing.assert_array_equal(near_pairs(frames[5:8], frames[:5]), [-1, 1, -1])
    assert near_pairs(frames[:0], frames).size == 0
    np.testing.assert_array_equal(near_pairs(frames[:2], frames[:0]), [-1, -1])
