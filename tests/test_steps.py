import os
import signal
import threading
import time

import pytest

from mmmask3d.steps import StepFailed, usable_cores
from mmmask3d.steps import step as describe

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
    return describe(
        root,
        'work',
        lambda folder: ['-c', SCRIPT, folder],
        lambda folder: [folder / 'out'],
        show,
        options,
    )


def runs(step):
    return len((step.folder / 'count').read_text())


def test_a_finished_step_is_not_run_again(tmp_path, capfd):
    step = make(tmp_path, show=lambda line: line.upper() if 'progress' in line else None, a=1)
    assert not step.finished
    assert step.run()
    assert (step.folder / 'log.txt').read_text() == 'progress 1\nother\n'
    assert capfd.readouterr().out == f'  {step.folder.name}: PROGRESS 1\n'
    again = make(tmp_path, a=1)
    assert again.finished
    assert not again.run()
    assert runs(again) == 1


def test_changed_options_are_another_step_and_the_old_one_stays(tmp_path):
    first = make(tmp_path, a=1, b=[1, 2])
    first.run()
    other = make(tmp_path, a=1, b=[2, 1])
    assert other.folder != first.folder
    assert not other.finished
    other.run()
    assert first.finished
    assert make(tmp_path, b=(1, 2), a=1).folder == first.folder


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
    with pytest.raises(StepFailed, match=r'(?s)ended with code 1.*log\.txt.*it went wrong'):
        step.run()
    assert not step.finished
    (step.folder / 'fail').unlink()
    assert step.run()
    assert runs(step) == 2


def test_a_command_without_its_product_has_failed(tmp_path):
    step = make(tmp_path)
    step.folder.mkdir()
    (step.folder / 'forget').touch()
    with pytest.raises(StepFailed, match=r'did not write .*out'):
        step.run()
    assert not step.finished


def test_threads_are_those_of_the_cores_or_what_is_asked_for(tmp_path, monkeypatch):
    says = "import os, sys; open(sys.argv[1] + '/out', 'w').write(os.environ['OMP_NUM_THREADS'])"
    for name, asked, given, expected in (
        ('plain', None, None, str(usable_cores())),
        ('given', None, 3, '3'),
        ('asked', '7', 3, '7'),
    ):
        monkeypatch.delenv('OMP_NUM_THREADS', raising=False)
        if asked:
            monkeypatch.setenv('OMP_NUM_THREADS', asked)
        step = describe(
            tmp_path, name, lambda folder: ['-c', says, folder], lambda folder: [folder / 'out']
        )
        step.run(threads=given)
        assert (step.folder / 'out').read_text() == expected


def test_an_interruption_ends_the_command(tmp_path):
    wait = "import sys, time; open(sys.argv[1] + '/begun', 'w'); time.sleep(600)"
    step = describe(
        tmp_path, 'wait', lambda folder: ['-c', wait, folder], lambda folder: [folder / 'out']
    )

    def interrupt():
        while not list(tmp_path.glob('wait*/begun')):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    # A shell that starts the tests in the background has them ignore interruptions.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=interrupt, daemon=True).start()
    begin = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            step.run()
    finally:
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - begin < 300
    assert not step.finished
