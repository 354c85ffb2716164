"""Lists of scenes: the official splits and parts of the training scenes."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmmask3d.conversion.paths import SourceError
from mmmask3d.conversion.sources.scannet_lists import (
    draw_low_label_lists,
    read_given_lists,
    read_scene_list,
    read_splits,
)

SCENES = [f'scene{i:04d}_{j:02d}' for i in range(700) for j in range(2)][:1201]


def write(path, *names):
    path.write_text(''.join(f'{name}\n' for name in names))


def test_splits(tmp_path):
    write(tmp_path / 'scannetv2_train.txt', 'scene0001_00', 'scene0000_00')
    write(tmp_path / 'scannetv2_test.txt', 'scene0707_00')
    assert read_splits(tmp_path) == {
        'scene0001_00': 'train', 'scene0000_00': 'train', 'scene0707_00': 'test',
    }  # fmt: skip
    write(tmp_path / 'scannetv2_val.txt', 'scene0707_00')
    with pytest.raises(SourceError, match=r'test\.txt: scene0707_00 is in the list of val'):
        read_splits(tmp_path)


def test_lists_that_are_none(tmp_path):
    with pytest.raises(SourceError, match='Tasks/Benchmark'):
        read_splits(tmp_path)
    with pytest.raises(SourceError, match='Tasks/Benchmark'):
        read_splits(tmp_path / 'absent')
    path = tmp_path / 'a.txt'
    for content, message in (
        (b'', 'found nothing'),
        (b'scene0000_00\n../scene0000_00\n', r"found '\.\./scene"),
        (b'scene0000_00 scene0000_00', 'each once, found .scene0000_00'),
        (b'\xff', 'expected text in UTF-8'),
    ):
        path.write_bytes(content)
        with pytest.raises(SourceError, match=r'a\.txt: .*' + message):
            read_scene_list(path)


def test_drawn_lists_have_their_share_and_are_nested():
    lists = draw_low_label_lists(SCENES, seed=0)
    assert {name: len(scenes) for name, scenes in lists.items()} == {
        'train_01': 12, 'train_05': 60, 'train_10': 120, 'train_20': 240,
        'train_40': 480, 'train_60': 721, 'train_80': 961,
    }  # fmt: skip
    ordered = list(lists.values())
    for smaller, larger in itertools.pairwise(ordered):
        assert set(smaller) < set(larger)
        assert larger == sorted(set(larger))
    assert set(ordered[-1]) < set(SCENES)


def test_drawn_lists_depend_on_the_seed_alone():
    lists = draw_low_label_lists(SCENES, seed=0)
    assert draw_low_label_lists(SCENES[::-1], seed=0) == lists
    assert draw_low_label_lists(SCENES, seed=1)['train_01'] != lists['train_01']
    # Typed from a run: another computer, or a later version, has to draw the same.
    assert lists['train_01'][:3] == ['scene0153_00', 'scene0211_00', 'scene0217_00']


@given(st.integers(1, 300), st.integers(0, 2**40))
def test_small_sets(n, seed):
    lists = list(draw_low_label_lists(SCENES[:n], seed).values())
    assert len(lists) == 7
    assert all(1 <= len(scenes) <= n for scenes in lists)
    assert all(set(a) <= set(b) for a, b in itertools.pairwise(lists))


def test_given_lists(tmp_path):
    splits = {'scene0001_00': 'train', 'scene0002_00': 'train', 'scene0003_00': 'val'}
    five, twenty = tmp_path / 'scannetv2_train_5.txt', tmp_path / '20.txt'
    write(five, 'scene0002_00')
    write(twenty, 'scene0002_00', 'scene0001_00')
    assert read_given_lists([five, twenty], splits) == {
        'scannetv2_train_5': ['scene0002_00'],
        '20': ['scene0002_00', 'scene0001_00'],
    }
    with pytest.raises(SourceError, match=r'20\.txt: splits/20\.txt cannot be made'):
        read_given_lists([twenty, twenty], splits)
    for name in ('train', 'all', 'train_05', 'a b', '..a'):
        write(tmp_path / f'{name}.txt', 'scene0002_00')
        with pytest.raises(SourceError, match='cannot be made of it'):
            read_given_lists([tmp_path / f'{name}.txt'], splits)
    write(five, 'scene0003_00')
    with pytest.raises(SourceError, match=r'5\.txt: scene0003_00 is not a training scene'):
        read_given_lists([five], splits)
    with pytest.raises(SourceError, match=r'absent\.txt: cannot be read'):
        read_given_lists([tmp_path / 'absent.txt'], splits)
