"""The checker as a command: exit codes, reports on disk, usage errors."""

import json

import pytest

QUICK = ('--quiet', '--registration-frames', '0')


@pytest.fixture
def main(load_tool):
    module = load_tool('analysis_tools/check_rgbd.py')
    return lambda *arguments: module.main([str(a) for a in arguments])


@pytest.fixture
def folder(make_rgbd_folder, tmp_path):
    return make_rgbd_folder(tmp_path / 'set', 4)


def test_a_misregistered_folder_end_to_end(main, make_scene_folder, tmp_path, capsys):
    folder = make_scene_folder(tmp_path / 'set', n=20, size=(72, 96), shift=(8, 0))
    report, page = tmp_path / 'out/check.json', tmp_path / 'out/check.html'
    assert main(folder, '--img-suffix', '.png', '--json', report, '--html', page) == 1
    assert 'ERROR misregistered: depth does not lie on colour' in capsys.readouterr().out
    data = json.loads(report.read_text())
    assert data['counts']['error'] == 1
    assert data['sets'][0]['registration']['shift'] == pytest.approx([-8, 0], abs=1)
    assert page.read_bytes().startswith(b'<!DOCTYPE html>')
    assert sorted(p.name for p in (tmp_path / 'out').iterdir()) == ['check.html', 'check.json']


def test_generated_rooms_are_clean(main, tiny_rooms, capsys):
    assert main(tiny_rooms, '--quiet') == 0
    text = capsys.readouterr().out
    assert '6 frames of 128x96' in text
    assert 'splits: all 6, train 4, val 2' in text
    assert '0 errors, 0 warnings' in text


def test_a_config_that_validates_on_what_it_trains_on(main, tiny_config, capsys):
    assert main(tiny_config, *QUICK) == 1
    text = capsys.readouterr().out
    assert text.count('8 frames of 48x32') == 1  # read once
    assert "frames that are in split 'train' and in 'val': 8" in text
    assert "frames that are in split 'train' and in 'test': 8" in text


def test_leakage_between_the_loaders_of_a_config(main, make_rgbd_folder, tmp_path, capsys):
    folder = make_rgbd_folder(tmp_path / 'set', 6)
    (folder / 'train.txt').write_text('frame_000\nframe_001\nframe_002\n')
    (folder / 'val.txt').write_text('frame_002\nframe_003\n')
    config = tmp_path / 'config.py'
    config.write_text(
        f"""
source = dict(type='RGBDDataset', data_root={str(folder)!r}, img_suffix='.png')
train_dataloader = dict(dataset=dict(**source, ann_file='train.txt'))
val_dataloader = dict(dataset=dict(**source, ann_file='val.txt'))
"""
    )
    assert main(config, *QUICK) == 1
    text = capsys.readouterr().out
    assert "frames that are in split 'train' and in 'val': 1" in text
    assert f'{folder}/rgb/frame_002.png' in text
    assert main(config, *QUICK, '--split', 'train') == 0


def test_warnings_count_if_wanted(main, folder):
    (folder / 'rgb/frame_001.png').write_bytes((folder / 'rgb/frame_000.png').read_bytes())
    arguments = (folder, '--img-suffix', '.png', *QUICK)
    assert main(*arguments) == 0
    assert main(*arguments, '--strict') == 1


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--img-suffix', '.bmp'], 'Check img_suffix'),
        (['--img-suffix', '.png', '--json', '{folder}/rgb'], 'the report cannot be written'),
    ],
)
def test_usage_errors(main, folder, arguments, message, capsys):
    given = [a.format(folder=folder) for a in arguments]
    with pytest.raises(SystemExit) as stopped:
        main(folder, *given, *QUICK)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
    assert not list(folder.rglob('*.tmp'))
