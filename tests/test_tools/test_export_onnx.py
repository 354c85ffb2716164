"""ONNX files give what torch gives; what cannot be exported is refused and leaves nothing."""

import numpy as np
import onnxruntime
import pytest
import torch
from mmengine.config import Config
from torch import nn

from mmmask3d.apis import get_model
from mmmask3d.apis.onnx_export import OnnxExportError, write_onnx
from mmmask3d.models import Mask3DViT

SMALL = dict(embed_dims=48, num_layers=2, num_heads=3, feedforward_channels=96)
TIMM = dict(
    type='mmmask3d.TimmViT',
    model='vit_small_patch14_reg4_dinov2',
    img_size=(48, 80),
    patch_size=16,
    model_args=dict(embed_dim=48, depth=2, num_heads=3),
)
PYRAMID = dict(type='mmmask3d.Mask3DPyramid', encoder=TIMM, out_channels=(8, 8, 16, 16))
UPERNET = dict(
    type='UPerHead', in_channels=[8, 8, 16, 16], in_index=[0, 1, 2, 3], channels=16, num_classes=5,
    norm_cfg=dict(type='SyncBN'),
)  # fmt: skip
VIT = dict(type='mmmask3d.Mask3DViT', arch=SMALL, img_size=(48, 80), patch_size=8)
LINEAR = dict(
    type='FCNHead', in_channels=48, in_index=-1, channels=48, num_convs=0, kernel_size=1,
    concat_input=False, num_classes=5, norm_cfg=None,
)  # fmt: skip


def run(path, images):
    return onnxruntime.InferenceSession(path).run(None, {'images': images.numpy()})


@pytest.fixture
def export(load_tool, tmp_path, capsys):
    """Function that runs the command; returns its code and what it said."""
    tool = load_tool('deployment/export_onnx.py')

    def export(config, checkpoint, *options):
        out = str(tmp_path / 'out.onnx')
        code = tool.main([str(config), str(checkpoint), out, '--size', '52', '90', *options])
        return code, capsys.readouterr()

    return export


@pytest.fixture
def trained(tmp_path):
    """Function that writes a config and a checkpoint of its model; returns them and the model."""

    def write(model, scope='mmseg'):
        path, file = tmp_path / 'config.py', tmp_path / 'run.pth'
        Config(dict(default_scope=scope, model=model)).dump(path)
        torch.manual_seed(0)
        built = get_model(str(path))
        for p in built.parameters():
            p.data += 0.1 * torch.randn(p.shape)
        torch.save({'state_dict': built.state_dict(), 'meta': {}}, file)
        return path, file, built

    return write


def segmentor(backbone, head):
    preprocessor = dict(type='SegDataPreProcessor', mean=[1, 2, 3], std=[4, 5, 6])
    return dict(
        type='EncoderDecoder', data_preprocessor=preprocessor, backbone=backbone,
        decode_head=head, train_cfg=dict(), test_cfg=dict(mode='whole'),
    )  # fmt: skip


@pytest.mark.parametrize('parts', [(VIT, LINEAR), (PYRAMID, UPERNET)], ids=['linear', 'UPerNet'])
def test_segmentors(parts, trained, export, tmp_path):
    config, file, model = trained(segmentor(*parts))
    code, said = export(config, file, '--dynamic-batch')
    assert code == 0, said.err
    assert 'images (B, 3, 52, 90) to logits (5, ' in said.out
    assert 'less (1, 2, 3), divided by (4, 5, 6)' in said.out
    images = torch.rand(2, 3, 52, 90)
    (logits,) = run(tmp_path / 'out.onnx', images)
    with torch.no_grad():
        expected = model(images, mode='tensor')
    assert expected.std() > 0.01
    np.testing.assert_allclose(logits, expected.numpy(), rtol=1e-4, atol=1e-4)


def test_the_backbone_of_a_detector(trained, export, tmp_path):
    neck = dict(type='FPN', in_channels=[8, 8, 16, 16], out_channels=8, num_outs=4)
    head = dict(type='RPNHead', in_channels=8)
    parts = dict(backbone=PYRAMID, neck=neck, rpn_head=head)
    model = dict(type='RPN', **parts, train_cfg=None, test_cfg=dict(rpn=dict()))
    config, file, model = trained(model, 'mmdet')
    code, said = export(config, file)
    assert code == 1
    assert 'RPN is neither a pre-trainer nor a segmentor of mmseg' in said.err
    assert not list(tmp_path.glob('*.onnx*'))
    code, said = export(config, file, '--backbone')
    assert code == 0, said.err
    images = torch.rand(1, 3, 52, 90)
    found = run(tmp_path / 'out.onnx', images)
    assert [m.shape for m in found] == [(1, 8, 13, 23), (1, 8, 7, 12), (1, 16, 4, 6), (1, 16, 2, 3)]
    for ours, theirs in zip(found, model.backbone(images), strict=True):
        np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-4, atol=1e-4)


def test_an_exported_encoder_with_windows(tiny_config, export, load_tool, tmp_path):
    """The file of the encoder alone, and a setting of the config that it does not hold."""
    cfg = Config.fromfile(tiny_config)
    model, file, encoder = get_model(cfg), tmp_path / 'run.pth', str(tmp_path / 'encoder.pth')
    torch.save({'state_dict': model.state_dict(), 'meta': {'cfg': cfg.pretty_text}}, file)
    assert load_tool('model_converters/extract_backbone.py').main([str(file), encoder]) == 0
    options = ['window_size=3', 'global_attn_indexes=(1,)', 'out_indices=(0,1)']
    options = [f'model.backbone.{option}' for option in options]
    code, said = export(tiny_config, encoder, '--cfg-options', *options)
    assert code == 0, said.err
    assert 'less (123.675, 116.28, 103.53)' in said.out
    vit = {k: v for k, v in cfg.model.backbone.items() if k != 'type'}
    more = dict(out_indices=(0, 1), window_size=3, global_attn_indexes=(1,))
    windowed = Mask3DViT(**{**vit, **more}).eval()
    windowed.load_state_dict(model.backbone.state_dict())
    images = torch.rand(1, 3, 52, 90)
    for ours, theirs in zip(run(tmp_path / 'out.onnx', images), windowed(images), strict=True):
        np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-4, atol=1e-4)


class Drifting(nn.Module):
    def forward(self, x):
        self.calls = getattr(self, 'calls', 0) + 1
        return (x * self.calls,)


class Branching(nn.Module):
    def forward(self, x):
        return (x,) if x.sum() > 0 else (-x,)


class Several(nn.Module):
    def forward(self, x):
        return ([x, x],)


@pytest.mark.parametrize(
    ('module', 'message'),
    [
        (Drifting, 'onnxruntime gives other values than torch; they differ by'),
        (Branching, r'torch.onnx does not export this model \(GuardOnDataDependentSymNode: Could'),
        (Several, 'Several gives a list, expected a map'),
    ],
)
def test_nothing_is_written_where_it_would_be_wrong(module, message, tmp_path):
    out = tmp_path / 'old.onnx'
    out.write_text('an older file')
    with pytest.raises(OnnxExportError, match=message):
        write_onnx(module(), out, (8, 8))
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [('old.onnx', 'an older file')]


def test_a_wrong_checkpoint_or_name_is_told(trained, export, tmp_path):
    config, file, _ = trained(segmentor(VIT, LINEAR))
    state = torch.load(file)['state_dict']
    torch.save({k: v for k, v in state.items() if 'conv_seg' not in k}, file)
    code, said = export(config, file)
    assert code == 1
    assert 'missing in the file (2): decode_head.conv_seg.weight' in said.err
    with pytest.raises(OnnxExportError, match=r'out\.txt: the suffix must be \.onnx'):
        write_onnx(nn.Identity(), tmp_path / 'out.txt', (8, 8))
