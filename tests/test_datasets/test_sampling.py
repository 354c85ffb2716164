"""Draws are a function of (seed, epoch, index)."""

import pickle
import random

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler

from mmmask3d.datasets import EpochIndex, EpochIndexSampler, sample_rng


def draw():
    return random.random(), np.random.random(), torch.rand(1).item()


def seeded_draw(*key):
    with sample_rng(*key):
        return draw()


def test_epoch_index_is_an_int_that_keeps_its_epoch():
    index = EpochIndex(17, epoch=3)
    assert (index, index.epoch, index.origin) == (17, 3, 17)
    assert [10, 20, 30][EpochIndex(1, 5)] == 20
    for inner, value in ((index - 10, 7), (index % 5, 2), ((index - 10) % 4, 3)):
        assert (inner, inner.epoch, inner.origin) == (value, 3, 17)
    assert type(index + 1) is int
    index = EpochIndex(17, epoch=3, seed=5)
    assert [((index - 10) % 4).seed, (index - 10).seed] == [5, 5]
    copy = pickle.loads(pickle.dumps(index - 10))
    assert (copy, copy.epoch, copy.origin, copy.seed) == (7, 3, 17, 5)
    assert type(copy) is EpochIndex


def test_draws_depend_on_seed_epoch_and_index_alone():
    first = seeded_draw(0, 1, 2)
    draw()
    torch.manual_seed(5)
    assert seeded_draw(0, 1, 2) == first
    others = {seeded_draw(s, e, i) for s in range(4) for e in range(4) for i in range(4)}
    assert len(others) == 64
    for position in range(3):  # each of the three generators by itself
        assert len({other[position] for other in others}) == 64


@pytest.mark.parametrize('numbers', [(0,), (0, 1, 2, 3), (2**32 - 1, 7), (2**32, 7), (2**70, 0)])
def test_the_draws_are_those_of_separate_generators(numbers):
    """They must not change between versions, or a resumed run is another one."""
    words = np.random.SeedSequence(numbers).generate_state(8)
    expected = (
        random.Random(words[:4].tobytes()).random(),
        np.random.RandomState(words[4:6]).random_sample(),
        torch.rand(
            1, generator=torch.Generator().manual_seed(int(words[6]) << 32 | int(words[7]))
        ).item(),
    )
    assert seeded_draw(*numbers) == expected


def test_contexts_nest():
    inner, outer = seeded_draw(5), seeded_draw(4)
    with sample_rng(4):
        assert seeded_draw(5) == inner
        assert draw() == outer


def test_a_negative_number_changes_nothing():
    np.random.seed(1)
    expected = np.random.random()
    np.random.seed(1)
    with pytest.raises(ValueError, match='non-negative'):
        seeded_draw(1, -1)
    assert np.random.random() == expected


@pytest.mark.parametrize('fail', [False, True])
def test_the_generators_outside_go_on_undisturbed(fail):
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = draw(), draw()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    before = draw()
    try:
        with sample_rng(0, 0, 0):
            draw()
            if fail:
                raise RuntimeError('inside')
    except RuntimeError:
        assert fail
    assert (before, draw()) == expected


@pytest.mark.parametrize('shuffle', [True, False])
def test_order_is_that_of_the_default_sampler(shuffle):
    ours = EpochIndexSampler(range(11), shuffle=shuffle, seed=4)
    theirs = DefaultSampler(range(11), shuffle=shuffle, seed=4)
    orders = []
    for epoch in (0, 1, 7):
        ours.set_epoch(epoch)
        theirs.set_epoch(epoch)
        indices = list(ours)
        assert indices == list(theirs)
        assert [i.epoch for i in indices] == [epoch] * 11
        orders.append(indices)
    assert (orders[0] != orders[1]) == shuffle


def test_start_skips_once():
    sampler = EpochIndexSampler(range(10), seed=0)
    sampler.set_epoch(2)
    whole = list(sampler)
    sampler.set_start(4)
    assert list(sampler) == whole[4:]
    assert list(sampler) == whole
    sampler.set_start(10)
    assert list(sampler) == []


@pytest.mark.parametrize('start', [-1, 11])
def test_start_out_of_range(start):
    with pytest.raises(ValueError, match=r'\[0, 10\].*resumed with another'):
        EpochIndexSampler(range(10), seed=0).set_start(start)


def test_ranks_share_an_epoch(monkeypatch):
    parts = []
    for rank in range(2):
        monkeypatch.setattr('mmengine.dataset.sampler.get_dist_info', lambda rank=rank: (rank, 2))
        sampler = EpochIndexSampler(range(10), seed=3)
        sampler.set_epoch(1)
        whole = list(sampler)
        sampler.set_start(2)
        assert list(sampler) == whole[2:]
        parts.append(whole)
    assert sorted(parts[0] + parts[1]) == list(range(10))
