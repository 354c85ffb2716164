"""Frames that appear twice: the same bytes, or nearly the same picture."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from mmmask3d.inspection.findings import Findings
from mmmask3d.inspection.measures import Measures, spread_indices

#: Grey levels, root mean square over a thumbnail of 16 x 12 without its mean. Noise and JPEG
#: leave less than 1; two pictures closer than this cannot be told apart at that size.
NEAR = 3.0
#: Pictures flatter than this are all alike and are not compared.
FLAT = 4.0
#: More frames are not compared with each other: the cost is their square.
MOST_COMPARED = 10000
_BLOCK = 1024


def same_content(hashes: Sequence[str | None]) -> list[list[int]]:
    """Groups of two or more positions with the same hash, in order; None belongs to no group."""
    groups = defaultdict(list)
    for position, value in enumerate(hashes):
        if value is not None:
            groups[value].append(position)
    return [group for group in groups.values() if len(group) > 1]


def near_pairs(thumbnails: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Which thumbnail is nearest to each, where that is at most :data:`NEAR`.

    Args:
        thumbnails: float32 (n, d), mean taken off.
        others: float32 (m, d) to look in.

    Returns:
        int (n,): position of the nearest, -1 where none is near. Flat pictures have none and are
        nobody's.
    """
    nearest = np.full(len(thumbnails), -1)
    if not len(others) or not len(thumbnails):
        return nearest
    square = (others**2).sum(1)
    other_flat = square / thumbnails.shape[1] < FLAT**2
    for start in range(0, len(thumbnails), _BLOCK):
        block = thumbnails[start : start + _BLOCK]
        own = (block**2).sum(1)
        distance = own[:, None] + square - 2 * block @ others.T
        distance[:, other_flat] = np.inf
        best = distance.argmin(1)
        close = distance[np.arange(len(block)), best] <= NEAR**2 * block.shape[1]
        close &= own / block.shape[1] >= FLAT**2
        nearest[start : start + _BLOCK][close] = best[close]
    return nearest


def compared(measures: Sequence[Measures]) -> tuple[list[Measures], np.ndarray]:
    """Frames with a thumbnail, at most :data:`MOST_COMPARED` of them, and these, float32 (n, d)."""
    frames = [m for m in measures if m.thumbnail is not None]
    frames = [frames[i] for i in spread_indices(len(frames), MOST_COMPARED)]
    return frames, np.array([m.thumbnail for m in frames])


def check_duplicates(measures: Sequence[Measures], found: Findings) -> None:
    """Note frames of a set that repeat another."""
    whole = [m.img_hash and m.depth_hash and m.img_hash + m.depth_hash for m in measures]
    groups = same_content(whole)
    twice = {i for group in groups for i in group}
    groups = [g for g in groups if len({measures[i].img_path for i in g}) > 1]
    if groups:
        found.add(
            'duplicate',
            'warning',
            f'frames that repeat another, byte for byte: {sum(len(g) - 1 for g in groups)}',
            'Keep one of each in the index, unless they are repeated on purpose.',
            [measures[i].img_path for g in groups for i in g[1:]],
            [f'same as {measures[g[0]].img_path}' for g in groups for _ in g[1:]],
        )
    comparable = {
        i for i, m in enumerate(measures) if m.img_hash and m.depth_hash and i not in twice
    }
    for code, values, files, partner in (
        ('duplicate-depth', [m.depth_hash for m in measures], 'depth_path', 'colour'),
        ('duplicate-colour', [m.img_hash for m in measures], 'img_path', 'depth'),
    ):
        groups = same_content([v if i in comparable else None for i, v in enumerate(values)])
        if groups:
            what = 'depth maps' if files == 'depth_path' else 'colour images'
            found.add(
                code,
                'warning',
                f'{what} that are byte for byte that of another frame, with different {partner}: '
                f'{sum(len(g) for g in groups)}',
                'The pairing is off, or a sensor repeated its last image: pair by time, and leave '
                'repetitions out.',
                [getattr(measures[i], files) for g in groups for i in g],
                [f'in {len(g)} frames' for g in groups for _ in g],
            )
