"""What is read from one frame, by value, and where damaged files are noticed."""

import cv2
import numpy as np
import pytest

from mmmask3d.inspection.measures import measure, spread_indices
from mmmask3d.inspection.sources import LabelMaps, open_folder


@pytest.fixture
def folder(make_rgbd_folder, tmp_path):
    return make_rgbd_folder(tmp_path / 'frames', 2)


def measured(folder, index=0, **given):
    return measure(open_folder(folder, {'img_suffix': '.png', **given}), index)[0]


def test_figures_of_a_frame(folder):
    raw = cv2.imread(str(folder / 'depth/frame_001.png'), cv2.IMREAD_UNCHANGED)
    image = cv2.imread(str(folder / 'rgb/frame_001.png'))
    readings = raw[raw > 0] / 1000
    found = measured(folder, 1)
    depth = found.depth
    assert not found.problems
    assert found.size == (48, 32)
    assert found.spread == pytest.approx(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).std())
    assert depth.invalid == pytest.approx((raw == 0).mean())
    assert depth.low == pytest.approx(readings.min())
    assert depth.median == pytest.approx(np.median(readings))
    assert depth.high == pytest.approx(readings.max())
    assert depth.distinct == len(np.unique(readings))
    assert depth.at_highest == pytest.approx((readings == readings.max()).mean())
    assert (depth.stored_type, depth.stored_high) == ('uint16', raw.max())
    assert depth.step == 1
    assert depth.near == pytest.approx(np.quantile(readings, 0.05))
    assert found.thumbnail.shape == (192,)
    assert found.thumbnail.mean() == pytest.approx(0, abs=1e-4)


def test_limits_and_steps(folder):
    raw = np.full((32, 48), 1600, np.uint16)
    raw[0], raw[1, :24], raw[2, :10] = 0, 65535, 4000
    cv2.imwrite(str(folder / 'depth/frame_000.png'), raw)
    found = measured(folder).depth
    assert found.at_limit == pytest.approx(24 / (32 * 48))
    assert found.step == 5
    limited = measured(folder, max_depth=3.0).depth
    assert limited.at_limit == 0
    assert limited.step == 1600
    assert (limited.at_highest, limited.at_next) == (1, 0)


@pytest.mark.parametrize(
    ('kind', 'write', 'code', 'message'),
    [
        ('rgb', lambda c: b'', 'truncated', 'empty'),
        ('rgb', lambda c: c[:-30], 'truncated', 'the chunk at byte 33 declares'),
        ('depth', lambda c: c[: len(c) // 2], 'truncated', 'the chunk at byte 33 declares'),
        ('depth', lambda c: c[:60] + bytes([c[60] ^ 1]) + c[61:], 'damaged', 'checksum of the'),
        ('rgb', lambda c: b'GIF89a' + c, 'unreadable', 'as a GIF image'),
        ('depth', lambda c: b'GIF89a' + c, 'unreadable', 'expected depth as'),
    ],
)
def test_damaged_files(folder, kind, write, code, message):
    path = folder / kind / 'frame_000.png'
    path.write_bytes(write(path.read_bytes()))
    (problem,) = measured(folder).problems
    assert (problem.code, problem.file) == (code, str(path))
    assert message in problem.message
    assert str(path) not in problem.message


def test_labels(folder):
    source = open_folder(folder, {'img_suffix': '.png'})
    (folder / 'sem').mkdir()
    source.labels = [LabelMaps('sem', f'{folder}/sem', '.png', ('a', 'b'))]
    labels = np.zeros((32, 48), np.uint8)
    labels[0], labels[1, :5] = 2, 255
    path = folder / 'sem/frame_000.png'
    cv2.imwrite(str(path), labels)
    found, missing = measure(source, 0)[0], measure(source, 1)[0]
    assert not found.problems
    assert missing.unlabelled == ['sem']
    for content, code, message in (
        (np.where(labels == 2, 3, 254).astype(np.uint8), 'label-range', 'ids 3, 254 outside'),
        (labels.astype(np.uint16), 'label-unreadable', 'uint16'),
        (labels[:20], 'label-size', '48x20'),
        (np.dstack([labels] * 3), 'label-unreadable', 'found RGB'),
    ):
        cv2.imwrite(str(path), content)
        (problem,) = measure(source, 0)[0].problems
        assert (problem.code, problem.file) == (code, str(path))
        assert message in problem.message


def test_indices_are_spread_over_the_set():
    assert spread_indices(10, 3) == [0, 4, 9]
    assert spread_indices(3, 10) == [0, 1, 2]
    assert spread_indices(7, 1) == [0]
