"""Rules about splits: frames that do not exist, and those in training and evaluation alike."""

from collections.abc import Mapping, Sequence

from mmmask3d.inspection.duplicates import compared, near_pairs
from mmmask3d.inspection.findings import Finding, Findings
from mmmask3d.inspection.measures import Measures
from mmmask3d.inspection.sources import Source

_LEAK = 'Remove them from one of the two: results on the second are worth nothing with them.'


def check_splits(
    sources: Sequence[Source], measures: Sequence[Sequence[Measures]]
) -> list[Finding]:
    """Check the splits of all sets, and compare those for training with those for evaluation.

    A split trains if its name contains 'train', evaluates if it contains 'val' or 'test'; others
    (``all``), and those whose name says both (``trainval``), are not compared.

    Args:
        sources: All sets; a config may have one for each split.
        measures: Of the frames of each.
    """
    by_file = {m.img_path: m for frames in measures for m in frames}
    reported: list[Finding] = []
    for source, frames in zip(sources, measures, strict=True):
        found = Findings(source.title)
        for name, listed in source.splits.items():
            _check_one(name, listed, source, {m.img_path for m in frames}, found)
        reported += found.found
    merged: dict[str, dict[str, None]] = {}
    for source in sources:
        for name, listed in source.splits.items():
            merged.setdefault(name, {}).update(dict.fromkeys(listed))
    title = ', '.join(source.title for source in sources)
    for train, train_files in merged.items():
        for test, test_files in merged.items():
            if role(train) == 'train' and role(test) == 'evaluate':
                found = Findings(title)
                _compare(train, test, list(train_files), list(test_files), by_file, found)
                reported += found.found
    return reported


def role(name: str) -> str:
    """'train' or 'evaluate' by the name of a split; '' where it says neither, or both."""
    trains, evaluates = 'train' in name, 'val' in name or 'test' in name
    if trains == evaluates:
        return ''
    return 'train' if trains else 'evaluate'


def _check_one(
    name: str, listed: Sequence[str], source: Source, existing: set[str], found: Findings
) -> None:
    # A set that was opened by an index knows the frames of that index only.
    absent = [] if source.frames.ann_file else sorted(set(listed) - existing)
    if absent:
        found.add(
            'split-absent',
            'error',
            f'frames of split {name!r} that do not exist as a pair: {len(absent)}',
            'Complete the data, or remove these lines.',
            absent,
        )


def _compare(
    train: str,
    test: str,
    train_files: Sequence[str],
    test_files: Sequence[str],
    by_file: Mapping[str, Measures],
    found: Findings,
) -> None:
    both = sorted(set(train_files) & set(test_files))
    if both:
        found.add(
            'split-leak',
            'error',
            f'frames that are in split {train!r} and in {test!r}: {len(both)}',
            _LEAK,
            both,
        )
    own = [by_file[f] for f in train_files if f in by_file]
    other = [by_file[f] for f in test_files if f in by_file and f not in set(both)]
    trained = {m.img_hash: m.img_path for m in own if m.img_hash}
    same = [m for m in other if m.img_hash in trained]
    if same:
        found.add(
            'split-leak-content',
            'error',
            f'colour images of split {test!r} that are in {train!r} byte for byte under another '
            f'name: {len(same)}',
            _LEAK,
            [m.img_path for m in same],
            [f'same as {trained[str(m.img_hash)]}' for m in same],
        )
    own, thumbnails = compared(own)
    other, others = compared([m for m in other if m.img_hash not in trained])
    near = near_pairs(others, thumbnails)
    alike = [(m, own[i]) for m, i in zip(other, near, strict=True) if i >= 0]
    if alike:
        found.add(
            'split-near',
            'warning',
            f'frames of split {test!r} that look nearly like one of {train!r}: {len(alike)} of '
            f'{len(other)}',
            'Split by scene or by recording, not by frame.',
            [m.img_path for m, _ in alike],
            [f'like {t.img_path}' for _, t in alike],
        )
