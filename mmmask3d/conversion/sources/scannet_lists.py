"""Lists of ScanNet's scenes: the official splits, and parts of the training scenes."""

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmmask3d.conversion.paths import SourceError, require
from mmmask3d.datasets.text_lists import read_lines

#: Names of scenes: ``scene<room>_<scan>``.
SCENE = re.compile(r'scene\d{4}_\d{2}')
#: Shares of the training scenes, in per cent, that label efficiency is measured at.
LOW_LABEL_SHARES = (1, 5, 10, 20, 40, 60, 80)
_SPLITS = ('train', 'val', 'test')
_RESERVED = {'all', *_SPLITS, *(f'train_{share:02d}' for share in LOW_LABEL_SHARES)}
_NAME = re.compile(r'[A-Za-z0-9_-]+')


def read_scene_list(path: Path) -> list[str]:
    """Read names of scenes, one a line.

    Raises:
        SourceError: It cannot be read, is empty, or holds something else, or a name twice.
    """
    try:
        lines = [name for _, line in read_lines(path, SourceError) for name in line.split()]
    except OSError as error:
        raise SourceError(f'{path}: cannot be read as a list of scenes ({error}).') from error
    wrong = [name for name, n in Counter(lines).items() if n > 1 or not SCENE.fullmatch(name)]
    if wrong or not lines:
        found = repr(wrong[0][:40]) if wrong else 'nothing'
        raise SourceError(
            f'{path}: expected names like scene0000_00, one a line and each once, found {found}.'
        )
    return lines


def read_splits(folder: Path) -> dict[str, str]:
    """Read the split of each scene from the official ``scannetv2_{train,val,test}.txt``.

    Raises:
        SourceError: None of them exists, one is damaged, or two share a scene.
    """
    splits: dict[str, str] = {}
    found = [name for name in _SPLITS if (folder / f'scannetv2_{name}.txt').exists()]
    if not found:
        require(
            folder / 'scannetv2_train.txt',
            'the official lists of scenes',
            'They lie in Tasks/Benchmark of https://github.com/ScanNet/ScanNet; give their folder '
            'with --splits.',
        )
    for split in found:
        path = folder / f'scannetv2_{split}.txt'
        for scene in read_scene_list(path):
            if scene in splits:
                raise SourceError(f'{path}: {scene} is in the list of {splits[scene]} too.')
            splits[scene] = split
    return splits


def read_given_lists(paths: Sequence[Path], splits: Mapping[str, str]) -> dict[str, list[str]]:
    """Read published lists of training scenes, each named by the stem of its file.

    Raises:
        SourceError: One is damaged, names other than training scenes, or has the name of another.
    """
    lists: dict[str, list[str]] = {}
    for path in paths:
        name = path.stem
        if not _NAME.fullmatch(name) or name in _RESERVED or name in lists:
            raise SourceError(
                f'{path}: splits/{name}.txt cannot be made of it, that name is taken or has other '
                f'characters than letters, digits, "_" and "-". Rename the file.'
            )
        lists[name] = read_scene_list(path)
        other = [scene for scene in lists[name] if splits.get(scene) != 'train']
        if other:
            raise SourceError(f'{path}: {other[0]} is not a training scene.')
    return lists


def draw_low_label_lists(scenes: Sequence[str], seed: int) -> dict[str, list[str]]:
    """Draw nested lists of training scenes.

    Scenes are ordered by a hash of the seed and their name; a list is the beginning of that order,
    so each holds all smaller ones. The lists are ours, not ScanNet's and not those of any paper.

    Returns:
        Scenes of each list, sorted, at least one; ``train_05`` for 5 %.
    """
    order = sorted(scenes, key=lambda s: (hashlib.sha256(f'{seed} {s}'.encode()).digest(), s))
    return {
        f'train_{share:02d}': sorted(order[: max(1, round(len(order) * share / 100))])
        for share in LOW_LABEL_SHARES
        if order
    }
