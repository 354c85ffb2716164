import json

import pytest

from mmmask3d.steps import Step, show_counts


@pytest.fixture
def demo(load_tool):
    return load_tool('demo.py')


@pytest.mark.usefixtures('steps_in_copies')
def test_demo_runs_reports_and_runs_again_only_what_is_missing(demo, tmp_path, capsys, monkeypatch):
    arguments = ['--tiny', '--out', str(tmp_path / 'out'), '--data', str(tmp_path / 'rooms')]
    assert demo.main(arguments) == 0
    output = capsys.readouterr().out
    steps = demo.plan(tmp_path / 'out', tmp_path / 'rooms', 0, demo.TINY)
    assert '9 steps in' in output
    assert 'epoch 1, batch 1/1, loss' in output  # progress is shown
    depth = json.loads(steps.depth.products[0].read_text())
    for name in ('rmse', 'interp_rmse', 'mean_rmse'):
        assert f'{depth["masked_depth/" + name]:.4f}' in output
    for step in (steps.finetune_miou, steps.scratch_miou):
        assert f'{json.loads(step.products[0].read_text())["mIoU"]:8.2f}\n' in output
    assert f'Reconstructions: {steps.pictures.folder / "val_sheet.png"}\n' in output
    log = (steps.finetune.folder / 'log.txt').read_text()
    assert f'encoder tensors from {steps.export.products[0]}' in log
    assert 'encoder tensors from' not in (steps.scratch.folder / 'log.txt').read_text()

    ran = []
    monkeypatch.setattr(Step, '_execute', lambda step, *_: ran.append(step.folder) or 1)
    assert demo.main(arguments) == 0
    again = capsys.readouterr().out
    assert 'Everything was there already' in again
    assert 'mIoU' in again
    assert ran == []
    # One result is removed: its step, and no other, is run again. Here it fails, loudly.
    steps.pictures.products[0].unlink()
    assert demo.main(arguments) == 1
    assert ran == [steps.pictures.folder]
    error = capsys.readouterr().err
    assert 'visualize_reconstruction.py' in error
    assert 'log.txt' in error


def test_fresh_removes_the_results_and_nothing_else(demo, tmp_path):
    steps = demo.plan(tmp_path, tmp_path / 'rooms', 0, demo.TINY)
    for folder in (steps.pretrain.folder, tmp_path / 'rooms', tmp_path / 'other-0123abcd'):
        folder.mkdir()
    (steps.pretrain.folder / 'log.txt').touch()
    demo.remove_results(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['other-0123abcd', 'rooms']


def test_both_fine_tunings_differ_in_the_encoder_only(demo, tmp_path):
    steps = demo.plan(tmp_path, tmp_path / 'rooms', 3, demo.FULL)
    finetune, scratch = (
        [part for part in step.command if part != str(step.folder)]
        for step in (steps.finetune, steps.scratch)
    )
    assert [part for part in finetune if 'init_cfg' not in part] == scratch
    assert 'randomness.seed=3' in scratch
    assert demo.plan(tmp_path, tmp_path / 'rooms', 4, demo.FULL).pretrain != steps.pretrain


@pytest.mark.parametrize(
    ('line', 'shown'),
    [
        ('rooms:  50%|#####     | 240/480 [00:41<00:41,  5.8frame/s]', '240 of 480 frames'),
        ('rooms:  51%|#####     | 248/480 [00:42<00:40,  5.8frame/s]', None),
        ('data/rooms: made 480 of 480 frames', None),
    ],
)
def test_progress_of_the_generator(line, shown):
    assert show_counts(line) == shown
