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
    assert '11 steps in' in output
    assert 'epoch 1, batch 1/1, loss' in output  # progress is shown
    depth = json.loads(steps.depth.products[0].read_text())
    for name in ('aligned_rmse', 'aligned_mean_rmse'):
        assert f'{depth["masked_depth/" + name]:.4f}' in output
    for runs in (steps.encoder, steps.scratch):
        for _, evaluation in runs:
            assert f'{json.loads(evaluation.products[0].read_text())["mIoU"]:.2f}' in output
    assert f'Depth from RGB:  {steps.pictures.folder / "val_sheet.png"}\n' in output
    drawn = [demo.DRAWN in run.command for _, run in (*steps.encoder, *steps.scratch)]
    assert drawn == [True, False, False, False]
    for runs, starts_from_it in ((steps.encoder, True), (steps.scratch, False)):
        for training, _ in runs:
            log = (training.folder / 'log.txt').read_text()
            assert (f'encoder tensors from {demo.WEIGHTS}' in log) == starts_from_it

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


def test_fine_tunings_of_a_seed_differ_in_the_encoder_only(demo, tmp_path):
    steps = demo.plan(tmp_path, tmp_path / 'rooms', 3, demo.FULL)
    for number, runs in enumerate(zip(steps.encoder, steps.scratch, strict=True), 3):
        encoder, scratch = (
            [part for part in training.command if part != str(training.folder)]
            for training, _ in runs
        )
        assert [part for part in encoder if 'init_cfg' not in part] == scratch
        assert f'randomness.seed={number}' in scratch
    assert number == 5


def test_the_spread_of_seeds(demo):
    assert demo.spread([10.0, 12.0, 14.0]) == ' 12.00 ± 2.00  (10.00, 12.00, 14.00)'


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
