"""Folder to database and back byte for byte; what is refused; nothing half-written."""

import os
import signal
import subprocess
import sys
import unicodedata
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

lmdb = pytest.importorskip('lmdb')

from mmmask3d.conversion.packing import PackingError, check, pack, unpack  # noqa: E402
from mmmask3d.conversion.storage import StorageError  # noqa: E402
from mmmask3d.datasets.frame_files import same_form  # noqa: E402
from mmmask3d.datasets.packed_lmdb import (  # noqa: E402
    MANIFEST_KEY,
    PackedDatabaseError,
    PackedFileError,
    PackedLmdbBackend,
    with_checksum,
)


def write_files(root, files):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def read_files(root):
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob('*') if p.is_file()}


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def files():
    rng = np.random.default_rng(0)
    return {
        'rgb/scene_01/0.jpg': rng.bytes(30_000),
        'rgb/scene_01/10.jpg': rng.bytes(5),
        'rgb/scene 02/ä.jpg': rng.bytes(4096),
        'rgb/scene_01-b/0.jpg': rng.bytes(100),
        'depth/scene_01/0.png': rng.bytes(70_000),
        'splits/train.txt': b'scene_01/0\n',
        'empty': b'',
    }


@pytest.fixture
def source(tmp_path, files):
    return write_files(tmp_path / 'source', files)


def raw_database(path, items):
    """A database of any keys and values, without the checks of pack."""
    with (
        lmdb.open(str(path), subdir=False, lock=False, map_size=2**24) as environment,
        environment.begin(write=True) as transaction,
    ):
        for key, value in items.items():
            transaction.put(key, value)
    return path


def manifest_value(files, size):
    content = (
        f'{{"format": "mmmask3d packed files", "version": 1, "files": {files}, "bytes": {size}}}'
    )
    return with_checksum(MANIFEST_KEY, content.encode())


# ---------------------------------------------------------------- round trip


def test_round_trip(tmp_path, source, files):
    write_files(source, {'.hidden': b'left out', '.git/x': b'left out'})
    manifest = pack(source, tmp_path / 'a.lmdb')
    size = sum(map(len, files.values()))
    assert (manifest['files'], manifest['bytes']) == (len(files), size)
    assert check(tmp_path / 'a.lmdb') == manifest
    assert unpack(tmp_path / 'a.lmdb', tmp_path / 'out') == manifest
    assert read_files(tmp_path / 'out') == files
    assert names_in(tmp_path) == ['a.lmdb', 'out', 'source']


names = st.text(st.characters(categories=['L', 'N'], include_characters='-_. '), min_size=1).filter(
    lambda name: not name.startswith('.') and len(name.encode()) < 80
)


@settings(deadline=None, max_examples=25)
@given(st.dictionaries(names, st.binary(max_size=9000), min_size=1, max_size=12))
def test_round_trip_of_any_names_and_contents(tmp_path_factory, files):
    root = tmp_path_factory.mktemp('any')
    files = {f'd{len(name) % 3}/{same_form(name)}': content for name, content in files.items()}
    pack(write_files(root / 'in', files), root / 'a.lmdb')
    unpack(root / 'a.lmdb', root / 'out')
    assert read_files(root / 'out') == files


def test_the_format(tmp_path, source, files):
    """By LMDB alone: what another program has to know."""
    pack(source, tmp_path / 'a.lmdb')
    with (
        lmdb.open(str(tmp_path / 'a.lmdb'), subdir=False, readonly=True, lock=False) as database,
        database.begin() as transaction,
    ):
        stored = dict(transaction.cursor())
    manifest = stored.pop(b'/manifest')
    assert b'"version": 1' in manifest
    assert {key.decode(): value[:-4] for key, value in stored.items()} == files
    for key, value in stored.items():
        assert int.from_bytes(value[-4:], 'little') == zlib.crc32(key + value[:-4])


def test_links_are_followed_once(tmp_path, source, capsys):
    write_files(tmp_path / 'elsewhere', {'1.png': b'linked'})
    (source / 'linked').symlink_to(tmp_path / 'elsewhere')
    pack(source, tmp_path / 'a.lmdb')
    assert PackedLmdbBackend(str(tmp_path / 'a.lmdb')).get('linked/1.png') == b'linked'
    (source / 'rgb/loop').symlink_to(source)
    (source / 'again').symlink_to(tmp_path / 'elsewhere')
    capsys.readouterr()
    pack(source, tmp_path / 'b.lmdb')
    assert 'packed once: linked, rgb/loop\n' in capsys.readouterr().err
    keys = list(PackedLmdbBackend(str(tmp_path / 'b.lmdb')).keys())
    assert sorted(set(keys) - set(PackedLmdbBackend(str(tmp_path / 'a.lmdb')).keys())) == [
        'again/1.png'
    ]
    assert 'linked/1.png' not in keys  # the first of two links to one folder
    (source / 'rgb/broken').symlink_to(tmp_path / 'nowhere')
    with pytest.raises(PackingError, match='rgb/broken: neither a file nor a folder'):
        pack(source, tmp_path / 'c.lmdb')


# ---------------------------------------------------------------- what is refused


def test_nothing_is_overwritten(tmp_path, source, files):
    pack(source, tmp_path / 'a.lmdb')
    before = (tmp_path / 'a.lmdb').read_bytes()
    with pytest.raises(PackingError, match=r'a\.lmdb exists'):
        pack(source, tmp_path / 'a.lmdb')
    assert (tmp_path / 'a.lmdb').read_bytes() == before
    with pytest.raises(PackingError, match='source exists and is not an empty folder'):
        unpack(tmp_path / 'a.lmdb', source)
    (tmp_path / 'link').symlink_to(tmp_path / 'target')
    with pytest.raises(PackingError, match='link exists'):
        unpack(tmp_path / 'a.lmdb', tmp_path / 'link')
    (tmp_path / 'out').mkdir()
    unpack(tmp_path / 'a.lmdb', tmp_path / 'out')
    assert read_files(tmp_path / 'out') == files


def test_nothing_to_pack(tmp_path):
    (tmp_path / 'source').mkdir()
    with pytest.raises(PackingError, match='no file to pack'):
        pack(tmp_path / 'source', tmp_path / 'a.lmdb')
    with pytest.raises(PackingError, match='nowhere: there is no such folder'):
        pack(tmp_path / 'nowhere', tmp_path / 'a.lmdb')
    assert names_in(tmp_path) == ['source']


@pytest.mark.parametrize('name', ['a\\b', 'a\nb', os.fsdecode(b'a\xffb')])
def test_names_that_cannot_be_keys(tmp_path, name):
    write_files(tmp_path / 'source', {name: b'x'})
    with pytest.raises(PackingError, match='cannot name a packed file'):
        pack(tmp_path / 'source', tmp_path / 'a.lmdb')


def test_a_path_that_is_too_long(tmp_path):
    write_files(tmp_path / 'source', {'/'.join(['n' * 100] * 6): b'x'})
    with pytest.raises(PackingError, match=r'has 605 bytes; LMDB keys have 511'):
        pack(tmp_path / 'source', tmp_path / 'a.lmdb')


@pytest.mark.parametrize(
    'key', ['../climbs', 'a/../../climbs', '/absolute', 'a//b', './a', 'a/.', 'a\\..\\b', 'a\x00b']
)
def test_keys_that_leave_the_folder(tmp_path, key):
    items = {key.encode(): with_checksum(key.encode(), b'x'), MANIFEST_KEY: manifest_value(1, 1)}
    database = raw_database(tmp_path / 'a.lmdb', items)
    for action in (lambda: unpack(database, tmp_path / 'inside/out'), lambda: check(database)):
        with pytest.raises(PackingError, match='cannot name a packed file'):
            action()
    assert names_in(tmp_path) == ['a.lmdb']


def test_a_missing_file_is_noticed(tmp_path):
    items = {b'a': with_checksum(b'a', b'x'), MANIFEST_KEY: manifest_value(2, 2)}
    database = raw_database(tmp_path / 'a.lmdb', items)
    for action in (lambda: unpack(database, tmp_path / 'out'), lambda: check(database)):
        with pytest.raises(PackedDatabaseError, match=r'holds 1 files.* expected 2'):
            action()
    assert names_in(tmp_path) == ['a.lmdb']


def test_a_damaged_file_leaves_nothing_behind(tmp_path, source, files):
    pack(source, tmp_path / 'a.lmdb')
    # Everywhere: a page that LMDB no longer uses may hold the bytes as well, before the one in use.
    part = files['depth/scene_01/0.png'][5000:5100]
    content = (tmp_path / 'a.lmdb').read_bytes()
    assert part in content
    bad = tmp_path / 'bad.lmdb'
    bad.write_bytes(content.replace(part, bytes([part[0] ^ 4]) + part[1:]))
    for action in (lambda: unpack(bad, tmp_path / 'out'), lambda: check(bad)):
        with pytest.raises(
            PackedFileError, match=r"'depth/scene_01/0\.png' in .*bad\.lmdb: the checksum"
        ):
            action()
    assert names_in(tmp_path) == ['a.lmdb', 'bad.lmdb', 'source']


# ---------------------------------------------------------------- disk full, kill


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MiB."""
    folder = tmp_path / 'disk'
    folder.mkdir()
    command = ['mount', '-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', folder]
    done = subprocess.run(command, capture_output=True)
    if done.returncode:
        pytest.skip(f'mounting a small disk needs privileges: {done.stderr.decode().strip()}')
    yield folder
    subprocess.run(['umount', folder], check=True)


def test_disk_full(tmp_path, small_disk):
    rng = np.random.default_rng(0)
    source = write_files(tmp_path / 'source', {f'{i}.jpg': rng.bytes(60_000) for i in range(30)})
    with pytest.raises(StorageError, match=r'a\.lmdb\.partial: cannot be written'):
        pack(source, small_disk / 'a.lmdb')
    assert names_in(small_disk) == []
    pack(source, tmp_path / 'a.lmdb')
    with pytest.raises(StorageError, match=r'disk/out: cannot be written'):
        unpack(tmp_path / 'a.lmdb', small_disk / 'out')
    assert names_in(small_disk) == []


KILLED = """
import os, signal, sys
from pathlib import Path
from mmmask3d.conversion import packing

def killed_at_third_call(original):
    calls = []
    def wrapped(*args, **kwargs):
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)
    return wrapped

packing._put = killed_at_third_call(packing._put)
packing._BATCH = 1
packing.pack(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def test_killed_in_the_middle(tmp_path, source, files):
    """A killed call leaves a hidden file, which the next call replaces."""
    database = tmp_path / 'a.lmdb'
    killed = subprocess.run([sys.executable, '-c', KILLED, source, database], capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert names_in(tmp_path) == ['.a.lmdb.partial', 'source']
    pack(source, database)
    unpack(database, tmp_path / 'out')
    assert read_files(tmp_path / 'out') == files
    assert names_in(tmp_path) == ['a.lmdb', 'out', 'source']


def test_two_names_of_one_composed_form(tmp_path):
    nfd, nfc = (unicodedata.normalize(form, 'ä') for form in ('NFD', 'NFC'))
    write_files(tmp_path / 'source', {nfd: b'a', nfc: b'b'})
    with pytest.raises(PackingError, match='is there twice'):
        pack(tmp_path / 'source', tmp_path / 'a.lmdb')


def test_what_does_not_read_back_takes_no_name(tmp_path, source, monkeypatch):
    def get(self, path):
        raise PackedFileError(path)

    monkeypatch.setattr(PackedLmdbBackend, 'get', get)
    with pytest.raises(PackedFileError):
        pack(source, tmp_path / 'a.lmdb')
    assert names_in(tmp_path) == ['source']
