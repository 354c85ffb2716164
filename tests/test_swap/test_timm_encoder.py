"""A config's ResNet gives way to an encoder of timm, by name or from an exported file."""

import pytest
import torch
from mmengine.config import Config
from timm.layers import resample_patch_embed

from mmmask3d.models import TimmViT
from mmmask3d.swap import proof as swap_proof
from mmmask3d.swap.backbone import SwapError
from mmmask3d.swap.encoder_file import encoder_settings

SMALL = dict(embed_dim=48, depth=2, num_heads=3)
# Two users' models: a dilated segmentor with the colours of caffe, a detector with an FPN.
SEGMENTOR = """
norm = dict(type='SyncBN')
model = dict(
    type='EncoderDecoder',
    pretrained='open-mmlab://resnet50_v1c',
    data_preprocessor=dict(
        type='SegDataPreProcessor', mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0],
        size=(512, 512), pad_val=0, seg_pad_val=255),
    backbone=dict(type='ResNetV1c', depth=18, strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4)),
    decode_head=dict(
        type='FCNHead', in_channels=512, in_index=3, num_convs=1, channels=8, num_classes=3,
        norm_cfg=norm),
    test_cfg=dict(mode='whole'),
)
default_scope = 'mmseg'
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01, momentum=0.9))
train_cfg = dict(type='IterBasedTrainLoop', max_iters=100)
"""
DETECTOR = """
_base_ = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'
train_pipeline = [dict(type='Resize', scale=(320, 240))]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
"""


@pytest.fixture
def swap(load_tool, tmp_path, monkeypatch, capsys):
    """Function that swaps a user's backbone: the new config, and what the command said."""
    (tmp_path / 'mmseg.py').write_text(SEGMENTOR)
    (tmp_path / 'mmdet.py').write_text(DETECTOR)
    monkeypatch.chdir(tmp_path)
    tool = load_tool('misc/swap_backbone.py')

    def run(config, encoder, *options):
        arguments = [f'{config}.py', '--encoder', encoder, '-o', 'new.py', '--size', '64', '96']
        code = tool.main([*arguments, *options])
        said = capsys.readouterr()
        assert code == 0, said.err
        return Config.fromfile('new.py'), said.out

    return run


@pytest.fixture
def no_network(monkeypatch):
    import huggingface_hub

    def fails(*args, **kwargs):
        raise OSError('no network')

    monkeypatch.setattr(huggingface_hub, 'hf_hub_download', fails)


def export(load_tool, tmp_path, model, **options):
    """An exported encoder of width 48, and the model."""
    backbone = dict(type='mmmask3d.TimmViT', model=model, model_args=SMALL, **options)
    torch.manual_seed(0)
    encoder = TimmViT(**{k: v for k, v in backbone.items() if k != 'type'})
    state = {f'backbone.{k}': v for k, v in encoder.state_dict().items()}
    cfg = Config(dict(model=dict(type='X', backbone=backbone))).pretty_text
    torch.save(dict(state_dict=state, meta=dict(cfg=cfg)), tmp_path / 'run.pth')
    tool = load_tool('model_converters/extract_backbone.py')
    assert tool.main([str(tmp_path / 'run.pth'), str(tmp_path / 'e.safetensors')]) == 0
    return 'e.safetensors', encoder


@pytest.mark.parametrize('config', ['mmseg', 'mmdet'])
def test_by_name_without_a_network(config, swap, no_network):
    cfg, said = swap(config, 'timm:vit_small_patch16_dinov3.lvd1689m')
    assert cfg.model.backbone.encoder.to_dict() == dict(
        type='mmmask3d.TimmViT', model='vit_small_patch16_dinov3.lvd1689m', pretrained=True,
        img_size=(256, 256), patch_size=16, drop_path_rate=0.1,
    )  # fmt: skip
    assert 'run with random ones: hf://timm/vit_small_patch16_dinov3.lvd1689m' in said
    assert 'one training step: loss' in said
    assert cfg.model.data_preprocessor.mean == [123.675, 116.28, 103.53]
    assert cfg.model.data_preprocessor.bgr_to_rgb
    assert cfg.optim_wrapper.paramwise_cfg.layer_decay_rate == 0.75


@pytest.mark.parametrize(
    ('model', 'encoder', 'mean', 'std'),
    [
        ('vit_small_patch14_reg4_dinov2', dict(img_size=(42, 70)), 123.675, 58.395),
        ('vit_base_patch16_clip_224', dict(img_size=(48, 80)), 122.771, 68.501),
        ('vit_base_patch16_siglip_256.v2_webli', dict(img_size=(48, 80)), 127.5, 127.5),
        ('vit_small_patch16_dinov3', dict(img_size=(48, 80)), 123.675, 58.395),
    ],
)
def test_an_exported_file_fills_the_model(
    model, encoder, mean, std, swap, load_tool, tmp_path, monkeypatch
):
    file, wanted = export(load_tool, tmp_path, model, **encoder)
    seen = []
    predict = swap_proof.predict_once
    monkeypatch.setattr(
        swap_proof, 'predict_once',
        lambda m, *rest: seen.append(m.backbone.vit.trunk.state_dict()) or predict(m, *rest),
    )  # fmt: skip
    windows = [] if 'dinov3' in model else ['--window-size', '2']
    cfg, said = swap('mmseg', file, *windows)
    pyramid = cfg.model.backbone
    assert pyramid.type == 'mmmask3d.Mask3DPyramid'
    assert (pyramid.encoder.model, pyramid.encoder.pretrained) == (model, file)
    # Patches of 14 pixels become 16, on the grid of 3x5 patches that the file has.
    assert (pyramid.encoder.patch_size, pyramid.encoder.img_size) == (16, (48, 80))
    assert pyramid.encoder.get('window_size', 0) == (2 if windows else 0)
    assert cfg.model.data_preprocessor.mean[0] == pytest.approx(mean, abs=1e-3)
    assert cfg.model.data_preprocessor.std[0] == pytest.approx(std, abs=1e-3)
    (found,) = seen
    expected = dict(wanted.trunk.state_dict())
    if wanted.patch_size == 14:
        key = 'patch_embed.proj.weight'
        expected[key] = resample_patch_embed(expected[key], [16, 16])
    torch.testing.assert_close(dict(found), expected)
    assert 'windows' in said


def test_what_is_refused(no_network):
    with pytest.raises(SwapError, match=r'no model of timm'):
        encoder_settings('timm:vit_small_patch16_dinov9')
    with pytest.raises(SwapError, match=r'leave --arch out'):
        encoder_settings('timm:vit_small_patch16_dinov3', 'base')


def test_windows_with_rotary_positions_are_refused(load_tool, tmp_path, monkeypatch, capsys):
    (tmp_path / 'mine.py').write_text(SEGMENTOR)
    monkeypatch.chdir(tmp_path)
    tool = load_tool('misc/swap_backbone.py')
    encoder = ['--encoder', 'timm:vit_small_patch16_dinov3', '--window-size', '14']
    assert tool.main(['mine.py', *encoder, '-o', 'new.py']) == 1
    assert 'rotary positions' in capsys.readouterr().err
    assert not (tmp_path / 'new.py').exists()
