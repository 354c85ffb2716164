import os
import signal
import threading
import time

import pytest

from mmmask3d.steps import StepFailed, run_lanes, usable_cores
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


# Says its threads, and waits until the other lane's step is there too, or for a minute.
MEET = """
import os, pathlib, sys, time
folder = pathlib.Path(sys.argv[1])
(folder / 'out').write_text(os.environ['OMP_NUM_THREADS'])
end = time.monotonic() + 60
while len(list(folder.parent.glob('meet*/out'))) < 2 and time.monotonic() < end:
    time.sleep(0.05)
sys.exit(time.monotonic() >= end)
"""


def one(root, name, script):
    return describe(
        root, name, lambda folder: ['-c', script, folder], lambda folder: [folder / 'out']
    )


def test_lanes_run_side_by_side_and_share_the_cores(tmp_path, monkeypatch):
    monkeypatch.delenv('OMP_NUM_THREADS', raising=False)
    lanes = [[one(tmp_path, f'meet{i}', MEET), one(tmp_path, f'then{i}', SCRIPT)] for i in (0, 1)]
    begun = []
    assert run_lanes(*lanes, start=begun.append) == 4
    assert sorted(step.folder.name for step in begun) == sorted(
        step.folder.name for lane in lanes for step in lane
    )
    threads = [int((lane[0].folder / 'out').read_text()) for lane in lanes]
    assert threads == [max(1, usable_cores() // 2)] * 2
    assert run_lanes(*lanes, start=begun.append) == 0
    assert len(begun) == 4


def test_threads_that_are_asked_for_stay(tmp_path, monkeypatch):
    monkeypatch.setenv('OMP_NUM_THREADS', '7')
    step = one(tmp_path, 'meet', MEET.replace('< 2', '< 1'))
    step.run()
    assert (step.folder / 'out').read_text() == '7'


def test_a_failure_in_one_lane_stops_the_other_after_its_step(tmp_path):
    slow = "import sys, time; time.sleep(2); open(sys.argv[1] + '/out', 'w')"
    failing = [one(tmp_path, 'bad', 'raise SystemExit(3)')]
    other = [one(tmp_path, 'slow', slow), one(tmp_path, 'never', SCRIPT)]
    with pytest.raises(StepFailed, match='ended with code 3'):
        run_lanes(failing, other)
    assert other[0].finished
    assert not other[1].folder.exists()


def test_an_interruption_ends_the_commands(tmp_path):
    wait = "import sys, time; open(sys.argv[1] + '/begun', 'w'); time.sleep(600)"
    lanes = [[one(tmp_path, f'wait{i}', wait)] for i in (0, 1)]

    def interrupt():
        while len(list(tmp_path.glob('wait*/begun'))) < 2:
            time.sleep(0.05)
        os.kill(os.getpid(), 2)

    # A shell that starts the tests in the background has them ignore interruptions.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=interrupt, daemon=True).start()
    begin = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            run_lanes(*lanes)
    finally:
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - begin < 300
    assert not any(lane[0].finished for lane in lanes)
