"""Set aside validation frames that are not near-duplicates of training frames."""

import argparse
from collections.abc import Mapping, Sequence

from mmmask3d.conversion.options import share
from mmmask3d.conversion.pairs import natural_order

_MOST = 1.5  # times the share asked for, before a folder is taken apart


def add_argument(parser: argparse._ActionsContainer) -> None:
    """Add ``--val``."""
    parser.add_argument(
        '--val',
        type=share,
        metavar='SHARE',
        help='also write splits/train.txt and val.txt, with about this share for validation: '
        'whole folders, or the last frames in a row, as neighbours in a video are nearly alike',
    )


def validation_frames(names: Sequence[str], wanted: float) -> set[str]:
    """Choose frames for validation.

    Whole folders from the last on, as long as they add up to no more than 1.5 times the share:
    those at the top (of a scene with several cameras, all of them), else the innermost ones; the
    last frames in a row where no folder is small enough.

    Args:
        names: Of all frames, with '/' between folders.
        wanted: Share of them.

    Returns:
        At least one name, and at least one less than all.
    """
    ordered = sorted(names, key=natural_order)
    target = min(max(1, round(wanted * len(ordered))), len(ordered) - 1)
    most = min(max(_MOST * target, 1), len(ordered) - 1)
    for folder_of in (lambda name: name.partition('/')[0], lambda name: name.rpartition('/')[0]):
        folders: dict[str, list[str]] = {}
        for name in ordered:
            folders.setdefault(folder_of(name) if '/' in name else '', []).append(name)
        chosen: set[str] = set()
        for inside in reversed(folders.values()):
            if len(chosen) < target and len(chosen) + len(inside) <= most:
                chosen.update(inside)
        if chosen:
            return chosen
    return set(ordered[len(ordered) - target :])


def with_validation(names: Mapping[str, str], wanted: float | None) -> dict[str, list[str]]:
    """Split files of a source: ``all``, and ``train`` and ``val`` where a share is given."""
    splits = {'all': list(names)}
    if wanted is not None and len(names) > 1:
        chosen = validation_frames(list(names), wanted)
        splits['train'] = [name for name in names if name not in chosen]
        splits['val'] = [name for name in names if name in chosen]
    return splits
