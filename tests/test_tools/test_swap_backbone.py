"""The command that swaps a backbone: what it writes, says, and leaves unwritten."""

import os
import signal
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mmmask3d.engine.layer_decay import LayerDecayOptimWrapperConstructor
from mmmask3d.models import Mask3DViT
from mmmask3d.swap import proof as swap_proof
from mmmask3d.swap import rewriting

ROOT = Path(__file__).parents[2]
ARCH = dict(embed_dims=48, num_layers=2, num_heads=3, feedforward_channels=96)
# A segmentor as a user may have it: dilated, with weights of its ResNet, SGD and a final rate.
CONFIG = """
head = dict(channels=8, num_classes=3, norm_cfg=dict(type='SyncBN'), align_corners=False)
model = dict(
    type='EncoderDecoder',
    pretrained='open-mmlab://resnet50_v1c',
    data_preprocessor=dict(
        type='SegDataPreProcessor', mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0],
        size=(512, 512), pad_val=0, seg_pad_val=255),
    backbone=dict(type='ResNetV1c', depth=18, strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4)),
    decode_head=dict(type='FCNHead', in_channels=512, in_index=3, num_convs=1, **head),
    auxiliary_head=dict(type='FCNHead', in_channels=256, in_index=2, num_convs=1, **head),
    test_cfg=dict(mode='whole'),
)
custom_imports = dict(imports=['json'], allow_failed_imports=False)
default_scope = 'mmseg'
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01, momentum=0.9))
param_scheduler = [dict(type='PolyLR', eta_min=1e-4, power=0.9, begin=0, end=100, by_epoch=False)]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=100)
"""


@pytest.fixture
def tool(load_tool):
    return load_tool('misc/swap_backbone.py')


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A config and an encoder that says how it was built."""
    backbone = dict(type='Mask3DViT', arch=ARCH, img_size=(48, 64), patch_size=16)
    encoder = Mask3DViT(**{k: v for k, v in backbone.items() if k != 'type'})
    torch.save(
        dict(state_dict=encoder.state_dict(), meta=dict(backbone=backbone)), tmp_path / 'e.pth'
    )
    (tmp_path / 'mine.py').write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refuse(self, params, module, **kwargs):
    raise TypeError('no backbone that it knows')


def files(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != '__pycache__')


SWAP = ['mine.py', '--checkpoint', 'e.pth', '-o', 'new.py', '--size', '64', '96']


def test_written_and_reported(tool, folder, capsys):
    assert tool.main(SWAP) == 0
    said = capsys.readouterr().out
    assert 'maps for 64x96 pixels as before: 64x16x24, 128x8x12, 256x8x12, 512x8x12' in said
    assert 'one training step: loss' in said
    assert 'new.py: written. Train it with: mmmask3d train new.py' in said
    assert files(folder) == ['e.pth', 'mine.py', 'new.py']

    cfg = Config.fromfile('new.py')  # plain mmengine
    assert cfg.model.backbone.to_dict() == dict(
        type='mmmask3d.Mask3DPyramid', arch=ARCH, patch_size=16, img_size=(48, 64),
        out_strides=(4, 8, 8, 8), out_channels=(64, 128, 256, 512), out_indices=(0, 1, 2, 3),
        drop_path_rate=0.1, window_size=14, global_attn_indexes=(-1,),
        init_cfg=dict(type='Pretrained', checkpoint='e.pth'),
    )  # fmt: skip
    assert cfg.model.pretrained is None
    assert cfg.model.data_preprocessor.mean == [123.675, 116.28, 103.53]
    assert cfg.model.data_preprocessor.size == (512, 512)  # theirs
    assert cfg.model.decode_head.norm_cfg.type == 'SyncBN'  # theirs
    assert cfg.optim_wrapper.optimizer.type == 'AdamW'
    assert [entry.type for entry in cfg.param_scheduler] == ['LinearLR', 'PolyLR']
    assert cfg.custom_imports.imports == ['json']
    assert cfg.find_unused_parameters is True  # the heads take the last two levels
    text = (folder / 'new.py').read_text()
    assert "_base_ = 'mine.py'" in text
    assert 'custom_imports' not in text
    assert '# No neck or head uses levels 0, 1 of the pyramid' in text


def test_weights_are_loaded_in_the_proof(tool, folder, capsys, monkeypatch):
    """What the proof predicts with is the encoder of the file."""
    seen = []
    monkeypatch.setattr(
        'mmmask3d.swap.proof.predict_once',
        lambda model, *_: seen.append(model.backbone.vit.state_dict()) or model.backbone(
            torch.zeros(1, 3, 32, 32)
        ),
    )  # fmt: skip
    assert tool.main(SWAP) == 0
    wanted = torch.load('e.pth', weights_only=True)['state_dict']
    (found,) = seen
    for key, value in wanted.items():
        assert torch.equal(found[key], value), key


def test_backbone_only(tool, folder, capsys):
    assert tool.main([*SWAP, '--backbone-only']) == 0
    said = capsys.readouterr().out
    for key in ('pretrained', 'data_preprocessor', 'optim_wrapper', 'param_scheduler'):
        assert f'{key} = ' in said
    assert said.count('note: left as it is') == 5
    cfg = Config.fromfile('new.py')
    assert cfg.model.backbone.type == 'mmmask3d.Mask3DPyramid'
    assert cfg.optim_wrapper.optimizer.type == 'SGD'
    assert cfg.model.data_preprocessor.std == [1.0, 1.0, 1.0]


def refused(tool, capsys, folder, *arguments):
    before = files(folder)
    assert tool.main(list(arguments)) == 1
    assert files(folder) == before
    return capsys.readouterr().err


def test_nothing_is_overwritten(tool, folder, capsys):
    (folder / 'new.py').write_text('kept = 1')
    assert 'new.py exists' in refused(tool, capsys, folder, *SWAP)
    assert (folder / 'new.py').read_text() == 'kept = 1'


def test_mistakes_leave_nothing_behind(tool, folder, capsys, monkeypatch):
    for name, text in dict(
        broken='model = dict(',
        importing=CONFIG.replace("['json']", "['not_there']"),
        orphan="_base_ = 'gone.py'",
        misspelt=CONFIG.replace('depth=18', 'depht=18'),
        renamed=CONFIG,
    ).items():
        (folder / f'{name}.py').write_text(text)
    monkeypatch.setattr(LayerDecayOptimWrapperConstructor, 'add_params', refuse)
    for arguments, message in (
        (['none.py', '-o', 'new.py'], 'none.py: config file not found'),
        (['mine.py', '-o', 'missing/new.py'], 'missing: no such folder'),
        (['mine.py', '--checkpoint', 'none.pth', '-o', 'new.py'], 'none.pth'),
        ([*SWAP, '--arch', 'base'], "and 'base' was asked for"),
        ([*SWAP, '--path', 'model.detector.backbone'], 'Found: model.backbone (ResNetV1c)'),
        ([*SWAP, '--arch', 'bse'], "arch 'bse' is unknown; expected one of b, base"),
        (['broken.py', '-o', 'new.py'], 'broken.py: the config cannot be read: SyntaxError'),
        (['importing.py', '-o', 'new.py'], 'importing.py: the config cannot be read: ImportError'),
        (['orphan.py', '-o', 'new.py'], 'orphan.py: the config cannot be read: FileNotFoundError'),
        (['misspelt.py', '-o', 'new.py'], 'old backbone ResNetV1c cannot be built'),
        (['mmdett::a/b.py', '-o', 'new.py'], 'mmdett::a/b.py: there is no such package'),
        (['renamed.py', '-o', 'new.py', '--arch', 'deit-tiny'], 'optim_wrapper does not suit'),
    ):
        assert message in refused(tool, capsys, folder, *arguments)


def test_a_model_that_needs_its_resnet(tool, folder, capsys):
    (folder / 'reaching.py').write_text(
        'from mmseg.models import EncoderDecoder\n'
        'from mmengine.registry import MODELS\n'
        "@MODELS.register_module(force=True)\n"
        'class Reaching(EncoderDecoder):\n'
        '    def extract_feat(self, inputs):\n'
        '        self.backbone.layer4[0]\n'
        '        return super().extract_feat(inputs)\n'
    )  # fmt: skip
    text = CONFIG.replace("'EncoderDecoder'", "'mmengine.Reaching'").replace(
        "['json']", "['reaching']"
    )
    (folder / 'mine.py').write_text(text)
    sys.path.insert(0, str(folder))
    try:
        said = refused(tool, capsys, folder, *SWAP)
    finally:
        sys.path.remove(str(folder))
        sys.modules.pop('reaching', None)
    assert "AttributeError: 'Mask3DPyramid' object has no attribute 'layer4'" in said
    assert 'it needs more of ResNetV1c than the maps of its stages' in said


def test_a_config_that_does_not_run_anyway(tool, folder, capsys):
    (folder / 'mine.py').write_text(CONFIG.replace('in_channels=512', 'in_channels=500'))
    said = refused(tool, capsys, folder, *SWAP)
    assert 'write the config with --skip-run' in said
    assert tool.main([*SWAP, '--skip-run']) == 0
    assert 'the model was not run' in capsys.readouterr().out
    assert Config.fromfile('new.py').find_unused_parameters is True


def test_one_after_the_other_in_one_model(tool, folder, capsys):
    """The second backbone is compared with the one it replaces, not with the first."""
    text = CONFIG.replace(
        "model = dict(\n    type='EncoderDecoder',", "model = dict(\n    type='mmengine.Two',"
    ).replace("['json']", "['two']")
    text = text.replace(
        '    backbone=dict(',
        "    other_backbone=dict(type='ResNet', depth=18),\n    backbone=dict(",
    )
    (folder / 'mine.py').write_text(text)
    (folder / 'two.py').write_text(
        'from mmseg.models import EncoderDecoder\n'
        'from mmengine.registry import MODELS\n'
        '@MODELS.register_module(force=True)\n'
        'class Two(EncoderDecoder):\n'
        '    def __init__(self, other_backbone, **kwargs):\n'
        '        super().__init__(**kwargs)\n'
        '        self.other_backbone = MODELS.build(other_backbone)\n'
        '    def extract_feat(self, inputs):\n'
        '        a, b = super().extract_feat(inputs), self.other_backbone(inputs)\n'
        '        return [x + y.mean() for x, y in zip(a, b)]\n'
    )
    sys.path.insert(0, str(folder))
    try:
        assert tool.main(SWAP) == 0, capsys.readouterr().err
        second = ['new.py', *SWAP[1:3], '-o', 'both.py', *SWAP[5:]]
        done = tool.main([*second, '--path', 'model.other_backbone'])
        assert done == 0, capsys.readouterr().err
    finally:
        sys.path.remove(str(folder))
        sys.modules.pop('two', None)
    model = Config.fromfile('both.py', import_custom_modules=False).model
    assert model.backbone.out_strides == (4, 8, 8, 8)
    assert model.other_backbone.out_strides == (4, 8, 16, 32)


def test_training_alone_can_be_tried(tool, folder, capsys, monkeypatch):
    monkeypatch.setattr(swap_proof, 'predict_once', lambda *_: pytest.fail('it predicts'))
    assert tool.main([*SWAP, '--skip-predict']) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert 'was not asked to predict' in said
    assert 'one training step: loss' in said


def test_a_kill_leaves_nothing_behind(tool, folder, monkeypatch):
    monkeypatch.setattr(rewriting, 'run', lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    before = files(folder)
    with pytest.raises(SystemExit):
        tool.main(SWAP)
    assert files(folder) == before
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
