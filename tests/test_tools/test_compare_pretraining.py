import json
import multiprocessing
import os
import re
import signal
import statistics
import time
from pathlib import Path

import pytest

from mmmask3d.steps import Step, show_training

ROOT = Path(__file__).parents[2]
SEGMENTATION = """
_base_ = {base!r}
loader = dict(batch_size=2, num_workers=0, persistent_workers=False)
train_dataloader = dict(dataset=dict(data_root={rooms!r}), **loader)
val_dataloader = dict(dataset=dict(data_root={rooms!r}), **loader)
test_dataloader = val_dataloader
train_cfg = dict(max_epochs=1)
model = dict(
    backbone=dict(
        arch=dict(
            _delete_=True, embed_dims=48, num_layers=2, num_heads=3, feedforward_channels=96
        )
    ),
    decode_head=dict(in_channels=48, channels=16),
)
"""


@pytest.fixture
def compare(load_tool):
    return load_tool('benchmarks/compare_pretraining.py')


@pytest.fixture
def downstream(tmp_path, tiny_rooms):
    base = str(ROOT / 'configs/segmentation/mask3d-mini_fcn_rooms_demo.py')
    path = tmp_path / 'segmentation.py'
    path.write_text(SEGMENTATION.format(base=base, rooms=str(tiny_rooms)))
    return path


@pytest.fixture
def arguments(tmp_path, tiny_config, downstream):
    return [
        '--methods', f'mask3d={tiny_config}', 'scratch', '--seeds', '4',
        '--work-dir', str(tmp_path / 'work'), '--downstream', str(downstream),
        '--pretrain-cfg-options', 'train_cfg.max_epochs=25',
    ]  # fmt: skip


@pytest.mark.usefixtures('steps_in_copies')
def test_interrupted_comparison_goes_on_and_ends_with_a_table(
    compare, arguments, tmp_path, capsys, monkeypatch
):
    def in_a_group_of_its_own():
        os.setsid()
        compare.main(arguments)

    first = multiprocessing.get_context('fork').Process(target=in_a_group_of_its_own)
    first.start()
    pretrain = compare.plan(compare.parse_args(arguments))[0].steps[0]
    deadline = time.monotonic() + 120
    while not (pretrain.folder / 'epoch_1.pth').exists():
        assert first.is_alive()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(first.pid, signal.SIGKILL)
    first.join()
    assert not pretrain.finished

    assert compare.main(arguments) == 0
    assert 'Resuming from' in (pretrain.folder / 'log.txt').read_text()
    assert pretrain.finished
    measurements = compare.plan(compare.parse_args(arguments))
    figures = []
    for item in measurements:
        assert all(step.finished for step in item.steps)
        assert item.seed == 4
        figures.append(json.loads((item.steps[-1].folder / 'metrics.json').read_text())['mIoU'])
    table = json.loads((tmp_path / 'work/table.json').read_text())
    assert [row['method'] for row in table['rows']] == ['mask3d', 'scratch']
    assert [row['values']['mIoU'] for row in table['rows']] == [[f] for f in figures]
    log = (measurements[0].steps[-2].folder / 'log.txt').read_text()
    assert f'encoder tensors from {measurements[0].steps[1].products[0]}' in log
    assert 'encoder tensors from' not in (measurements[1].steps[0].folder / 'log.txt').read_text()

    # finished: nothing is run, the table is the same
    capsys.readouterr()
    monkeypatch.setattr(Step, '_execute', lambda *_: pytest.fail('a finished step was run'))
    assert compare.main(arguments) == 0
    assert capsys.readouterr().out.startswith((tmp_path / 'work/table.md').read_text())


def test_changed_options_and_files_are_other_steps(compare, arguments, tiny_config):
    def folders(*extra):
        plan = compare.plan(compare.parse_args([*arguments, *extra]))
        return [[step.folder.name for step in item.steps] for item in plan]

    before = folders()
    assert folders() == before
    fewer = folders('--downstream-cfg-options', 'optim_wrapper.optimizer.lr=0.0123')
    assert fewer[0][:2] == before[0][:2]  # the pre-training is not affected
    assert not {*fewer[0][2:], *fewer[1]} & {*before[0], *before[1]}
    # an edited file is another run, for everything that follows from it and nothing else
    tiny_config.write_text(tiny_config.read_text().replace('lr=1e-3', 'lr=2e-3'))
    edited = folders()
    assert not set(edited[0]) & set(before[0])
    assert edited[1] == before[1]


def test_plan_has_every_method_seed_and_setting(compare, arguments):
    arguments[3:5] = ['--seeds', '0', '1']
    plan = compare.plan(compare.parse_args([*arguments, '--probe']))
    assert [(item.method, item.seed, item.setting) for item in plan] == [
        (method, seed, setting)
        for seed in (0, 1)
        for method in ('mask3d', 'scratch')
        for setting in ('fine-tuned', 'frozen')
    ]
    assert [len(item.steps) for item in plan] == [4, 4, 2, 2] * 2
    assert plan[0].steps[:2] == plan[1].steps[:2]
    assert len({item.steps[-1].folder for item in plan}) == 8
    for item in plan:
        for step in item.steps:
            if step.command[0].endswith('train.py'):
                assert f'randomness.seed={item.seed}' in step.command
        frozen = 'model.backbone.frozen_stages=2' in item.steps[-2].command
        assert frozen == (item.setting == 'frozen')


def test_default_methods_have_an_equal_budget(compare, tmp_path):
    config = str(ROOT / 'configs/segmentation/mask3d-tiny_fcn_rooms-240x320.py')
    plan = compare.plan(compare.parse_args(['--work-dir', str(tmp_path), '--downstream', config]))
    assert {item.method for item in plan} == {'mask3d', 'mae', 'rgb2depth', 'scratch'}
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ('option', 'message'),
    [
        (['--methods', 'mask3d={tiny}', 'other'], r'other: unknown.*mask3d, mae'),
        (['--methods', 'mask3d=nowhere.py'], r'nowhere\.py: config file not found'),
        (
            ['--methods', 'mask3d={tiny}', 'longer={longer}'],
            r'train_cfg\.max_epochs is 3 for longer and 2 for mask3d: not an equal budget',
        ),
        (['--pretrain-cfg-options', 'model.backbone.patch_size=4'], r"arch.*'patch_size': 8.*4"),
        (['--downstream-cfg-options', 'model.backbone.type=ResNet'], r'ResNet; expected mmmask3d'),
        (['--downstream-cfg-options', 'nonsense'], r"'nonsense': expected key=value"),
    ],
)
def test_what_cannot_be_compared_is_refused_at_once(
    compare, arguments, tiny_config, tmp_path, option, message, capsys
):
    longer = tmp_path / 'longer.py'
    longer.write_text(tiny_config.read_text().replace('max_epochs=2', 'max_epochs=3'))
    arguments = arguments[: arguments.index('--pretrain-cfg-options')]
    option = [part.format(tiny=tiny_config, longer=longer) for part in option]
    assert compare.main([*arguments, *option]) == 1
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert not (tmp_path / 'work').exists()


def test_table_has_mean_and_sample_deviation(compare):
    values = [10.0, 11.0, 13.0]
    rows = [
        dict(method='mask3d', setting='fine-tuned', seeds=[0, 1, 2], values={'mIoU': values}),
        dict(method='scratch', setting='fine-tuned', seeds=[0], values={'mIoU': [9.5]}),
    ]
    lines = [
        [cell.strip() for cell in line.strip('|').split('|')]
        for line in compare.format_rows(rows).splitlines()
    ]
    assert lines[0] == ['method', 'encoder', 'seeds', 'mIoU', 'mIoU per seed']
    deviation = statistics.stdev(values)
    assert lines[2][3:] == [f'11.33 ± {deviation:.2f}', '10.00 11.00 13.00']
    assert lines[3] == ['scratch', 'fine-tuned', '1', '9.50', '9.50']
    detection = [
        dict(method='a', setting='frozen', seeds=[0, 1], values={'coco/bbox_mAP': [0.1, 0.2]})
    ]
    assert '0.150 ± 0.071' in compare.format_rows(detection)


@pytest.mark.parametrize(
    ('line', 'shown'),
    [
        (
            '11/22 21:47:44 - mmengine - INFO - Epoch(train) [1][ 4/12]  base_lr: 1.3e-04 '
            'lr: 1.3e-04  eta: 0:00:19  time: 0.99  grad_norm: 4.52  loss: 2.08  loss_depth: 2.0',
            'epoch 1, batch 4/12, loss 2.08, eta 0:00:19',
        ),
        (
            '11/22 21:47:44 - mmengine - INFO - Iter(train) [  50/20000]  lr: 1e-4  loss: 2.08',
            'iteration 50/20000, loss 2.08',
        ),
        (
            '11/22 21:58:19 - mmengine - INFO - Epoch(val) [25][96/96]    aAcc: 33.27  mIoU: 5.63',
            'validation: mIoU 5.63',
        ),
        ('11/22 21:58:19 - mmengine - INFO - Epoch(val) [25][50/96]    eta: 0:00:01', None),
        ('11/22 21:58:19 - mmengine - INFO - Saving checkpoint at 2 epochs', None),
    ],
)
def test_progress_lines(line, shown):
    assert show_training(line) == shown
