"""Label and instance maps of ScanNet against a table typed from ScanNet's own evaluation."""

import cv2
import numpy as np
import pytest

from mmmask3d.conversion.paths import SourceError
from mmmask3d.conversion.sources.scannet_labels import (
    CATEGORY_OF_NYU40,
    LABEL20_OF_NYU40,
    categories_by_label,
    check_nyu40,
    nyu40_of_ids,
    read_label_map,
    split_joint_ids,
)
from mmmask3d.datasets.classes import NYU40_CLASSES, SCANNET18_CLASSES, SCANNET20_CLASSES
from mmmask3d.datasets.depth_io import FrameError

# BenchmarkScripts/2d_evaluation/evalPixelLevelSemanticLabeling.py of ScanNet/ScanNet (commit
# 3830fce), VALID_CLASS_IDS and CLASS_LABELS; the same pairs stand in
# Tasks/Benchmark/classes_SemVoxLabel-nyu40id.txt, which has NYU's spelling "refridgerator".
PUBLISHED = [
    (1, 'wall'), (2, 'floor'), (3, 'cabinet'), (4, 'bed'), (5, 'chair'), (6, 'sofa'),
    (7, 'table'), (8, 'door'), (9, 'window'), (10, 'bookshelf'), (11, 'picture'),
    (12, 'counter'), (14, 'desk'), (16, 'curtain'), (24, 'refrigerator'),
    (28, 'shower curtain'), (33, 'toilet'), (34, 'sink'), (36, 'bathtub'),
    (39, 'otherfurniture'),
]  # fmt: skip
# Of the same repository, evalInstanceLevelSemanticLabeling.py, VALID_CLASS_IDS.
PUBLISHED_INSTANCE_IDS = [3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 16, 24, 28, 33, 34, 36, 39]
COLUMNS = 'id\traw_category\tcategory\tcount\tnyu40id\teigen13id\tnyuClass\tnyu40class'


def spelt(name):
    return name.replace('refrigerator', 'refridgerator')


def test_the_20_classes():
    assert LABEL20_OF_NYU40.shape == (41,)
    expected = np.zeros(41, int)
    for position, (nyu40, name) in enumerate(PUBLISHED, 1):
        expected[nyu40] = position
        assert SCANNET20_CLASSES[position - 1] == NYU40_CLASSES[nyu40 - 1] == spelt(name)
    np.testing.assert_array_equal(LABEL20_OF_NYU40, expected)


def test_the_18_categories():
    names = dict(PUBLISHED)
    expected = np.zeros(41, int)
    for position, nyu40 in enumerate(PUBLISHED_INSTANCE_IDS, 1):
        expected[nyu40] = position
        assert SCANNET18_CLASSES[position - 1] == spelt(names[nyu40])
    np.testing.assert_array_equal(CATEGORY_OF_NYU40, expected)


def label_map(tmp_path, *rows, columns=COLUMNS):
    path = tmp_path / 'labels.tsv'
    path.write_text('\n'.join([columns, *rows]) + '\n', encoding='utf-8')
    return path


def row(number, name, nyu40):
    return f'{number}\t{name}\t{name}\t7\t{nyu40}\t4\tx\ty'


def test_the_label_map_by_value(tmp_path):
    path = label_map(
        tmp_path,
        row(1, 'wall', 1),
        row(2, 'chair', 5),
        row(10, '"office" chair', 5),
        row(203, 'has no class', ''),
        row(1357, 'table à rallonge', 7),
    )
    table = read_label_map(path)
    assert table.shape == (65536,)
    assert {int(i): int(table[i]) for i in np.flatnonzero(table != 255)} == {
        0: 0, 1: 1, 2: 5, 10: 5, 203: 0, 1357: 7,
    }  # fmt: skip
    ids = np.array([[0, 1, 2], [10, 203, 1357]], np.uint16)
    np.testing.assert_array_equal(nyu40_of_ids(ids, table, 'a'), [[0, 1, 5], [5, 0, 7]])
    ids[0, 0] = 77
    with pytest.raises(FrameError, match=r'a: ids 77 are not in the label map'):
        nyu40_of_ids(ids, table, 'a')


DAMAGED_MAPS = {
    'columns id, nyu40id': ([row(1, 'wall', 1)], 'name\tvalue\tother'),
    'line 3: id and nyu40id must be numbers': ([row(1, 'wall', 1), row('x', 'chair', 5)], COLUMNS),
    'line 2: maps id 70000': ([row(70000, 'wall', 1)], COLUMNS),
    'line 2: maps id 1 to 41': ([row(1, 'wall', 41)], COLUMNS),
    'line 3: maps id 1 to 2, before to 1': ([row(1, 'wall', 1), row(1, 'floor', 2)], COLUMNS),
    'line 2: id and nyu40id': (['1'], 'nyu40id\traw_category\tid'),
    'has no category': ([], COLUMNS),
}


@pytest.mark.parametrize('message', DAMAGED_MAPS)
def test_damaged_label_maps(tmp_path, message):
    rows, columns = DAMAGED_MAPS[message]
    with pytest.raises(SourceError, match=r'labels\.tsv.*' + message):
        read_label_map(label_map(tmp_path, *rows, columns=columns))


def test_a_label_map_from_windows(tmp_path):
    text = 'id\traw_category\tnyu40id\r\n1\twäll\t1\r\n7\t"bed\t4\r\n'
    (tmp_path / 'a.tsv').write_bytes(text.encode('utf-8-sig'))
    table = read_label_map(tmp_path / 'a.tsv')
    assert (table[0], table[1], table[7], table[2]) == (0, 1, 4, 255)


def test_what_is_no_label_map(tmp_path):
    with pytest.raises(SourceError, match='cannot be read as the label map'):
        read_label_map(tmp_path / 'absent.tsv')
    (tmp_path / 'b.tsv').write_bytes(b'id\tnyu40id\n\xff\xfe\n')
    with pytest.raises(SourceError, match=r'b\.tsv: expected text in UTF-8.*line 2'):
        read_label_map(tmp_path / 'b.tsv')
    (tmp_path / 'c.tsv').write_bytes(b'')
    with pytest.raises(SourceError, match='found nothing'):
        read_label_map(tmp_path / 'c.tsv')


def png(array):
    done, data = cv2.imencode('.png', array)
    assert done
    return data.tobytes()


def test_labels_beyond_nyu40_are_refused():
    with pytest.raises(FrameError, match='a: has the label 41'):
        check_nyu40(np.full((2, 2), 41, np.uint8), 'a')


def test_categories_by_label():
    """Most labelled pixels decide; unlabelled pixels, wall, floor and no object do not count."""
    instance = np.array([[0, 0, 1, 1, 1], [2, 2, 3, 3, 3], [9, 9, 9, 9, 255]], np.uint8)
    labels = np.array([[5, 5, 3, 3, 4], [0, 39, 1, 1, 5], [0, 0, 0, 0, 36]], np.uint8)
    assert categories_by_label(instance, labels, 'a') == {1: 1, 2: 18, 255: 17}
    with pytest.raises(FrameError, match='a: 5x3 pixels, its labels have 4x3'):
        categories_by_label(instance, labels[:, :4], 'a')


def test_joint_ids():
    joint = np.array([[1, 0, 1001], [3001, 3002, 39007], [40001, 24001, 3001]], np.uint16)
    instance, categories = split_joint_ids(joint, 'a')
    assert instance.dtype == np.uint16
    np.testing.assert_array_equal(
        instance, [[0, 0, 1001], [3001, 3002, 39007], [40001, 24001, 3001]]
    )
    assert categories == {3001: 1, 3002: 1, 39007: 18, 24001: 13}
    with pytest.raises(FrameError, match='a: has the label 41'):
        split_joint_ids(np.full((2, 2), 41_000, np.uint16), 'a')
