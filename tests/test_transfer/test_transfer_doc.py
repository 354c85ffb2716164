"""docs/transfer.md: its commands run, its configs are what the command writes, its errors occur."""

import re
import shlex
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from mmmask3d.engine import LayerDecayOptimWrapperConstructor
from mmmask3d.models import Mask3DPyramid, Mask3DViT
from mmmask3d.swap.config import _STYLE  # noqa: F401  takes yapf before a fixture leaves it out

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / 'docs/transfer.md').read_text()
SHIPPED = 'mmdet::retinanet/retinanet_r50-caffe_fpn_1x_coco.py'


def commands(name):
    """Arguments of every call of a command in the page."""
    text = TEXT.replace('\\\n', ' ')
    found = re.findall(rf'^mmmask3d {name} (.*)$', text, re.M)
    return [shlex.split(line) for line in found]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """What the page takes for given: two configs, and an encoder pre-trained at 240x320."""
    pytest.importorskip('mmcv._ext', reason='mmdet needs mmcv with compiled ops')
    monkeypatch.chdir(tmp_path)
    model = nn.Module()
    model.backbone = Mask3DViT(arch='deit-tiny', img_size=(240, 320))
    torch.save(dict(state_dict=model.state_dict(), meta={}), 'encoder.pth')
    segmentation = 'mmseg::fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py'
    (tmp_path / 'my_segmentation.py').write_text(f'_base_ = {segmentation!r}\n')
    (tmp_path / 'my_detection.py').write_text(f'_base_ = {SHIPPED!r}\n')
    return tmp_path


def swap(load_tool, arguments):
    tool = load_tool('misc/swap_backbone.py')
    return tool.main([*arguments, '--size', '64', '96'])


def test_swapping_commands_run(folder, load_tool, capsys):
    found = commands('swap')
    # test_timm_encoder.py runs the one with weights to be downloaded.
    found = [c for c in found if not any(argument.startswith('timm:') for argument in c)]
    assert len(found) == 2
    assert '`mmmask3d train segmentation_mask3d.py`' in TEXT
    for arguments in found:
        assert swap(load_tool, arguments) == 0, capsys.readouterr().err
        out = arguments[arguments.index('-o') + 1]
        assert f'mmmask3d train {out}' in capsys.readouterr().out


def test_shown_config_is_the_written_one(folder, load_tool, capsys):
    assert f'`{SHIPPED}`' in TEXT
    (shown, *_) = re.findall(r'```python\n(.*?)```', TEXT, re.S)
    arguments = [SHIPPED, '--checkpoint', 'encoder.pth', '-o', 'new.py']
    assert swap(load_tool, arguments) == 0, capsys.readouterr().err
    shown, written = (re.sub(r',(\n *\))', r'\1', t) for t in (shown, Path('new.py').read_text()))
    assert written == shown  # but for the commas that ruff adds to the page


def test_options_are_those_of_the_command(load_tool, capsys):
    with pytest.raises(SystemExit):
        load_tool('misc/swap_backbone.py').parse_args(['--help'])
    known = set(re.findall(r'--[a-z-]+', capsys.readouterr().out))
    (table,) = re.findall(r'^\| Option \|.*?\n\n', TEXT, re.S | re.M)
    documented = set(re.findall(r'`(--[a-z-]+)`', table))
    assert documented == known - {'--help', '--out'}


def test_numbers_of_weights():
    (line,) = re.findall(r'ViT-S with its pyramid.*?backbones\.md', TEXT, re.S)
    numbers = re.findall(r'\d+\.\d', line)
    with torch.device('meta'):
        models = [Mask3DPyramid(arch=arch) for arch in ('deit-small', 'deit-tiny', 'base', 'large')]
    millions = [f'{sum(p.numel() for p in m.parameters()) / 1e6:.1f}' for m in models]
    assert [numbers[0], *numbers[2:]] == millions


SECTION = TEXT.split('## Errors and their cures')[1].split('\n## ')[0]
ERRORS = re.findall(r'^\| `([^|]+)` \| [^|]+ \| [^|]+ \|$', SECTION, re.M)


def raise_missing_delete():
    Mask3DPyramid(depth=50)


def raise_missing_prefix():
    with DefaultScope.overwrite_default_scope('mmseg'):
        MODELS.build(dict(type='Mask3DPyramid'))


def load(arch, **options):
    model = Mask3DPyramid(
        arch=arch, img_size=64, init_cfg=dict(type='Pretrained', checkpoint='e.pth', **options)
    )
    model.init_weights()


def raise_other_architecture():
    load('deit-small')


def raise_wrong_prefix():
    load('deit-tiny', prefix='encoder.')


def raise_reaching():
    Mask3DPyramid(arch='deit-tiny').layer4  # noqa: B018


def raise_other_channels():
    maps = Mask3DPyramid(arch='deit-tiny', img_size=32)(torch.zeros(1, 3, 32, 32))
    nn.Conv2d(2048, 8, 1)(maps[2])


def raise_unknown_package():
    from mmengine.config.utils import MODULE2PACKAGE

    kept, MODULE2PACKAGE['mmseg'] = MODULE2PACKAGE['mmseg'], 'mmsegmentation'  # as mmengine has it
    try:
        Path('a.py').write_text("_base_ = 'mmseg::fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py'")
        Config.fromfile('a.py')
    finally:
        MODULE2PACKAGE['mmseg'] = kept


def raise_unfit_keys():
    model = nn.Module()
    model.backbone = Mask3DViT(arch='deit-tiny', img_size=32)
    LayerDecayOptimWrapperConstructor(
        dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-4, weight_decay=0.05)),
        dict(layer_decay_rate=0.7, custom_keys=dict(absolute_pos_embed=dict(decay_mult=0.0))),
    )(model)


def raise_bfloat16():
    ops = pytest.importorskip('mmcv.ops', reason='detectors need the compiled ops')
    boxes = torch.tensor([[0.0, 1.0, 1.0, 6.0, 6.0]]).bfloat16()
    ops.roi_align(torch.ones(1, 4, 8, 8).bfloat16(), boxes, 2)


RAISED = {
    "not implemented for 'BFloat16'": raise_bfloat16,
    'Mask3DPyramid is no ResNet and has no depth': raise_missing_delete,
    'Mask3DPyramid is not in the mmseg::model registry': raise_missing_prefix,
    'does not fill this Mask3DViT': raise_other_architecture,
    'no key starts with': raise_wrong_prefix,
    "'Mask3DPyramid' object has no attribute": raise_reaching,
    'expected input` ... `to have 2048 channels': raise_other_channels,
    'mmsegmentation is not installed': raise_unknown_package,
    'fit no trainable parameter': raise_unfit_keys,
}
NEEDS_PROCESSES = {'Expected to have finished reduction in the prior iteration'}


def test_every_message_is_tried():
    assert set(ERRORS) == set(RAISED) | NEEDS_PROCESSES


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('message', RAISED)
def test_messages(message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(Mask3DViT(arch='deit-tiny', img_size=64).state_dict(), 'e.pth')
    pattern = '.*'.join(re.escape(part) for part in message.split('` ... `'))
    with pytest.raises(Exception, match=pattern):
        RAISED[message]()
