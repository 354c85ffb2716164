import json
import os
import signal
import subprocess
import sys
import time

import pytest

from mmmask3d.apis.stages import StageFailed, stage

# Counts its runs in `count`, and writes `out` unless the file `fail` is there.
SCRIPT = """
import pathlib, sys
folder = pathlib.Path(sys.argv[1])
with open(folder / 'count', 'a') as file:
    file.write('x')
print('progress 1')
print('other')
if (folder / 'fail').exists():
    raise SystemExit('it went wrong')
if not (folder / 'forget').exists():
    (folder / 'out').write_text('result')
"""


def make(root, show=lambda line: None, **options):
    return stage(
        root,
        'work',
        options,
        lambda folder: ['-c', SCRIPT, folder],
        lambda folder: [folder / 'out'],
        show,
    )


def runs(step):
    return len((step.folder / 'count').read_text())


def test_a_finished_stage_is_not_run_again(tmp_path, capfd):
    step = make(tmp_path, show=lambda line: line.upper() if 'progress' in line else None, a=1)
    assert not step.finished
    assert step.run()
    assert (step.folder / 'log.txt').read_text() == 'progress 1\nother\n'
    assert capfd.readouterr().out == '  PROGRESS 1\n'
    again = make(tmp_path, a=1)
    assert again.finished
    assert not again.run()
    assert runs(again) == 1


def test_changed_options_are_another_stage_and_the_old_one_stays(tmp_path):
    first = make(tmp_path, a=1, b=[1, 2])
    first.run()
    other = make(tmp_path, a=1, b=[2, 1])
    assert other.folder != first.folder
    assert not other.finished
    other.run()
    assert first.finished
    assert make(tmp_path, b=(1, 2), a=1).folder == first.folder


def test_a_record_of_other_options_is_not_believed(tmp_path):
    step = make(tmp_path, a=1)
    step.run()
    record = json.loads((step.folder / 'stage.json').read_text())
    (step.folder / 'stage.json').write_text(json.dumps({**record, 'key': 'of another'}))
    assert not step.finished
    (step.folder / 'stage.json').write_text(json.dumps(record)[:20])
    assert not step.finished


def test_a_missing_product_is_made_again(tmp_path):
    step = make(tmp_path)
    step.run()
    (step.folder / 'out').unlink()
    assert not step.finished
    assert step.run()
    assert runs(step) == 2


def test_a_failure_is_loud_and_the_next_call_goes_on(tmp_path):
    step = make(tmp_path)
    step.folder.mkdir()
    (step.folder / 'fail').touch()
    with pytest.raises(StageFailed, match=r'(?s)ended with code 1.*log\.txt.*it went wrong'):
        step.run()
    assert not step.finished
    (step.folder / 'fail').unlink()
    assert step.run()
    assert runs(step) == 2


def test_a_command_without_its_product_has_failed(tmp_path):
    step = make(tmp_path)
    step.folder.mkdir()
    (step.folder / 'forget').touch()
    with pytest.raises(StageFailed, match=r'did not write .*out'):
        step.run()
    assert not step.finished


SLOW = """
import pathlib, sys, time
from mmmask3d.apis.stages import stage
child = "import pathlib, sys, time; pathlib.Path(sys.argv[1], 'started').touch(); time.sleep(60)"
stage(pathlib.Path(sys.argv[1]), 'work', {}, lambda f: ['-c', child, f], lambda f: []).run()
"""


def test_a_command_that_outlived_its_parent_is_not_disturbed(tmp_path):
    parent = subprocess.Popen([sys.executable, '-c', SLOW, str(tmp_path)], start_new_session=True)
    step = stage(tmp_path, 'work', {}, lambda f: ['-c', ''], lambda f: [])
    try:
        deadline = time.monotonic() + 60
        while not (step.folder / 'started').exists():
            assert time.monotonic() < deadline, 'the command was not started'
            assert parent.poll() is None
            time.sleep(0.05)
        parent.kill()
        parent.wait()
        with pytest.raises(StageFailed, match='another process is at work'):
            step.run()
    finally:
        os.killpg(parent.pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while True:  # the lock is free once the kernel has buried the command
        try:
            assert step.run()
            break
        except StageFailed:
            assert time.monotonic() < deadline
            time.sleep(0.05)
