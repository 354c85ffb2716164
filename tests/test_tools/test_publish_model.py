"""The commands that publish weights, and that make the shipped ones."""

import json
from pathlib import Path

import pytest
import timm
import torch

from mmmask3d.apis import get_model
from mmmask3d.checkpoints.files import load_checkpoint_file
from mmmask3d.cli.options import read_overrides
from mmmask3d.conversion.command_line import build_parser
from mmmask3d.conversion.rooms.converter import RoomsConverter
from mmmask3d.engine.run_config import load_config
from mmmask3d.steps import Step


@pytest.fixture
def published(load_tool, tiny_config, tmp_path, capsys):
    """Function that runs the command on a checkpoint of the tiny model."""
    cfg = load_config(tiny_config)
    model = get_model(cfg)
    source = tmp_path / 'epoch_2.pth'
    meta = {'cfg': cfg.pretty_text, 'epoch': 2}
    torch.save({'state_dict': model.state_dict(), 'meta': meta, 'optimizer': {}}, source)
    tool = load_tool('misc/publish_model.py')

    def run(*arguments):
        code = tool.main([str(source), str(tmp_path / 'zoo/mine'), *arguments])
        return code, capsys.readouterr()

    return run


def test_the_command_writes_and_reports(published, tmp_path):
    metrics, report = tmp_path / 'metrics.json', tmp_path / 'report.json'
    metrics.write_text(json.dumps({'masked_depth/rmse': 0.5}))
    code, said = published(
        '--data-license=own frames', '--terms=Apache-2.0', '--metrics', str(metrics),
        '--report', str(report), '--part=model', '--made-by=make mine',
    )  # fmt: skip
    assert code == 0, said.err
    written = json.loads(report.read_text())
    assert f'sha256: {written["sha256"]}' in said.out
    card = json.loads(Path(written['card']).read_text())
    assert card['figures'] == {'masked_depth/rmse': 0.5}
    assert card['made_by'] == 'make mine'
    assert 'optimizer' not in load_checkpoint_file(written['weights'])


def test_without_terms_nothing_happens(published, tmp_path, capsys):
    for arguments in (['--terms=x'], ['--data-license=x']):
        with pytest.raises(SystemExit):
            published(*arguments)
    code, said = published('--terms=x', '--data-license=research only')
    assert code == 1
    assert 'restrict their use' in said.err
    assert not (tmp_path / 'zoo').exists()


@pytest.mark.parametrize('adapter', [False, True])
def test_weights_from_rooms_are_made_by_one_command(
    adapter, load_tool, tmp_path, monkeypatch, capsys
):
    """The commands fit the tools; here they leave a model without training, which is published."""
    tool = load_tool('misc/make_rooms_encoder.py')
    arguments = ['--out-dir', str(tmp_path / 'out'), '--work-dir', str(tmp_path / 'work')]
    arguments += ['--data', str(tmp_path / 'rooms'), '--seed=4']
    if adapter:
        dinov2 = str(tmp_path / 'dinov2.pth')
        torch.save(timm.create_model('vit_small_patch14_dinov2').state_dict(), dinov2)
        arguments += ['--adapter', '--dinov2', dinov2]
    ran, epochs = [], 1 if adapter else 6

    def execute(step, log, threads):
        script = step.command[0].rpartition('/tools/')[2]
        ran.append(script)
        log.write_text('')
        given = list(step.command[1:])
        for path in step.products:
            path.parent.mkdir(parents=True, exist_ok=True)
        if script in ('misc/publish_model.py', 'model_converters/extract_backbone.py'):
            return load_tool(script).main(given)
        if script == 'dataset_converters/generate_rooms.py':
            rooms = RoomsConverter(build_parser(RoomsConverter).parse_args(given))
            assert (rooms.rooms, rooms.val_rooms, rooms.views) == (2560, 40, 4)
            assert rooms.size == (224, 168)
            for path in step.products:
                path.write_text('')
            return 0
        parsed = load_tool(script).parse_args(given)
        if script == 'train.py':
            overrides = read_overrides(parsed.cfg_options)
            assert overrides['randomness.seed'] == 4
            cfg = load_config(parsed.config, str(step.folder), overrides)
            model = get_model(cfg)
            if adapter:
                model.init_weights()  # reads what the matrices are added to
            meta = {'cfg': cfg.pretty_text, 'epoch': epochs, 'iter': 315 * epochs, 'seed': 4}
            torch.save({'state_dict': model.state_dict(), 'meta': meta}, step.products[0])
        else:
            assert parsed.checkpoint.endswith(f'epoch_{epochs}.pth')
            step.products[0].write_text('{"masked_depth/rmse": 0.5}')
        return 0

    monkeypatch.setattr(Step, '_execute', execute)
    assert tool.main(arguments) == 0, capsys.readouterr().err
    extracted = ['model_converters/extract_backbone.py'] * adapter
    assert ran == [
        'dataset_converters/generate_rooms.py', 'train.py', 'test.py', *extracted,
        'misc/publish_model.py',
    ]  # fmt: skip
    (path,) = (tmp_path / 'out').glob('*.safetensors')
    card = json.loads(path.with_suffix('.json').read_text())
    assert (card['epoch'], card['seed']) == (epochs, 4)
    expected = ('float32', 'adapter') if adapter else ('float16', 'model')
    assert (card['dtype'], card['part']) == expected
    assert card['figures'] == {'masked_depth/rmse': 0.5}
    how = '--adapter ' if adapter else ''
    assert card['made_by'].endswith(f'make_rooms_encoder.py {how}--out-dir DIR --seed 4')
    assert path.stat().st_size < (1 if adapter else 8) * 2**20
    assert tool.main(arguments) == 0
    assert len(ran) == 4 + adapter
