"""Scores kept by frame, and how far their averages would move with other frames and seeds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

DRAWS = 2000
LEVEL = 0.95
#: Fewer rows cannot tell at this level, even if all of them say the same: 2 * 0.5**5 > 0.05.
FEWEST_ROWS = 6


def _rows(count: int) -> Tensor:
    return torch.arange(count)[:, None]


@dataclass
class LabelScores:
    """Counted pixels of each frame and class."""

    counts: Tensor  # (F, 3, K) int64: right ones, predicted ones, true ones

    @property
    def units(self) -> Tensor:
        """Frames behind each row ``(R, U)`` int64: a row is a frame, U = 1."""
        return _rows(len(self.counts))

    def figures(self, weights: Tensor | None = None) -> dict[str, Tensor]:
        """``mIoU`` and ``aAcc`` in percent, pooled over pixels as mmseg's ``IoUMetric`` does.

        Args:
            weights: of the rows ``(B, R)``; None counts each row once, B = 1.

        Returns:
            Figures by name, ``(B,)`` each.
        """
        flat = self.counts.double().flatten(1)
        total = flat.sum(0, keepdim=True) if weights is None else weights.double() @ flat
        hits, found, true = total.unflatten(1, (3, -1)).unbind(1)
        iou = hits / (found + true - hits)  # NaN for a class that is nowhere
        return {
            'mIoU': 100 * iou.nanmean(1),
            'aAcc': 100 * hits.sum(1) / true.sum(1),
        }

    def rows_with(self, name: str) -> int:
        """Number of rows behind a figure."""
        return len(self.counts)

    def by_row(self) -> dict[str, Any]:
        """Of each frame, ``[class, right, predicted, true]`` pixels of the classes it meets."""
        rows = []
        for counts in self.counts:
            met = counts.any(0).nonzero()
            rows.append(torch.cat((met, counts.T[met[:, 0]]), 1).tolist())
        return {'pixels': rows}


@dataclass
class MeanScores:
    """Figures of each frame, or of each pair of frames, whose mean counts.

    Attributes:
        values: ``(R,)`` float64 by name; NaN where a row has no such figure.
        pairs: The two frames of each row ``(R, 2)``; None where a row is a frame.
    """

    values: Mapping[str, Tensor]
    pairs: Tensor | None = None

    @property
    def units(self) -> Tensor:
        """Frames behind each row ``(R, U)`` int64: one, or the two of a pair."""
        return _rows(len(next(iter(self.values.values())))) if self.pairs is None else self.pairs

    def figures(self, weights: Tensor | None = None) -> dict[str, Tensor]:
        """Means over the rows that have the figure; see :meth:`LabelScores.figures`."""
        found = {}
        for name, values in self.values.items():
            known = (~values.isnan()).double()
            w = known[None] if weights is None else weights.double() * known
            found[name] = (w * values.nan_to_num()).sum(1) / w.sum(1)
        return found

    def rows_with(self, name: str) -> int:
        """Number of rows that have a figure."""
        return int((~self.values[name].isnan()).sum())

    def by_row(self) -> dict[str, Any]:
        """The values of each row by figure; None where a row has no such figure."""
        return {
            name: [None if math.isnan(v) else float(f'{v:.6g}') for v in values.tolist()]
            for name, values in self.values.items()
        }


#: Scores of an encoder whose figures can be taken over any frames.
Scores = LabelScores | MeanScores


def columns(rows: Sequence[Mapping[str, float]], names: Sequence[str]) -> dict[str, Tensor]:
    """Those figures that any row has, ``(R,)`` float64 each; NaN where a row has none."""
    return {
        name: torch.tensor([row.get(name, math.nan) for row in rows], dtype=torch.float64)
        for name in names
        if any(name in row for row in rows)
    }


def means(*runs: Scores) -> dict[str, float]:
    """Figures over all frames, averaged over the training seeds of a method."""
    return {name: _mean(values) for name, values in _by_figure(runs).items()}


def _mean(values: Sequence[Tensor]) -> float:
    return float(torch.stack(list(values)).mean())


def spreads(*runs: Scores) -> dict[str, float]:
    """Standard deviation of each figure over two or more training seeds."""
    return {name: float(torch.stack(values).std()) for name, values in _by_figure(runs).items()}


def _by_figure(runs: Sequence[Scores], weights: Tensor | None = None) -> dict[str, list[Tensor]]:
    """Of each figure, what each run has, ``(B,)``."""
    found = [run.figures(weights) for run in runs]
    return {name: [one[name] for one in found] for name in found[0]}


def paired_differences(
    first: Sequence[Scores], second: Sequence[Scores], draws: int = DRAWS, seed: int = 0
) -> dict[str, dict[str, float | bool]]:
    """Differences between two methods, with a 95 % interval over frames and training seeds.

    Frames are drawn with replacement, the same for every run of both; where a row is a pair of
    frames, it counts as often as both were drawn (the product). The interval tells what other
    frames of the same kind would give, and is too narrow where frames are near-duplicates.

    Two or more runs of a method say how much their mean moves with the seed: the draws are spread
    by Student's t times the standard error of the difference, with Welch's degrees of freedom
    (rounded down). The interval is wide for two or three runs, which say little of their spread.
    A method of one run adds nothing: the interval is then for that run, not for other seeds.

    Args:
        first: scores of each run of a method.
        second: those of the other, over the same rows.
        draws: number of draws.
        seed: of the draws.

    Returns:
        By figure: ``difference`` (mean of first - mean of second), ``low``, ``high`` and
        ``within_noise``: the interval contains 0, or fewer than six rows have the figure.

    Raises:
        ValueError: the runs were not scored over the same rows.
    """
    units = first[0].units
    if not all(torch.equal(units, run.units) for run in (*first, *second)):
        raise ValueError('encoders can be compared over the same frames only.')
    generator = torch.Generator().manual_seed(seed)
    weights = _draw(units, draws, generator)
    tail = (1 - LEVEL) / 2
    found: dict[str, dict[str, float | bool]] = {}
    ours, theirs = _by_figure(first, weights), _by_figure(second, weights)
    whole_ours, whole_theirs = _by_figure(first), _by_figure(second)
    for name in ours:
        drawn = torch.stack(ours[name]).mean(0) - torch.stack(theirs[name]).mean(0)
        drawn += _moved_by_seeds(whole_ours[name], whole_theirs[name], draws, generator)
        drawn = drawn[~drawn.isnan()]  # draws without any row that has the figure
        if not len(drawn):
            continue
        low, high = torch.quantile(drawn, torch.tensor([tail, 1 - tail], dtype=drawn.dtype))
        found[name] = {
            'difference': _mean(whole_ours[name]) - _mean(whole_theirs[name]),
            'low': float(low),
            'high': float(high),
            'within_noise': bool(low <= 0 <= high) or first[0].rows_with(name) < FEWEST_ROWS,
        }
    return found


def _moved_by_seeds(
    first: Sequence[Tensor], second: Sequence[Tensor], draws: int, generator: torch.Generator
) -> Tensor:
    """How far the difference of two means may be off by the runs that were made ``(draws,)``."""
    variance, inverse_freedom = 0.0, 0.0
    for runs in (first, second):
        if len(runs) > 1:
            error = float(torch.stack(list(runs)).var()) / len(runs)
            variance += error
            inverse_freedom += error**2 / (len(runs) - 1)
    if variance == 0:
        return torch.zeros(draws, dtype=torch.float64)
    freedom = math.floor(variance**2 / inverse_freedom + 1e-6)
    normal = torch.randn(draws, 1 + freedom, generator=generator, dtype=torch.float64)
    return math.sqrt(variance) * normal[:, 0] / normal[:, 1:].square().mean(1).sqrt()


def _draw(units: Tensor, draws: int, generator: torch.Generator) -> Tensor:
    """How often each row counts in each draw ``(B, R)``."""
    frames, place = units.unique(return_inverse=True)
    drawn = torch.randint(len(frames), (draws, len(frames)), generator=generator)
    times = torch.zeros(draws, len(frames)).scatter_add_(1, drawn, torch.ones(drawn.shape))
    return torch.stack([times[:, column] for column in place.unbind(1)]).prod(0)


def nested_subsets(count: int, shares: Sequence[float], seed: int = 0) -> list[list[int]]:
    """Indices of growing subsets, each within the next one.

    Args:
        count: number of frames.
        shares: of the frames, 0 to 1; at least one frame is taken.
        seed: of the order.
    """
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
    return [sorted(order[: max(1, round(share * count))]) for share in shares]
