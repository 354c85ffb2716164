"""A file is complete or absent, whatever happens while it is written."""

import os

import pytest

from mmmask3d.atomic_file import replacing, write_file


def test_a_new_file_has_the_mode_of_an_ordinary_one(tmp_path):
    path = write_file(tmp_path / 'a/b.bin', b'content')
    (tmp_path / 'ordinary').write_bytes(b'')
    assert path.read_bytes() == b'content'
    assert path.stat().st_mode == (tmp_path / 'ordinary').stat().st_mode
    assert [p.name for p in path.parent.iterdir()] == ['b.bin']


@pytest.mark.parametrize('step', ['fsync', 'replace'])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, step):
    path = write_file(tmp_path / 'x', b'old')

    def fail(*args):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match='No space left'):
        write_file(path, b'new')
    assert path.read_bytes() == b'old'
    assert list(tmp_path.iterdir()) == [path]


def test_an_interruption_leaves_the_old_file_and_nothing_else(tmp_path):
    path = write_file(tmp_path / 'x', b'old')

    def interrupted():
        with replacing(path) as temporary:
            temporary.write_bytes(b'half of the n')
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_bytes() == b'old'
    assert list(tmp_path.iterdir()) == [path]
