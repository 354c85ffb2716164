"""Pair two recordings by time. Their rates may differ."""

from bisect import bisect_left
from collections.abc import Sequence


def associate(
    first: Sequence[float], second: Sequence[float], max_difference: float, offset: float = 0.0
) -> list[tuple[int, int]]:
    """Pair time stamps, the closest first, each used once.

    The pairs are those of ``associate.py`` of the TUM RGB-D tools: of all pairs closer than
    ``max_difference``, ordered by difference, then by the first and by the second time, each is
    taken whose two stamps are both free.

    Args:
        first: Times, each once.
        second: Times, each once.
        max_difference: Pairs are closer than this; seconds.
        offset: Added to the second times.

    Returns:
        Indices (in ``first``, in ``second``), by rising first time.
    """
    shifted = sorted((time + offset, j) for j, time in enumerate(second))
    candidates = []
    for i, time in enumerate(first):
        # One more on either side, since the ends of the window are rounded.
        low = max(0, bisect_left(shifted, (time - max_difference, 0)) - 1)
        high = bisect_left(shifted, (time + max_difference, 0)) + 1
        candidates += [(abs(time - other), time, other, i, j) for other, j in shifted[low:high]]
    pairs: dict[int, int] = {}
    taken = set()
    for difference, *_, i, j in sorted(candidates):
        if difference < max_difference and i not in pairs and j not in taken:
            pairs[i] = j
            taken.add(j)
    return sorted(pairs.items(), key=lambda pair: first[pair[0]])
