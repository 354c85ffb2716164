"""Scores kept by frame, and how far their averages would move with other frames."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

DRAWS = 2000
LEVEL = 0.95


class Scores(Protocol):
    """Scores of an encoder whose figures can be taken over any frames."""

    @property
    def units(self) -> Tensor:
        """Frames behind each row ``(R, U)`` int64: one, or the two of a pair."""

    def figures(self, weights: Tensor | None = None) -> dict[str, Tensor]:
        """Figures by name, ``(B,)`` each.

        Args:
            weights: of the rows ``(B, R)``; None counts each row once, B = 1.
        """


def _rows(count: int) -> Tensor:
    return torch.arange(count)[:, None]


@dataclass
class LabelScores:
    """Counted pixels of each frame and class.

    Attributes:
        counts: ``(F, 3, K)`` int64: right ones, predicted ones, true ones.
    """

    counts: Tensor

    @property
    def units(self) -> Tensor:
        """See :class:`Scores`: a row is a frame."""
        return _rows(len(self.counts))

    def figures(self, weights: Tensor | None = None) -> dict[str, Tensor]:
        """``mIoU`` and ``aAcc`` in percent, pooled over pixels as mmseg's ``IoUMetric`` does."""
        flat = self.counts.double().flatten(1)
        total = flat.sum(0, keepdim=True) if weights is None else weights.double() @ flat
        hits, found, true = total.unflatten(1, (3, -1)).unbind(1)
        iou = hits / (found + true - hits)  # NaN for a class that is nowhere
        return {
            'mIoU': 100 * iou.nanmean(1),
            'aAcc': 100 * hits.sum(1) / true.sum(1),
        }


@dataclass
class MeanScores:
    """Figures of each frame, or of each pair of frames, whose mean counts.

    Attributes:
        values: ``(R,)`` float64 by name; NaN where a row has no such figure.
        units: See :class:`Scores`; None where a row is a frame.
    """

    values: Mapping[str, Tensor]
    pairs: Tensor | None = None

    @property
    def units(self) -> Tensor:
        """See :class:`Scores`."""
        return _rows(len(next(iter(self.values.values())))) if self.pairs is None else self.pairs

    def figures(self, weights: Tensor | None = None) -> dict[str, Tensor]:
        """Means over the rows that have the figure."""
        found = {}
        for name, values in self.values.items():
            known = (~values.isnan()).double()
            w = known[None] if weights is None else weights.double() * known
            found[name] = (w * values.nan_to_num()).sum(1) / w.sum(1)
        return found


def means(scores: Scores) -> dict[str, float]:
    """Figures over all frames, as plain numbers."""
    return {name: float(value) for name, value in scores.figures().items()}


def paired_differences(
    first: Scores, second: Scores, draws: int = DRAWS, seed: int = 0
) -> dict[str, dict[str, float | bool]]:
    """Differences between two encoders, with a percentile interval over frames.

    Frames are drawn with replacement, the same for both; where a row is a pair of frames, it
    counts as often as both were drawn (the product). The interval tells what other frames of the
    same kind would give. It says nothing about other training seeds, and is too narrow where
    frames are near-duplicates of each other.

    Args:
        first: scores of one encoder.
        second: scores of the other, over the same rows.
        draws: number of draws.
        seed: of the draws.

    Returns:
        By figure: ``difference`` (first - second), ``low``, ``high`` (95 % interval) and
        ``within_noise``: the interval contains 0.

    Raises:
        ValueError: the two were not taken over the same rows.
    """
    units = first.units
    if not torch.equal(units, second.units):
        raise ValueError('two encoders can be compared over the same frames only.')
    weights = _draw(units, draws, seed)
    ours, theirs = first.figures(weights), second.figures(weights)
    all_ours, all_theirs = means(first), means(second)
    found: dict[str, dict[str, float | bool]] = {}
    for name in ours:
        drawn = ours[name] - theirs[name]
        drawn = drawn[~drawn.isnan()]  # draws without any row that has the figure
        if not len(drawn):
            continue
        tail = (1 - LEVEL) / 2
        low, high = torch.quantile(drawn, torch.tensor([tail, 1 - tail], dtype=drawn.dtype))
        found[name] = {
            'difference': all_ours[name] - all_theirs[name],
            'low': float(low),
            'high': float(high),
            'within_noise': bool(low <= 0 <= high),
        }
    return found


def _draw(units: Tensor, draws: int, seed: int) -> Tensor:
    """How often each row counts in each draw ``(B, R)``."""
    frames, place = units.unique(return_inverse=True)
    generator = torch.Generator().manual_seed(seed)
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
