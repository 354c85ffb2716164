"""The measurement of the registration check: displaced depth, sub-samples, printed verdicts."""

import numpy as np
import pytest


@pytest.fixture
def tool(load_tool):
    return load_tool('benchmarks/registration_rates.py')


def test_depth_is_displaced_by_what_is_said(tool):
    depth = np.arange(1, 13 * 9 + 1, dtype=np.float32).reshape(9, 13)
    valid = depth % 5 > 0
    moved, known = tool.displaced(depth, valid, (3, -2), 1.0)
    np.testing.assert_array_equal(moved[:-2, 3:], depth[2:, :-3])
    np.testing.assert_array_equal(known[:-2, 3:], valid[2:, :-3])
    assert not known[:, :3].any()
    assert not known[-2:].any()
    larger, _ = tool.displaced(depth, valid, (0, 0), 2.0)
    assert larger[4, 6] == depth[4, 6]
    assert larger[4 + 2, 6 - 4] == depth[4 + 1, 6 - 2]


def test_sub_samples(tool):
    drawn = list(tool.sub_samples(9, 4, 5, False, 0))
    assert all(len(set(d)) == 4 and d == sorted(d) for d in drawn)
    assert len({tuple(d) for d in drawn}) > 1
    assert drawn == list(tool.sub_samples(9, 4, 5, False, 0))
    clips = list(tool.sub_samples(9, 4, 5, True, 0))
    assert all(np.diff(c).tolist() == [1, 1, 1] for c in clips)


def test_known_shifts_are_told(tool, make_scene_folder, tmp_path, capsys):
    folder = make_scene_folder(tmp_path / 'set', n=12, size=(72, 96))
    options = ['--img-suffix', '.png', '--frames', '10', '--draws', '2', '--shift', '0', '6']
    tool.main([str(folder), *options])
    still, moved = capsys.readouterr().out.splitlines()
    assert still.startswith("shift 0, 0 scale 1, 10 frames, 2 draws: {'registered': 2}")
    assert moved.startswith("shift 6, 0 scale 1, 10 frames, 2 draws: {'misregistered': 2}")
    with pytest.raises(SystemExit):
        tool.main(['nowhere'])
    assert 'no folder' in capsys.readouterr().err
