"""Names from elsewhere stay inside their folder."""

import os
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mmmask3d.conversion.paths import SourceError, path_inside, require, safe_name

# Any text, and text of what is dangerous in names.
NAMES = st.text(max_size=40) | st.text('./\\ \0\n\t#,ab~:\u2028\x85\ud800\udcff', max_size=40)


def outcome(function, *arguments):
    """Result, or None and the message of a refusal; no other error is one."""
    try:
        return function(*arguments), ''
    except SourceError as error:
        return None, str(error)


@settings(deadline=None, max_examples=400)
@given(NAMES)
@example('../../etc/passwd')
@example('/etc/passwd')
@example('a/../../b')
@example('a//b')
@example('a/.hidden')
@example('a\0b')
@example('a\\..\\b')
@example('living room/frame #1, left')
@example('a\u2028b\x85c\xa0d')
@example('\udc80')
def test_a_safe_name_stays_inside_and_survives_an_index(name):
    safe, message = outcome(safe_name, name)
    if safe is None:
        assert 'cannot name a frame' in message
        return
    root = Path('/out')
    path = Path(os.path.normpath(root / f'{safe}.png'))
    assert path == root / f'{safe}.png'
    assert path.is_relative_to(root)
    assert path != root
    assert safe_name(safe) == safe
    assert f'# comment\n{safe}\n'.splitlines()[1].split() == [safe]
    assert not safe.startswith('#')
    safe.encode()  # can be written to an index file


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        ('scene0000_00/000025', 'scene0000_00/000025'),
        ('living room/1, left #2', 'living_room/1_left_2'),
        ('a\u2028b', 'a_b'),
        ('Küche/3.12', 'Küche/3.12'),
    ],
)
def test_blanks_commas_and_hashes_become_underscores(name, expected):
    assert safe_name(name) == expected


@settings(deadline=None, max_examples=400)
@given(NAMES)
@example('..')
@example('a/..')
@example('.')
@example('')
@example('/a')
@example('a/./b')
@example('a/../b')
def test_a_listed_path_lies_inside_and_can_be_asked_for(name):
    root = Path('/nowhere/source')
    path, message = outcome(path_inside, root, name, 'list.txt')
    if path is None:
        assert message.startswith('list.txt: names the file ')
        return
    assert Path(os.path.normpath(path)).is_relative_to(root)
    assert path != root
    assert not path.exists()  # no error either: no name of a kind that the system refuses


def test_links_inside_a_source_are_followed(tmp_path):
    (tmp_path / 'disk2').mkdir()
    (tmp_path / 'disk2/a.png').write_bytes(b'x')
    (tmp_path / 'source').mkdir()
    (tmp_path / 'source/rgb').symlink_to(tmp_path / 'disk2')
    assert path_inside(tmp_path / 'source', 'rgb/a.png', 'list').read_bytes() == b'x'


def test_what_is_missing_is_said_with_what_is_there(tmp_path):
    (tmp_path / 'there').touch()
    assert require(tmp_path / 'there', 'a file', 'Get it.') == tmp_path / 'there'
    with pytest.raises(SourceError, match=r'wanted/x\.mat does not exist, expected the labels'):
        require(tmp_path / 'wanted/x.mat', 'the labels', 'Get them.')
    with pytest.raises(SourceError, match=r'holds: there\. Get them\.'):
        require(tmp_path / 'wanted/x.mat', 'the labels', 'Get them.')
    for i in range(12):
        (tmp_path / f'many_{i:02d}').touch()
    with pytest.raises(SourceError, match=r'many_07, \.\.\. \(13 in all\)'):
        require(tmp_path / 'x', 'x', '')
