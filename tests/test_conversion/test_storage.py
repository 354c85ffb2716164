"""Files complete or absent, and a folder that only its own conversion writes to."""

import os
import resource
import tempfile
import zlib
from pathlib import Path

import pytest

from mmmask3d.conversion.storage import (
    StorageError,
    open_output,
    unchanged,
)

IDENTITY = {'converter': 'x', 'options': {'size': (4, 3), 'unit': 'mm'}}


def fill(root, names=('a', 'b/c', 'd')):
    """Write one file per name and note it; returns the records."""
    with open_output(root, IDENTITY) as output:
        for name in names:
            file = f'depth/{name}.png'
            noted = output.write(file, name.encode() * 50)
            output.add([{'name': name, 'files': {file: noted}}])
        return dict(output.records)


def reopen(root, identity=IDENTITY):
    with open_output(root, identity) as output:
        return dict(output.records)


def files_of(root):
    return sorted(str(p.relative_to(root)) for p in root.rglob('*') if p.is_file())


def test_a_file_is_noted_by_size_and_checksum(tmp_path):
    with open_output(tmp_path / 'out', IDENTITY) as output:
        assert output.write('rgb/a/1.jpg', b'content') == [7, zlib.crc32(b'content')]
        assert (tmp_path / 'out/rgb/a/1.jpg').read_bytes() == b'content'
        assert unchanged(output.root, {'rgb/a/1.jpg': [7, zlib.crc32(b'content')]})
        before = (tmp_path / 'out/rgb/a/1.jpg').stat().st_mtime_ns
        output.write('rgb/a/1.jpg', b'content')  # is there already
        assert (tmp_path / 'out/rgb/a/1.jpg').stat().st_mtime_ns == before
        output.write('rgb/a/1.jpg', b'other')
        assert (tmp_path / 'out/rgb/a/1.jpg').read_bytes() == b'other'


@pytest.mark.parametrize('change', ['altered', 'truncated', 'longer', 'removed', 'a folder'])
def test_a_changed_file_costs_its_frame(tmp_path, change):
    fill(tmp_path / 'out')
    path = tmp_path / 'out/depth/b/c.png'
    content = path.read_bytes()
    path.unlink()
    if change == 'a folder':
        path.mkdir()
    elif change != 'removed':
        new = {'altered': b'X' + content[1:], 'truncated': content[:-1], 'longer': content + b'X'}
        path.write_bytes(new[change])
    assert list(reopen(tmp_path / 'out')) == ['a', 'd']


def test_a_journal_cut_anywhere_keeps_its_complete_lines(tmp_path):
    noted = fill(tmp_path / 'out')
    journal = tmp_path / 'out/.conversion/journal.jsonl'
    content = journal.read_bytes()
    ends = [i + 1 for i, byte in enumerate(content) if byte == ord('\n')]
    for length in range(len(content) + 1):
        journal.write_bytes(content[:length])
        complete = sum(end <= length for end in ends)
        if not complete:
            with pytest.raises(StorageError, match=r'journal\.jsonl: its first line.*damaged'):
                reopen(tmp_path / 'out')
            continue
        assert reopen(tmp_path / 'out') == dict(list(noted.items())[: complete - 1])
        assert journal.read_bytes() == content[: ends[complete - 1]]  # ready for the next line


def test_other_options_are_named(tmp_path):
    fill(tmp_path / 'out')
    other = {'converter': 'x', 'options': {'size': (8, 6), 'unit': 'mm', 'new': 1}}
    with pytest.raises(StorageError, match=r'size \[4, 3\] \(asked for: \[8, 6\]\)'):
        reopen(tmp_path / 'out', other)
    with pytest.raises(StorageError, match=r'new None \(asked for: 1\)'):
        reopen(tmp_path / 'out', other)
    assert len(reopen(tmp_path / 'out')) == 3


def test_what_is_not_ours_is_left_alone(tmp_path):
    (tmp_path / 'photos').mkdir()
    (tmp_path / 'photos/holiday.jpg').write_bytes(b'x')
    with pytest.raises(StorageError, match='not made by a converter'):
        reopen(tmp_path / 'photos')
    (tmp_path / 'file').write_bytes(b'x')
    with pytest.raises(StorageError, match='not made by a converter'):
        reopen(tmp_path / 'file')
    assert files_of(tmp_path) == ['file', 'photos/holiday.jpg']
    with pytest.raises(StorageError, match='cannot be written'):
        reopen(tmp_path / 'file/below')


def test_an_empty_folder_and_one_left_before_its_first_line_are_taken(tmp_path):
    (tmp_path / 'out').mkdir()
    assert reopen(tmp_path / 'out') == {}
    temporary = tmp_path / 'killed/.conversion/tmp'
    temporary.mkdir(parents=True)
    (temporary / '77-3').write_bytes(b'half a jour')
    assert reopen(tmp_path / 'killed') == {}
    assert list(temporary.iterdir()) == []


def test_index_files_that_are_no_more_are_removed(tmp_path):
    with open_output(tmp_path / 'out', IDENTITY) as output:
        output.write_index({'splits/all.txt': b'a\n', 'splits/val.txt': b'a\n'})
    (tmp_path / 'out/splits/mine.txt').write_bytes(b'a\n')
    with open_output(tmp_path / 'out', IDENTITY) as output:
        noted = output.write_index({'splits/all.txt': b'b\n'})
    assert noted == {'splits/all.txt': [2, zlib.crc32(b'b\n')]}
    assert sorted(p.name for p in (tmp_path / 'out/splits').iterdir()) == ['all.txt', 'mine.txt']


def test_only_one_process_writes(tmp_path):
    with (
        open_output(tmp_path / 'out', {}),
        # A second description of the lock file stands for a second process.
        pytest.raises(StorageError, match='is being written by another process'),
    ):
        reopen(tmp_path / 'out', {})
    assert reopen(tmp_path / 'out', {}) == {}


# ---------------------------------------------------------------- what the kernel refuses


def forked(function):
    """Run a function in a copy of this process and return its text."""
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            result = function()
        except BaseException as error:
            result = f'{type(error).__name__}: {error}'
        os.write(write, result.encode()[:60000])
        os._exit(0)
    os.close(write)
    with open(read, 'rb') as file:
        text = file.read().decode()
    os.waitpid(pid, 0)
    return text


def test_a_file_beyond_the_limit_of_the_process_leaves_nothing(tmp_path):
    def work():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        with open_output(tmp_path / 'out', IDENTITY) as output:
            output.write('rgb/small.jpg', bytes(1000))
            output.write('rgb/large.jpg', bytes(1001))
        return 'no error'

    text = forked(work)
    assert text.startswith('StorageError: ')
    assert 'rgb/large.jpg cannot be written (File too large' in text
    assert 'the same call goes on' in text
    assert files_of(tmp_path / 'out/rgb') == ['small.jpg']
    assert files_of(tmp_path / 'out/.conversion/tmp') == []


def test_a_journal_that_cannot_grow_says_so_and_is_taken_up(tmp_path):
    fill(tmp_path / 'out', ['a'])
    size = (tmp_path / 'out/.conversion/journal.jsonl').stat().st_size

    def work():
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, size + 20))
        with open_output(tmp_path / 'out', IDENTITY) as output:
            output.add([{'name': 'b', 'files': {}}])
        return 'no error'

    assert 'journal.jsonl cannot be written (File too large' in forked(work)
    assert list(reopen(tmp_path / 'out')) == ['a']
    assert (tmp_path / 'out/.conversion/journal.jsonl').stat().st_size == size


def test_a_folder_that_may_not_be_written():
    def work(path):
        if os.getuid() == 0:  # may write everywhere
            os.setuid(65534)
        return str(reopen(path))

    with tempfile.TemporaryDirectory() as name:  # pytest's own are closed to other users
        folder = Path(name)
        fill(folder / 'out', ['a'])
        for path in (folder, folder / 'out', folder / 'out/.conversion'):
            path.chmod(0o555)
        text = forked(lambda: work(folder / 'out'))
        assert text.startswith('StorageError: ')
        assert 'Permission denied' in text
        text = forked(lambda: work(folder / 'new'))
        assert f'StorageError: {folder}/new cannot be written (Permission denied' in text
        for path in (folder, folder / 'out', folder / 'out/.conversion'):
            path.chmod(0o755)
