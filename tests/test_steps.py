import pytest

from mmmask3d.steps import StepFailed
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
    assert capfd.readouterr().out == '  PROGRESS 1\n'
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
