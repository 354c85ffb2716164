"""The class tables of NYU Depth v2 against what was published."""

import numpy as np
import pytest

from mmmask3d.conversion.sources.nyuv2_classes import (
    CATEGORY_SETS,
    NUM_RAW_CLASSES,
    NYU40_TO_NYU13,
    RAW_TO_NYU40,
    category_of_raw,
    instance_categories,
)
from mmmask3d.datasets.classes import NYU13_CLASSES, NYU40_CLASSES

# Raw name and NYU-40 id of Matterport3D's metadata/category_mapping.tsv (columns nyuClass and
# nyu40id), a table made by others for another data set.
MATTERPORT = {
    'wall': 1, 'door': 8, 'ceiling': 22, 'floor': 2, 'picture': 11, 'window': 9, 'chair': 5,
    'pillow': 18, 'lamp': 35, 'plant': 40, 'cabinet': 3, 'curtain': 16, 'table': 7, 'shelves': 15,
    'mirror': 19, 'night stand': 32, 'fireplace': 38, 'stairs': 38, 'column': 38, 'vase': 40,
    'garbage bin': 39, 'headboard': 39, 'piano': 39, 'stove': 38, 'towel': 27, 'sofa': 6,
    'bookshelf': 10, 'blinds': 13, 'desk': 14, 'toilet': 33, 'sink': 34, 'bathtub': 36, 'bed': 4,
    'counter': 12, 'bag': 37, 'box': 29, 'clothes': 21, 'books': 23, 'dresser': 17, 'person': 31,
    'shower curtain': 28, 'television': 25, 'whiteboard': 30, 'refridgerator': 24, 'paper': 26,
    'floor mat': 20, 'chandelier': 38, 'bench': 39, 'ottoman': 39, 'keyboard': 40, 'laptop': 40,
}  # fmt: skip

# Number of raw names that fall to each of the last classes in Gupta's classMapping40.mat.
LAST = {'otherstructure': 68, 'otherfurniture': 82, 'otherprop': 707}

# The 40 classes of each of the 13, by name, in Handa et al.'s class13Mapping.mat; all others are
# objects.
THIRTEEN = {
    'bed': ['bed'],
    'books': ['books'],
    'ceiling': ['ceiling'],
    'chair': ['chair'],
    'floor': ['floor', 'floor mat'],
    'furniture': [
        'cabinet', 'bookshelf', 'counter', 'shelves', 'dresser', 'refridgerator', 'night stand',
        'otherfurniture',
    ],
    'picture': ['picture'],
    'sofa': ['sofa'],
    'table': ['table', 'desk'],
    'tv': ['television'],
    'wall': ['wall', 'door'],
    'window': ['window', 'blinds', 'curtain'],
}  # fmt: skip


def test_every_raw_name_has_one_class():
    assert len(RAW_TO_NYU40) == NUM_RAW_CLASSES == 894
    ids = list(RAW_TO_NYU40.values())
    assert set(ids) == set(range(1, 41))
    counts = {NYU40_CLASSES[i - 1]: ids.count(i) for i in range(1, 41)}
    assert counts == dict.fromkeys(NYU40_CLASSES[:37], 1) | LAST


def test_40_classes_against_a_table_of_others():
    assert {name: RAW_TO_NYU40[name] for name in MATTERPORT} == MATTERPORT


def test_a_single_book_is_otherprop_as_published():
    # Matterport3D and ScanNet put it to books; results on NYUv2 use the publication's map.
    assert NYU40_CLASSES[RAW_TO_NYU40['book'] - 1] == 'otherprop'
    assert NYU40_CLASSES[RAW_TO_NYU40['books'] - 1] == 'books'


def test_13_classes():
    assert NYU40_TO_NYU13.shape == (41,)
    assert NYU40_TO_NYU13.dtype == np.uint8
    assert NYU40_TO_NYU13[0] == 0  # unlabelled stays unlabelled
    wanted = {old: new for new, olds in THIRTEEN.items() for old in olds}
    for i, name in enumerate(NYU40_CLASSES, 1):
        assert NYU13_CLASSES[NYU40_TO_NYU13[i] - 1] == wanted.get(name, 'objects'), name


def test_categories():
    forty = instance_categories('nyu40')
    assert len(forty) == 37
    assert all(NYU40_CLASSES[i - 1] == name for i, name in forty.items())
    assert not {'wall', 'floor', 'ceiling'} & set(forty.values())
    nineteen = instance_categories('gupta19')
    assert list(nineteen) == list(range(1, 20))
    assert list(nineteen.values()) == sorted(nineteen.values())
    assert set(nineteen.values()) <= set(RAW_TO_NYU40)
    assert instance_categories('nyu13') == {
        1: 'bed', 2: 'books', 4: 'chair', 6: 'furniture', 8: 'picture', 9: 'sofa', 10: 'table',
        11: 'tv', 13: 'window',
    }  # fmt: skip


@pytest.mark.parametrize(
    ('raw', 'nyu40', 'gupta19', 'nyu13'),
    [
        ('wall', None, None, None),
        ('ceiling', None, None, None),
        ('floor mat', 'floor mat', None, None),  # floor among the 13
        ('chair', 'chair', 'chair', 'chair'),
        ('monitor', 'otherprop', 'monitor', None),  # objects among the 13
        ('garbage bin', 'otherfurniture', 'garbage bin', 'furniture'),
        ('door', 'door', 'door', None),  # wall among the 13
        ('night stand', 'night stand', 'night stand', 'furniture'),
        ('blinds', 'blinds', None, 'window'),
    ],
)
def test_category_of_a_raw_label(raw, nyu40, gupta19, nyu13):
    expected = dict(nyu40=nyu40, gupta19=gupta19, nyu13=nyu13)
    for which in CATEGORY_SETS:
        found = category_of_raw(raw, which)
        assert instance_categories(which).get(found) == expected[which], which
        assert (found == 0) == (expected[which] is None)
