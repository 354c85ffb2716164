"""Archives: members by value, missing, damaged and encrypted ones."""

import os
import struct
import unicodedata
import zipfile

import pytest

from mmmask3d.conversion.formats.archive import Archive
from mmmask3d.conversion.paths import SourceError
from mmmask3d.datasets.depth_io import FrameError

MEMBERS = {f'label-filt/{i}.png': bytes([i]) * (50 + i) for i in range(4)}


def write(path, members, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, 'w', method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


@pytest.fixture
def path(tmp_path):
    return write(tmp_path / 'a.zip', MEMBERS)


def test_members_in_any_unicode_form(tmp_path):
    nfd, nfc = (unicodedata.normalize(form, 'Küche.png') for form in ('NFD', 'NFC'))
    with Archive(write(tmp_path / 'a.zip', {nfd: b'a'})) as archive:
        for name in (nfd, nfc):
            assert name in archive
            assert archive.read(name) == b'a'
    with pytest.raises(SourceError, match='twice'):
        Archive(write(tmp_path / 'b.zip', {nfd: b'a', nfc: b'b'}))


@pytest.mark.parametrize('method', [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_members_by_value(tmp_path, method):
    with Archive(write(tmp_path / 'a.zip', MEMBERS, method)) as archive:
        for name, content in MEMBERS.items():
            assert name in archive
            assert archive.read(name) == content
        assert 'label-filt/9.png' not in archive
        with pytest.raises(FrameError, match=r'a\.zip, label-filt/9\.png: not in the archive'):
            archive.read('label-filt/9.png')


def test_damaged_and_encrypted_members(path):
    whole = path.read_bytes()
    for start, place, value in ((b'PK\1\2', 8, 1), (b'PK\3\4', 50, 0xFFFF)):
        content = bytearray(whole)
        struct.pack_into('<H', content, content.index(start) + place, value)
        path.write_bytes(content)
        with (
            Archive(path) as archive,
            pytest.raises(FrameError, match=r'a\.zip, label-filt/0\.png: damaged'),
        ):
            archive.read('label-filt/0.png')


def test_truncated(path):
    for length in (path.stat().st_size - 1, 100, 0):
        os.truncate(path, length)
        with pytest.raises(SourceError, match=r'a\.zip: not a readable ZIP archive'):
            Archive(path)
