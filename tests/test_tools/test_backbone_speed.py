"""The speed comparison at toy size: what is measured, and what its figures stand for."""

import argparse
import sys

import pytest
import torch
from mmengine.config import Config
from torch import nn

TINY = ['--size', '32', '48', '--rounds', '2']


@pytest.fixture
def tool(load_tool):
    return load_tool('benchmarks/backbone_speed.py')


@pytest.fixture
def quick(tool, monkeypatch):
    """Two backbones of known cost in place of all: the second does its work three times."""

    class Work(nn.Module):
        def __init__(self, times):
            super().__init__()
            self.times, self.conv = times, nn.Conv2d(3, 32, 9, padding=4)

        def forward(self, x):
            return tuple(self.conv(x) for _ in range(self.times))

    monkeypatch.setattr(
        tool,
        'BACKBONES',
        {
            tool.REFERENCE: ('reference', lambda args: Work(1)),
            'vit': ('threefold', lambda args: Work(3)),
        },
    )
    return tool


def test_ratio_of_known_work(quick):
    args = quick.parse_args(['--size', '128', '128', '--rounds', '5', '--models', 'vit'])
    times = quick.measure_speed(args)
    for mode in quick.MODES:
        found = quick.ratios(times['vit'][mode], times[quick.REFERENCE][mode])
        assert len(found) == 5
        assert 1.8 < sorted(found)[2] < 4.5
    assert min(times['vit']['training']) > min(times['vit']['inference'])


def test_order_within_a_round_changes(quick, monkeypatch):
    order = []
    monkeypatch.setattr(quick, 'seconds', lambda model, x, training: order.append(model.times) or 1)
    quick.measure_speed(quick.parse_args(TINY))
    assert order == 2 * ([1, 3] + [1, 3] + [3, 1])  # warm-up and two rounds, twice


def test_table_shows_median_and_range_of_the_rounds_ratios(quick):
    times = {
        quick.REFERENCE: dict(inference=[1.0, 2.0, 4.0], training=[2.0, 2.0, 2.0]),
        'vit': dict(inference=[3.0, 4.0, 4.0], training=[1.0, 2.0, 4.0]),
    }
    memory = {
        quick.REFERENCE: dict(inference=100, training=200),
        'vit': dict(inference=50, training=500),
    }
    lines = quick.table(times, memory, quick.REFERENCE).splitlines()
    assert lines[2] == ('| reference | 1.00 (1.00 to 1.00) | 1.00 (1.00 to 1.00) | 1.00 | 1.00 |')
    assert lines[3] == ('| threefold | 2.00 (1.00 to 3.00) | 1.00 (0.50 to 2.00) | 0.50 | 2.50 |')


def test_memory_is_that_of_one_step(tool, monkeypatch):
    """A step that fills 64 MiB and lets them go, measured in this process."""

    class Greedy(nn.Module):
        def forward(self, x):
            return torch.ones(2**24) * x.sum()

    monkeypatch.setattr(tool, 'BACKBONES', {tool.REFERENCE: ('', lambda args: Greedy())})
    args = argparse.Namespace(size=[8, 8], batch=1, device='cpu')
    ballast = torch.ones(2**26)  # 256 MiB that were there before count for nothing
    found = tool.measure_memory(tool.REFERENCE, args, False) / 2**20
    assert 100 < found < 180  # the ones and their product
    assert ballast.numel()


def test_memory_is_measured_in_a_process_of_its_own(tool, monkeypatch):
    args = tool.parse_args(TINY)
    found = tool.memory_in_own_process('vit', args, 'training')
    # gradients of the weights alone: 5.5 million of them, in 4 bytes
    assert 20 * 2**20 < found < 200 * 2**20
    monkeypatch.setattr(sys, 'executable', 'false')
    with pytest.raises(SystemExit, match='Measuring the memory of vit failed'):
        tool.memory_in_own_process('vit', args, 'training')


def test_command_measures_real_backbones(tool, capsys, monkeypatch):
    asked = []
    monkeypatch.setattr(
        tool, 'memory_in_own_process', lambda name, args, mode: asked.append((name, mode)) or 7
    )
    tool.main([*TINY, '--models', 'pyramid-window'])
    names = ['mmpretrain-vit', 'pyramid-window']
    assert asked == [(name, mode) for name in names for mode in ('inference', 'training')]
    text = capsys.readouterr().out
    assert '| Mask3DPyramid, windows |' in text
    assert 'deit-tiny, 32x48, batch 1' in text


def test_every_backbone_can_be_built(tool):
    args = tool.parse_args(TINY)
    assert set(args.models) == {*tool.BACKBONES} - {*tool.VITDET, *tool.PRETRAINERS}
    x = tool.images(args)
    for name in args.models:
        model = tool.build(name, args)
        model.eval()  # returns None in mmpretrain's
        with torch.no_grad():
            maps = model(x)
        assert len(maps) == (4 if name.startswith(('pyramid', 'resnet')) else 1)


def test_pretrainers_make_their_losses(tool):
    """Tiny, at 64x64: as their configs build them."""
    options = ['--size', '64', '64', '--batch', '2', '--reference', 'mask3d']
    args = tool.parse_args([*options, '--models', 'mask3d-heavy', 'mae'])
    assert args.models == ['mask3d', 'mask3d-heavy', 'mae']
    x, models = tool.images(args), {}
    for name in args.models:
        built = tool.build(name, args)
        built.train()
        loss = built(x)
        assert loss > 0
        loss.backward()
        models[name] = built
    base = Config.fromfile(tool.BASE_MODELS / 'mask3d_vit-tiny.py').model.decoders.depth
    light, heavy = (models[name].decoders['depth'] for name in ('mask3d', 'mask3d-heavy'))
    assert type(light).__name__ == base.type
    assert len(light.layers) == base.num_layers
    assert type(heavy).__name__ == 'DepthDecoder'
    assert len(heavy.layers) == 4
    assert len(models['mae'].neck.decoder_blocks) == 8


MULTIMAE = """
import torch
from utils.registry import register_model  # as the original, whose utils/__init__ fails
from torch import nn

class PatchedInputAdapter(nn.Linear):
    def __init__(self, num_channels, stride_level, patch_size_full, image_size):
        super().__init__(num_channels, 8)
        assert (stride_level, patch_size_full, image_size) == (1, 16, (64, 64))

class SpatialOutputAdapter(nn.Linear):
    def __init__(self, num_channels, task, context_tasks, **kwargs):
        super().__init__(8, num_channels)
        assert context_tasks == ['rgb', 'depth'] and task in context_tasks

class Loss(nn.Module):
    def forward(self, pred, target, mask):
        return (mask * (pred - target) ** 2).mean()

MaskedMSELoss = MaskedL1Loss = Loss

class Model(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.inputs, self.outputs = nn.ModuleDict(inputs), nn.ModuleDict(outputs)

    def forward(self, x, num_encoded_tokens):
        assert num_encoded_tokens == 8  # of 16 places
        maps = {k: v.permute(0, 2, 3, 1) for k, v in x.items()}
        maps = {k: self.outputs[k](self.inputs[k](v)) for k, v in maps.items()}
        return {k: v.permute(0, 3, 1, 2) for k, v in maps.items()}, {k: 1 for k in x}

pretrain_multimae_base = Model
"""


def test_multimae_is_taken_from_its_repository(tool, tmp_path, monkeypatch):
    for folder, files in {
        'multimae': {'__init__': 'from .multimae import *', 'multimae': MULTIMAE},
        'utils': {'__init__': 'import torch._six', 'registry': 'register_model = None'},
    }.items():
        (tmp_path / folder).mkdir()
        for name, text in files.items():
            (tmp_path / folder / f'{name}.py').write_text(text)
    monkeypatch.setattr('sys.path', list(sys.path))
    for name in ('utils', 'utils.registry', 'multimae', 'multimae.multimae'):
        monkeypatch.delitem(sys.modules, name, raising=False)
    args = tool.parse_args(['--size', '64', '64', '--multimae', str(tmp_path)])
    assert 'multimae' not in args.models  # a pre-trainer is no backbone
    model = tool.build('multimae', args)
    model(tool.images(args)).backward()
    assert all(p.grad.abs().sum() > 0 for p in model.parameters())
    for name in ('utils', 'utils.registry', 'multimae', 'multimae.multimae'):
        monkeypatch.delitem(sys.modules, name)


VITDET = """
import torch
class ViT(torch.nn.Module):
    def __init__(self, **kwargs):
        super().__init__()
        self.kwargs = kwargs
"""


def test_vitdet_is_taken_from_the_folder_of_the_project(tool, tmp_path, monkeypatch):
    (tmp_path / 'vitdet').mkdir()
    (tmp_path / 'vitdet/__init__.py').write_text(VITDET)
    monkeypatch.setattr('sys.path', list(sys.path))
    monkeypatch.delitem(sys.modules, 'vitdet', raising=False)
    args = tool.parse_args([*TINY, '--vitdet', str(tmp_path)])
    assert args.models[-2:] == ['vitdet', 'vitdet-norelpos']
    found = tool.build('vitdet', args).kwargs
    assert (found['embed_dim'], found['depth'], found['num_heads']) == (192, 12, 3)
    assert found['mlp_ratio'] == 4
    # mmdet's config: every third block is global
    assert found['window_block_indexes'] == [0, 1, 3, 4, 6, 7, 9, 10]
    assert found['use_rel_pos'] is True
    monkeypatch.delitem(sys.modules, 'vitdet')


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--models', 'vitdet'], 'vitdet needs --vitdet'),
        (['--models', 'vitdet', '--vitdet', 'nowhere'], 'vitdet/ in it; got nowhere'),
        (['--models', 'multimae'], 'multimae needs --multimae'),
    ],
)
def test_code_that_is_not_there(tool, options, message):
    with pytest.raises(SystemExit, match=message):
        tool.main([*TINY, *options])


def test_one_round_has_no_spread(tool, capsys):
    with pytest.raises(SystemExit):
        tool.parse_args(['--rounds', '1'])
    assert 'a spread needs two or more' in capsys.readouterr().err
