"""Pair two recordings by time. Their rates may differ."""

import heapq
from collections.abc import Sequence


def associate(
    first: Sequence[float], second: Sequence[float], max_difference: float, offset: float = 0.0
) -> list[tuple[int, int]]:
    """Pair time stamps, the closest first, each used once.

    The pairs are those of ``associate.py`` of the TUM RGB-D tools: of all pairs closer than
    ``max_difference``, ordered by difference, then by the first and by the second time, each is
    taken whose two stamps are both free. That program looks at all pairs; here only neighbours
    in time are, since no other pair can be the closest.

    Args:
        first: Times, each once.
        second: Times, each once.
        max_difference: Pairs are closer than this; seconds.
        offset: Added to the second times.

    Returns:
        Indices (in ``first``, in ``second``), by rising first time.
    """
    stamps = sorted(
        [(time, 0, i) for i, time in enumerate(first)]
        + [(time + offset, 1, i) for i, time in enumerate(second)]
    )
    before = list(range(-1, len(stamps) - 1))
    after = list(range(1, len(stamps) + 1))
    heap: list[tuple[float, float, float, int, int]] = []

    def consider(low: int, high: int) -> None:
        """Note two neighbours as a possible pair."""
        if low < 0 or high >= len(stamps) or stamps[low][1] == stamps[high][1]:
            return
        one, other = sorted((low, high), key=lambda i: stamps[i][1])
        time, shifted = first[stamps[one][2]], stamps[other][0]
        difference = abs(time - shifted)
        if difference < max_difference:
            heapq.heappush(heap, (difference, time, shifted, low, high))

    for i in range(len(stamps) - 1):
        consider(i, i + 1)
    free = [True] * len(stamps)
    pairs = []
    while heap:
        *_, low, high = heapq.heappop(heap)
        if not (free[low] and free[high]):
            continue
        free[low] = free[high] = False
        one, other = sorted((low, high), key=lambda i: stamps[i][1])
        pairs.append((stamps[one][2], stamps[other][2]))
        below, above = before[low], after[high]
        if below >= 0:
            after[below] = above
        if above < len(stamps):
            before[above] = below
        consider(below, above)
    return sorted(pairs, key=lambda pair: first[pair[0]])
