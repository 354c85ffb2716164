"""Validation frames are not neighbours of those trained on."""

import argparse

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmmask3d.conversion.val_split import share, validation_frames, with_validation


def test_whole_folders_from_the_last_on():
    names = [f'scene_{s}/{i}' for s in range(10) for i in range(20)]
    assert validation_frames(names, 0.2) == {f'scene_{s}/{i}' for s in (8, 9) for i in range(20)}


def test_a_folder_that_is_too_large_is_passed_over():
    names = [f'a/{i}' for i in range(50)] + [f'b/{i}' for i in range(10)]
    names += [f'c/{i}' for i in range(40)]
    assert validation_frames(names, 0.1) == {f'b/{i}' for i in range(10)}


def test_cameras_of_a_scene_stay_together():
    names = [f'scene{s}/cam{c}/{i}' for s in range(5) for c in range(2) for i in range(4)]
    assert validation_frames(names, 0.2) == {f'scene4/cam{c}/{i}' for c in (0, 1) for i in range(4)}
    one = [name for name in names if name.startswith('scene0')]  # nothing else to set aside
    assert validation_frames(one, 0.5) == {f'scene0/cam1/{i}' for i in range(4)}


@pytest.mark.parametrize('prefix', ['', 'scene/'])
def test_the_last_frames_in_a_row_of_one_folder(prefix):
    names = [f'{prefix}frame_{i}' for i in range(101)]  # frame_100 comes after frame_99
    assert validation_frames(names, 0.1) == {f'{prefix}frame_{i}' for i in range(91, 101)}


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=8).filter(lambda sizes: sum(sizes) > 1),
    st.floats(0.01, 0.99),
)
def test_folders_stay_whole_or_one_row_is_cut(sizes, wanted):
    names = [f'{f}/{i}' for f, size in enumerate(sizes) for i in range(size)]
    chosen = validation_frames(names, wanted)
    assert 0 < len(chosen) < len(names)
    target = min(max(1, round(wanted * len(names))), len(names) - 1)
    assert len(chosen) <= max(1.5 * target, 1)
    cut = [
        f
        for f, size in enumerate(sizes)
        if 0 < sum(f'{f}/{i}' in chosen for i in range(size)) < size
    ]
    assert len(cut) <= 1
    if cut:  # then the frames are the last ones
        assert chosen == set(names[len(names) - len(chosen) :])


def test_splits():
    names = dict.fromkeys(['a/1', 'a/2', 'b/1'], '')
    assert with_validation(names, None) == {'all': ['a/1', 'a/2', 'b/1']}
    assert with_validation(names, 0.3) == {
        'all': ['a/1', 'a/2', 'b/1'],
        'train': ['a/1', 'a/2'],
        'val': ['b/1'],
    }
    assert with_validation({'a': ''}, 0.5) == {'all': ['a']}


@pytest.mark.parametrize('text', ['0', '1', '-0.1', 'nan', '10'])
def test_a_share_lies_between_0_and_1(text):
    with pytest.raises(argparse.ArgumentTypeError):
        share(text)
    assert share('0.1') == 0.1
