"""The command line of packing; what it does is tested with mmmask3d.conversion.packing."""

import sys

import pytest

pytest.importorskip('lmdb')


@pytest.fixture
def tool(load_tool):
    return load_tool('dataset_converters/pack_lmdb.py')


def test_there_and_back(tool, tmp_path, make_rgbd_folder, capsys):
    root = make_rgbd_folder(tmp_path / 'frames', 3)
    database, out = tmp_path / 'frames.lmdb', tmp_path / 'out'
    assert tool.main(['pack', str(root), str(database)]) == 0
    assert '6 files' in capsys.readouterr().out
    assert tool.main(['check', str(database)]) == 0
    assert 'verified' in capsys.readouterr().out
    assert tool.main(['unpack', str(database), str(out)]) == 0
    for path in root.rglob('*.png'):
        assert (out / path.relative_to(root)).read_bytes() == path.read_bytes()


def test_errors_are_plain_words(tool, tmp_path, make_rgbd_folder, capsys):
    root = make_rgbd_folder(tmp_path / 'frames', 1)
    (tmp_path / 'text').write_text('no database')
    for arguments, message in (
        (['pack', tmp_path / 'nowhere', tmp_path / 'a.lmdb'], 'there is no such folder'),
        (['pack', root, tmp_path / 'text'], 'exists'),
        (['unpack', tmp_path / 'text', tmp_path / 'out'], 'no LMDB database'),
        (['check', tmp_path / 'text'], 'no LMDB database'),
        (['check', tmp_path / 'nothing'], 'nothing'),
    ):
        assert tool.main([str(a) for a in arguments]) == 1
        error = capsys.readouterr().err
        assert error.startswith('error: ')
        assert message in error
    with pytest.raises(SystemExit):
        tool.main(['pack', str(root), str(tmp_path / 'a.lmdb'), '--workers', '0'])


def test_without_the_package(tool, tmp_path, make_rgbd_folder, capsys, monkeypatch):
    root = make_rgbd_folder(tmp_path / 'frames', 1)
    monkeypatch.setitem(sys.modules, 'lmdb', None)
    assert tool.main(['pack', str(root), str(tmp_path / 'a.lmdb')]) == 1
    assert 'pip install lmdb' in capsys.readouterr().err
    assert not (tmp_path / 'a.lmdb').exists()
