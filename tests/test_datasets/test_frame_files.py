"""Which files a folder holds, with links, loops and hidden ones; which names are the same."""

import os
import unicodedata

import pytest

from mmmask3d.datasets.frame_files import (
    by_stem,
    existing,
    files_below,
    files_in,
    folders_in,
    match_names,
    same_form,
    walk,
    without_suffix,
)

NFC = 'Küche'
NFD = unicodedata.normalize('NFD', NFC)


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_files_in_a_fixed_order_without_hidden_ones(tmp_path):
    touch(tmp_path, 'b/2', 'b/1', 'a/c/1', 'z', '.git/1', 'a/._1', '.x', 'b-c/1')
    assert list(files_below(tmp_path)) == ['z', 'a/c/1', 'b/1', 'b/2', 'b-c/1']
    assert files_in(tmp_path) == ['z']
    assert folders_in(tmp_path) == ['a', 'b', 'b-c']


def test_relative_roots(tmp_path, monkeypatch):
    touch(tmp_path, 'rgb/1')
    monkeypatch.chdir(tmp_path)
    assert list(files_below('')) == list(files_below('.')) == ['rgb/1']
    assert list(files_below('rgb/')) == ['1']


def test_a_link_back_is_followed_once(tmp_path):
    """``ln -s STORE/train data/train`` twice puts the second link into the store."""
    touch(tmp_path, 'store/train/1', 'store/train/2', 'store/val/3')
    (tmp_path / 'data').mkdir()
    (tmp_path / 'data/train').symlink_to(tmp_path / 'store/train')
    (tmp_path / 'store/train/train').symlink_to(tmp_path / 'store/train')
    (tmp_path / 'store/train/up').symlink_to(tmp_path / 'store')
    (tmp_path / 'store/train/root').symlink_to(tmp_path / 'data')
    (tmp_path / 'store/train/above').symlink_to(tmp_path)
    again = []
    assert list(files_below(tmp_path / 'data', again=again)) == ['train/1', 'train/2']
    assert again == ['train/above', 'train/root', 'train/train', 'train/up']


def test_a_real_folder_keeps_its_name_before_a_link_to_it(tmp_path):
    touch(tmp_path, 'run1/1', 'run2/deep/2')
    (tmp_path / 'latest').symlink_to('run2')
    (tmp_path / 'a').symlink_to('run2/deep')
    again = []
    assert list(files_below(tmp_path, again=again)) == ['run1/1', 'run2/deep/2']
    assert again == ['a', 'latest']


def test_the_first_of_two_links_counts(tmp_path):
    touch(tmp_path, 'store/sub/1')
    (tmp_path / 'data').mkdir()
    for name in ('b', 'a'):
        (tmp_path / 'data' / name).symlink_to(tmp_path / 'store')
    again = []
    assert list(files_below(tmp_path / 'data', again=again)) == ['a/sub/1']
    assert again == ['b']


def test_links_to_files_and_to_nothing_are_files(tmp_path):
    touch(tmp_path, 'store/1')
    (tmp_path / 'data').mkdir()
    (tmp_path / 'data/1').symlink_to(tmp_path / 'store/1')
    (tmp_path / 'data/2').symlink_to(tmp_path / 'store/1')
    (tmp_path / 'data/3').symlink_to(tmp_path / 'nowhere')
    (tmp_path / 'data/4').symlink_to(tmp_path / 'data/4')
    assert files_in(tmp_path / 'data') == ['1', '2', '3', '4']


def test_levels_and_a_folder_to_pass_over(tmp_path):
    touch(tmp_path, 'a/b/c/1', 'out/1')
    found = [folder for folder, _ in walk(tmp_path, levels=2, hidden=tmp_path / 'out')]
    assert found == ['', 'a', 'a/b']


def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match='nowhere'):
        files_in(tmp_path / 'nowhere')
    touch(tmp_path, 'a/1')
    (tmp_path / 'a').chmod(0)
    try:
        if os.access(tmp_path / 'a', os.R_OK):
            return  # root may read everything
        with pytest.raises(PermissionError, match='a'):
            list(files_below(tmp_path))
    finally:
        (tmp_path / 'a').chmod(0o755)


@pytest.mark.parametrize(
    ('name', 'suffix', 'stem'),
    [
        ('a/1.jpg', '.jpg', 'a/1'),
        ('a/1.JPG', '.jpg', 'a/1'),
        ('a/1.jpg', '.JPG', 'a/1'),
        ('a/1.jpeg', '.jpg', None),
        ('a/1_Color.PNG', '_color.png', 'a/1'),
        ('a/_color.png', '_color.png', None),
        ('.png', '.png', None),
        ('x.tar', '', 'x.tar'),
    ],
)
def test_suffixes_in_any_case(name, suffix, stem):
    assert without_suffix(name, suffix) == stem


def test_files_by_stem(tmp_path):
    names = [f'{NFD}/1.JPG', 'b.jpg', 'c.png']
    assert by_stem(names, '.jpg', 'rgb') == {f'{NFC}/1': names[0], 'b': 'b.jpg'}
    with pytest.raises(KeyError, match=r"rgb: two files .*'b': 'b\.jpg' and 'b\.JPG'"):
        by_stem(['b.jpg', 'b.JPG'], '.jpg', 'rgb', KeyError)
    with pytest.raises(ValueError, match=r'K\\xfcche.* and .*Ku\\u0308che'):
        by_stem([f'{NFC}.jpg', f'{NFD}.jpg'], '.jpg', 'rgb')


def test_names_that_mean_a_file():
    files = [f'{NFD}/1.JPG', 'a/1.jpg', 'a/2.jpg', 'a/2.JPG', 'B.jpg']
    wanted = {f'{NFC}/1.jpg', 'a/1.JPG', 'a/3.jpg', 'b.jpg'}
    assert match_names(wanted, files, 'rgb') == {
        f'{NFC}/1.jpg': f'{NFD}/1.JPG',
        'a/1.JPG': 'a/1.jpg',
    }
    with pytest.raises(ValueError, match=r"'a/2\.jpg' fits two files: 'a/2\.jpg' and 'a/2\.JPG'"):
        match_names({'a/2.Jpg'}, files, 'rgb')


def test_a_path_as_it_is_spelled(tmp_path):
    touch(tmp_path, f'{NFD}/{NFD}.png')
    path = f'{tmp_path}/{NFC}/{NFC}.png'
    assert existing(path) == f'{tmp_path}/{NFD}/{NFD}.png'
    for other in (f'{tmp_path}/{NFD}/{NFD}.png', f'{tmp_path}/{NFC}/ö.png', 'ö/ä', ''):
        assert existing(other).endswith(other.rpartition('/')[2])
    touch(tmp_path, f'{NFC}/depth/1')
    assert existing(path) == f'{tmp_path}/{NFD}/{NFD}.png'
    touch(tmp_path, f'{NFC}/{NFC}.png')
    assert existing(path) == path


def test_a_path_that_may_be_spelled_in_two_ways_stays(tmp_path):
    touch(tmp_path, '\u1ec7', 'e\u0323\u0302')
    path = f'{tmp_path}/\u1eb9\u0302'  # a third form of the same name
    assert existing(path) == path
    (tmp_path / '\u1ec7').unlink()
    assert existing(path) == f'{tmp_path}/e\u0323\u0302'


def test_the_composed_form():
    assert same_form(NFD) == NFC
    assert same_form('a\udcff') == 'a\udcff'
