"""Figures over frames, and the interval of a difference, on data of which the truth is known."""

import math

import pytest
import torch

from mmmask3d.evaluation.bootstrap import (
    LabelScores,
    MeanScores,
    means,
    nested_subsets,
    paired_differences,
    spreads,
)


def generator(seed):
    return torch.Generator().manual_seed(seed)


def test_figures_of_labels_by_hand():
    counts = torch.tensor([[[2, 0, 0], [3, 1, 0], [2, 2, 0]], [[0, 1, 0], [0, 2, 0], [0, 1, 1]]])
    # Over both: right 2, 1, 0; predicted 3, 3, 0; true 2, 3, 1.
    found = means(LabelScores(counts))
    assert found['mIoU'] == pytest.approx(100 * (2 / 3 + 1 / 5 + 0) / 3)
    assert found['aAcc'] == pytest.approx(100 * 3 / 6)
    # The first frame twice: the third class is nowhere and does not count.
    doubled = LabelScores(counts).figures(torch.tensor([[2.0, 0.0]]))
    assert float(doubled['mIoU']) == pytest.approx(100 * (2 / 3 + 0) / 2)


def test_means_leave_out_what_is_missing():
    scores = MeanScores({'a': torch.tensor([1.0, math.nan, 4.0], dtype=torch.float64)})
    assert means(scores) == {'a': 2.5}
    weighted = scores.figures(torch.tensor([[3.0, 5.0, 1.0]]))
    assert float(weighted['a']) == pytest.approx(7 / 4)


@pytest.mark.parametrize('truth', [0.0, 0.3])
def test_the_interval_covers_the_true_difference(truth):
    """In 400 synthetic studies of 40 frames, whose difficulty both encoders share."""
    covered, called_noise = 0, 0
    for seed in range(400):
        g = generator(seed)
        difficulty = 5 * torch.randn(40, generator=g, dtype=torch.float64)
        ours, theirs = (
            MeanScores({'x': difficulty + torch.randn(40, generator=g) + shift})
            for shift in (truth, 0.0)
        )
        found = paired_differences([ours], [theirs], draws=400, seed=seed)['x']
        covered += found['low'] <= truth <= found['high']
        called_noise += found['within_noise']
        assert found['high'] - found['low'] < 1.5  # unpaired it would be above 4
    assert 0.91 <= covered / 400 <= 0.97
    if truth == 0:
        assert called_noise == covered


def test_a_clear_difference_is_none_of_noise():
    a = MeanScores({'x': torch.arange(30.0, dtype=torch.float64) + 1})
    b = MeanScores({'x': torch.arange(30.0, dtype=torch.float64)})
    found = paired_differences([a], [b])['x']
    assert found == pytest.approx(dict(difference=1, low=1, high=1, within_noise=False))
    same = paired_differences([b], [b])['x']
    assert same == {'difference': 0, 'low': 0, 'high': 0, 'within_noise': True}


@pytest.mark.parametrize(('rows', 'noise'), [(1, True), (5, True), (6, False)])
def test_few_rows_tell_nothing_though_they_agree(rows, noise):
    values = torch.cat((torch.arange(rows, dtype=torch.float64), torch.tensor([math.nan] * 9)))
    found = paired_differences([MeanScores({'x': values + 1})], [MeanScores({'x': values})])['x']
    assert found['within_noise'] is noise


@pytest.mark.parametrize('others', [3, 1])
def test_the_interval_covers_other_seeds(others):
    """In 400 studies of three training runs against three, or against an untrained encoder.

    A seed moves a run by more than its frames tell: an interval over frames alone mostly misses.
    """
    covered, narrow = 0, 0
    for seed in range(400):
        g = generator(seed)
        difficulty = 5 * torch.randn(40, generator=g, dtype=torch.float64)

        def run(moved, g=g, difficulty=difficulty):
            of_seed = moved * torch.randn(1, generator=g)
            return MeanScores({'x': difficulty + of_seed + 0.5 * torch.randn(40, generator=g)})

        ours, theirs = [run(1) for _ in range(3)], [run(others > 1) for _ in range(others)]
        covered += paired_differences(ours, theirs, draws=300, seed=seed)['x']['within_noise']
        alone = paired_differences(ours[:1], theirs[:1], draws=300, seed=seed)['x']
        narrow += alone['within_noise']
    assert 0.92 <= covered / 400 <= 0.99
    assert narrow / 400 < 0.25


def test_means_and_spreads_over_runs():
    runs = [MeanScores({'x': torch.tensor([v, v + 2.0])}) for v in (0.0, 1.0, 5.0)]
    assert means(*runs) == {'x': 3.0}
    assert spreads(*runs)['x'] == pytest.approx(math.sqrt(7))
    other = [MeanScores({'x': torch.tensor([1.0, 3.0])})]
    assert paired_differences(runs, other)['x']['difference'] == pytest.approx(1)


def test_rows_hold_what_the_figures_are_made_of():
    counts = torch.tensor([[[2, 0, 0], [3, 0, 1], [2, 0, 0]], [[0, 1, 0], [0, 1, 0], [0, 4, 0]]])
    assert LabelScores(counts).by_row() == {
        'pixels': [[[0, 2, 3, 2], [2, 0, 1, 0]], [[1, 1, 1, 4]]]
    }
    values = torch.tensor([1 / 3, math.nan], dtype=torch.float64)
    assert MeanScores({'a': values}).by_row() == {'a': [0.333333, None]}


def test_pairs_of_a_frame_move_together():
    """Thirty pairs with one bad frame say little about other frames."""
    pairs = torch.tensor([[0, j] for j in range(1, 31)])
    values = torch.randn(30, generator=generator(1), dtype=torch.float64) + 0.5
    by_pair = MeanScores({'x': values}, pairs)
    by_row = MeanScores({'x': values})
    zero = torch.zeros(30, dtype=torch.float64)
    wide = paired_differences([by_pair], [MeanScores({'x': zero}, pairs)])['x']
    narrow = paired_differences([by_row], [MeanScores({'x': zero})])['x']
    assert wide['high'] - wide['low'] > 0.95 * (narrow['high'] - narrow['low'])
    with pytest.raises(ValueError, match='the same frames'):
        paired_differences([by_pair], [by_row])


def test_subsets_are_nested():
    small, middle, large = nested_subsets(50, (0.01, 0.2, 1.0))
    assert (len(small), len(middle), large) == (1, 10, list(range(50)))
    assert set(small) < set(middle) < set(large)
