"""The shared command line: options, exit codes, what is printed."""

import json

import cv2
import pytest

from mmmask3d.conversion import command_line
from mmmask3d.conversion.command_line import build_parser, run
from mmmask3d.conversion.workers import WorkerError


@pytest.fixture
def source(toy, tmp_path):
    toy.make_source(tmp_path / 'source')
    return tmp_path / 'source'


def test_a_conversion_prints_what_it_made_and_how_to_read_it(toy, source, tmp_path, capsys):
    out = tmp_path / 'out'
    call = [str(source), str(out), '--workers=1']
    assert run(toy.ToyConverter, call) == 0
    text = capsys.readouterr().out
    assert text.startswith(f'{out}: converted 12, 12 frames in all\n')
    assert '  splits/val.txt: 4 frames, 4 instances\n' in text
    assert 'depth: 0.0 % without a reading, 0.001 to 4 m, median ' in text
    config = eval(text[text.index('  dict(') :], {'dict': dict})
    assert config == {
        'type': 'mmmask3d.RGBDDataset',
        'data_root': str(out),
        'ann_file': 'splits/all.txt',
        'img_suffix': '.jpg',
        'depth_suffix': '.png',
        'depth_scale': 1000.0,
        'depth_kind': 'metric',
    }
    assert run(toy.ToyConverter, call) == 0
    assert f'{out}: all 12 frames are there, nothing to do' in capsys.readouterr().out


def test_damage_exits_with_1_and_can_be_left_out(toy, source, tmp_path, capsys):
    (source / 'scene_1/02.txt').write_text('broken')
    call = [str(source), str(tmp_path / 'out'), '--workers=1']
    assert run(toy.ToyConverter, call) == 1
    text = capsys.readouterr().err
    assert text.startswith('error: 1 parts of the data set cannot be read:\n  frame scene_1/02: ')
    assert '--on-error drop' in text
    assert run(toy.ToyConverter, [*call, '--on-error=drop']) == 0
    assert 'left out, see manifest.json: 1' in capsys.readouterr().out
    manifest = json.loads((tmp_path / 'out/manifest.json').read_text())
    assert len(manifest['left_out']) == 1


def test_options_reach_the_conversion(toy, source, tmp_path):
    call = [str(source), str(tmp_path / 'out'), '--workers=1', '--size', '8', '6', '--limit=2']
    assert run(toy.ToyConverter, [*call, '--shift=5']) == 0
    manifest = json.loads((tmp_path / 'out/manifest.json').read_text())
    assert (manifest['size'], manifest['limit'], manifest['frames']) == ([8, 6], 2, 2)
    assert manifest['options'] == {'shift': 5}


def test_a_contact_sheet_is_drawn_where_asked_for(toy, source, tmp_path, capsys):
    sheet = tmp_path / 'pictures/sheet.png'
    call = [str(source), str(tmp_path / 'out'), '--workers=1', f'--contact-sheet={sheet}']
    assert run(toy.ToyConverter, call) == 0
    assert f'Contact sheet: {sheet}' in capsys.readouterr().out
    assert cv2.imread(str(sheet)).std() > 10


@pytest.mark.parametrize(
    ('option', 'message'),
    [
        ('--workers=0', 'argument --workers: expected at least 1, got 0'),
        ('--limit=0', 'argument --limit: expected at least 1'),
        ('--size=0 4', 'argument --size: expected at least 1, got 0'),
        ('--on-error=ignore', 'invalid choice'),
    ],
)
def test_wrong_options_are_refused_before_anything_is_made(
    toy, source, tmp_path, capsys, option, message
):
    name, _, values = option.partition('=')
    with pytest.raises(SystemExit) as stopped:
        run(toy.ToyConverter, [str(source), str(tmp_path / 'out'), name, *values.split()])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
    ('error', 'code', 'text'),
    [
        (WorkerError('A worker died'), 1, 'error: A worker died'),
        (KeyboardInterrupt(), 130, 'the same call goes on'),
    ],
)
def test_what_stops_a_run_is_said_without_a_traceback(
    toy, source, tmp_path, capsys, monkeypatch, error, code, text
):
    def fail(*_):
        raise error

    monkeypatch.setattr(command_line, 'convert', fail)
    assert run(toy.ToyConverter, [str(source), str(tmp_path / 'out')]) == code
    assert text in capsys.readouterr().err


def test_help_shows_defaults_once(toy, capsys):
    with pytest.raises(SystemExit):
        build_parser(toy.ToyConverter).parse_args(['--help'])
    text = ' '.join(capsys.readouterr().out.split())
    assert 'Convert the toy data set.' in text
    assert 'the files are the same for any number (default: 2)' in text
    assert 'default: None' not in text
