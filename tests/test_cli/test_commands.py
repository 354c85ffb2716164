"""The commands answer at once, and are the tools under one name."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmmask3d.cli import check, convert_weights
from mmmask3d.cli.main import COMMANDS, list_commands, main
from mmmask3d.cli.options import read_overrides
from mmmask3d.inspection.registration import TOLERANCE
from mmmask3d.weights.formats import SOURCES

ROOT = Path(__file__).parents[2]
TOOLS = sorted(
    str(path.relative_to(ROOT))
    for path in ROOT.glob('tools/**/*.py')
    if path.name != 'mim_build.py'  # a part of the build, without a command line
)


def cpu_seconds(*arguments):
    """Run a Python command to its end: exit code, what it wrote, and CPU time."""
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with process.stdout:
        said = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, said, usage.ru_utime + usage.ru_stime


@pytest.mark.parametrize('tool', TOOLS)
def test_help_is_answered_at_once(tool):
    code, said, seconds = cpu_seconds(tool, '--help')
    assert code == 0, said
    assert said.startswith('usage: ')
    assert seconds < 1


@pytest.mark.parametrize('command', COMMANDS)
def test_a_wrong_option_is_answered_at_once(command):
    code, said, seconds = cpu_seconds('-m', 'mmmask3d', command, '--no-such-option')
    assert code == 2
    assert f'mmmask3d {command}' in said
    assert 'error: ' in said
    assert seconds < 1


def test_the_commands_are_listed(capsys):
    with pytest.raises(SystemExit) as stop:
        main(['--help'])
    assert stop.value.code == 0
    said = capsys.readouterr().out
    assert list_commands() in said
    assert '  swap             Replace the backbone of an mmseg, mmdet or mmpretrain config' in said
    assert len(list_commands().splitlines()) == len(COMMANDS)


def test_an_unknown_command_is_an_error(capsys):
    with pytest.raises(SystemExit) as stop:
        main(['trian'])
    assert stop.value.code == 2
    assert "invalid choice: 'trian'" in capsys.readouterr().err


def test_a_converter_is_run_under_its_own_name(capsys):
    with pytest.raises(SystemExit):
        main(['convert', 'tum', '--help'])
    assert capsys.readouterr().out.startswith('usage: mmmask3d convert tum ')


@pytest.mark.parametrize(
    ('command', 'message'),
    [
        ('browse folder --out-dir out --num 0', 'argument --num: expected at least 1, got 0'),
        ('browse folder --out-dir out --seed -1', 'argument --seed: expected 0 or more, got -1'),
        ('browse folder --out-dir out --rows two', "invalid int value: 'two'"),
        ('check folder --tolerance 1.5', 'expected a share between 0 and 1, got 1.5'),
        ('check folder --registration-frames -1', 'expected 0 or more, got -1'),
        ('convert-weights in.pth out.bin', 'out.bin: the suffix must be .pth or .safetensors'),
        ('convert-weights a b.pth --input-mean .5 .5 .5', 'go together'),
        ('convert-weights a b.pth --input-mean 123.6 1 1 --input-std 1 1 1', 'divide one for'),
        ('convert-weights a b.pth --input-mean 0 0 0 --input-std 0 1 1', 'expected a number'),
        ('convert-weights a b.pth --norm-eps 0', 'expected a number above 0, got 0'),
        ('extract a b.txt', 'b.txt: the suffix must be'),
        ('extract a b.pth --grid 1 2 3', '--grid takes one or two numbers'),
        ('interpolate a b --out c', 'c: the suffix must be'),
        ('report a=x --data c.py --fov 180', 'expected degrees between 0 and 180, got 180'),
        ('report a=x --data c.py --limit 0', 'expected at least 1, got 0'),
        ('swap a.py -o new.txt', 'new.txt: the suffix must be .py'),
        ('swap a.py -o b.py --drop-path 1', 'expected a number in [0, 1), got 1'),
        ('swap a.py -o b.py --layer-decay 2', 'expected a number in (0, 1], got 2'),
        ('swap a.py -o b.py --window-size -2', 'expected 0 or more, got -2'),
    ],
)
def test_values_out_of_range(command, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(command.split())
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_options_say_what_the_library_does():
    """They stand in the parsers by value: importing them would import the mm packages."""
    assert convert_weights.SOURCES == SOURCES
    assert check.build_parser().get_default('tolerance') == TOLERANCE


def test_overrides_are_read_as_mmengine_reads_them():
    pairs = ['a.b=1e-4', 'c=[1,(2,x)]', 'd=true', 'e=a=b']
    assert read_overrides(pairs) == {'a.b': 1e-4, 'c': [1, (2, 'x')], 'd': True, 'e': 'a=b'}
    assert read_overrides([]) == {}
    with pytest.raises(SystemExit, match=r'error: --cfg-options c=\[1,2: '):
        read_overrides(['c=[1,2'])
