"""Archives: members by value, and what a hostile archive may try."""

import os
import struct
import tracemalloc
import unicodedata
import zipfile

import numpy as np
import pytest

from mmmask3d.conversion.formats.archive import Archive
from mmmask3d.conversion.paths import SourceError
from mmmask3d.datasets.depth_io import FrameError

MEMBERS = {f'label-filt/{i}.png': bytes([i]) * (50 + i) for i in range(4)}
MEMBERS['label-filt/noise.png'] = np.random.default_rng(0).bytes(200)
LARGEST = 10_000


def write(path, members, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, 'w', method) as archive:
        for name, content in members if isinstance(members, list) else members.items():
            archive.writestr(name, content)
    return path


@pytest.fixture
def path(tmp_path):
    return write(tmp_path / 'a.zip', MEMBERS)


def test_members_in_any_unicode_form(tmp_path):
    nfd, nfc = (unicodedata.normalize(form, 'Küche.png') for form in ('NFD', 'NFC'))
    with Archive(write(tmp_path / 'a.zip', {nfd: b'a'}), LARGEST) as archive:
        for name in (nfd, nfc):
            assert name in archive
            assert archive.read(name) == b'a'
    with pytest.raises(SourceError, match='twice'):
        Archive(write(tmp_path / 'b.zip', {nfd: b'a', nfc: b'b'}), LARGEST)


@pytest.mark.parametrize('method', [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_members_by_value(tmp_path, method):
    with Archive(write(tmp_path / 'a.zip', MEMBERS, method), LARGEST) as archive:
        for name, content in MEMBERS.items():
            assert name in archive
            assert archive.read(name) == content
        assert 'label-filt/9.png' not in archive
        with pytest.raises(FrameError, match=r'a\.zip, label-filt/9\.png: not in the archive'):
            archive.read('label-filt/9.png')


def test_bombs(tmp_path):
    """One that says so, and one that declares little."""
    path = write(tmp_path / 'a.zip', {'0.png': bytes(50 * 2**20)})
    content = bytearray(path.read_bytes())
    with Archive(path, LARGEST) as archive, pytest.raises(FrameError, match='declares 52428800'):
        archive.read('0.png')
    for signature, place in ((b'PK\3\4', 22), (b'PK\1\2', 24)):
        struct.pack_into('<I', content, content.index(signature) + place, 100)
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with Archive(path, LARGEST) as archive, pytest.raises(FrameError, match='damaged'):
            archive.read('0.png')
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_declared_sizes_that_are_too_large(path):
    content = bytearray(path.read_bytes())
    struct.pack_into('<I', content, content.index(b'PK\1\2') + 24, 5000)
    path.write_bytes(content)
    with (
        Archive(path, LARGEST) as archive,
        pytest.raises(FrameError, match=r'0\.png at byte 0: .*damaged'),
    ):
        archive.read('label-filt/0.png')


def test_encrypted_and_unusual_members(path):
    whole = path.read_bytes()
    for place, value in ((8, 1), (10, 12)):  # flags: encrypted; method: bzip2
        content = bytearray(whole)
        struct.pack_into('<H', content, content.index(b'PK\1\2') + place, value)
        path.write_bytes(content)
        with Archive(path, LARGEST) as archive, pytest.raises(FrameError, match=r'0\.png at byte'):
            archive.read('label-filt/0.png')


def test_truncated_at_every_byte(path):
    for length in reversed(range(path.stat().st_size)):
        os.truncate(path, length)
        with pytest.raises(SourceError, match=r'a\.zip: not a readable ZIP archive'):
            Archive(path, LARGEST)


def test_any_damage_is_noticed_or_harmless(path):
    """1,000 damaged archives: the same content, or an error that names the file."""
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    noticed = 0
    for _ in range(1000):
        data = bytearray(content)
        for _ in range(rng.integers(1, 4)):
            place = int(rng.integers(len(data)))
            if rng.random() < 0.7:
                data[place] ^= 1 << int(rng.integers(8))
            else:
                data[place : place + 4] = b'\xff\xff\xff\xff'
        path.write_bytes(data)
        try:
            with Archive(path, LARGEST) as archive:
                for name in MEMBERS.keys() & archive._members:
                    assert archive.read(name) == MEMBERS[name]
        except (SourceError, FrameError) as error:
            noticed += 1
            assert str(path) in str(error)  # noqa: PT017
    assert noticed > 400
