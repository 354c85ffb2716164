"""The command converts, verifies before it writes, says what it did, and writes all or nothing."""

import argparse
import re
from functools import partial

import pytest
import torch
from mmengine.config import Config
from mmpretrain.models import VisionTransformer
from safetensors.torch import load_file, save_file

from mmmask3d.checkpoints.files import load_checkpoint_file
from mmmask3d.checkpoints.locations import read_checkpoint
from mmmask3d.models import Mask3DPyramid, Mask3DViT
from mmmask3d.models import encoder_record as record
from mmmask3d.weights import export
from mmmask3d.weights.formats import to_timm

ARCH = dict(embed_dims=24, num_layers=2, num_heads=3, feedforward_channels=48)
SIZES = dict(arch=ARCH, img_size=24, patch_size=8)


@pytest.fixture
def tool(load_tool):
    return load_tool('model_converters/convert_weights.py')


@pytest.fixture(scope='module')
def encoder():
    torch.manual_seed(0)
    model = Mask3DViT(**SIZES)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.3)
    return model.eval()


@pytest.fixture
def mae_file(encoder, tmp_path):
    """As facebookresearch/mae writes its training checkpoints."""
    weights = {**to_timm(encoder.state_dict()), 'mask_token': torch.zeros(1, 1, 8)}
    weights |= {'decoder_pred.bias': torch.zeros(8)}
    path = tmp_path / 'checkpoint-799.pth'
    torch.save({'model': weights, 'epoch': 799, 'args': argparse.Namespace(lr=1e-3)}, path)
    return path


def run(tool, capsys, *arguments):
    code = tool.main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def same(found, expected):
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(found[key], value), key


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_from_mae_into_both_models(tool, mae_file, encoder, tmp_path, capsys, suffix):
    out = tmp_path / f'encoder{suffix}'
    code, said, error = run(tool, capsys, mae_file, out, '--num-heads', 3)
    assert (code, error) == (0, '')
    assert 'from mae, patch grid 3x3' in said
    assert "left out: MAE's decoder (1 tensors), mask token (1 tensors)" in said
    assert "input: RGB, normalised with ImageNet's mean" in said
    # The settings it prints build the model that it fills.
    settings = eval(f'dict({said.split("build with: ")[1].strip()})')
    for kind in (Mask3DViT, VisionTransformer):
        init_cfg = dict(type='Pretrained', checkpoint=str(out))
        model = kind(**settings, img_size=24, init_cfg=init_cfg)
        model.init_weights()
        same(model.state_dict(), encoder.state_dict())
    meta = record.read_meta(load_checkpoint_file(out))
    assert meta['converted_from'] == 'mae'
    assert meta['source_file'] == 'checkpoint-799.pth'
    assert str(tmp_path) not in str(meta)


def test_to_timm_and_back_and_to_mmpretrain(tool, encoder, tmp_path, capsys):
    source, timm_file = tmp_path / 'encoder.pth', tmp_path / 'timm.safetensors'
    backbone = dict(SIZES, type='mmmask3d.Mask3DViT')
    meta = {'format': export.FORMAT, 'backbone': backbone, 'patch_grid': (3, 3)}
    export.write_encoder(source, encoder.state_dict(), meta)
    code, said, _ = run(tool, capsys, source, timm_file, '--to', 'timm')
    assert code == 0
    assert 'timm' in said.splitlines()[1]
    assert set(load_file(timm_file)) == set(to_timm(encoder.state_dict()))

    back, whole = tmp_path / 'back.safetensors', tmp_path / 'mmpretrain.pth'
    assert run(tool, capsys, timm_file, back, '--num-heads', 3)[0] == 0
    same(load_checkpoint_file(back)['state_dict'], encoder.state_dict())
    assert run(tool, capsys, timm_file, whole, '--to', 'mmpretrain', '--num-heads', 3)[0] == 0
    loaded = read_checkpoint(whole)['state_dict']
    same(loaded, {f'backbone.{k}': v for k, v in encoder.state_dict().items()})
    init_cfg = dict(type='Pretrained', checkpoint=str(whole), prefix='backbone.')
    plain = VisionTransformer(**SIZES, init_cfg=init_cfg)
    plain.init_weights()
    same(plain.state_dict(), encoder.state_dict())


def test_another_patch_size(tool, encoder, tmp_path, capsys):
    """The record of the file has the new size; positions stay as they are."""
    timm_file, out = tmp_path / 'timm.safetensors', tmp_path / 'encoder.safetensors'
    save_file({k: v.contiguous() for k, v in to_timm(encoder.state_dict()).items()}, timm_file)
    code, said, error = run(tool, capsys, timm_file, out, '--num-heads', 3, '--patch-size', 12)
    assert code == 0, error
    assert 'patch embedding resampled from patches of 8 pixels to 12' in said
    written = load_checkpoint_file(out)
    meta = record.read_meta(written)
    assert (meta['backbone']['patch_size'], meta['patch_grid']) == (12, [3, 3])
    assert meta['backbone']['img_size'] == [36, 36]
    patches = torch.randn(4, 3, 8, 8)
    larger = torch.nn.functional.interpolate(patches, size=(12, 12), mode='bicubic', antialias=True)
    weight = written['state_dict'].pop('patch_embed.projection.weight')
    found = torch.nn.functional.conv2d(larger, weight)
    own = encoder.patch_embed.projection.weight
    torch.testing.assert_close(found, torch.nn.functional.conv2d(patches, own), rtol=0, atol=1e-4)
    expected = dict(encoder.state_dict())
    expected.pop('patch_embed.projection.weight')
    same(written['state_dict'], expected)


def test_the_same_call_writes_the_same_bytes(tool, mae_file, tmp_path, capsys):
    outs = [tmp_path / 'a.safetensors', tmp_path / 'b.safetensors']
    for out in outs:
        assert run(tool, capsys, mae_file, out, '--num-heads', 3)[0] == 0
    assert outs[0].read_bytes() == outs[1].read_bytes()


def test_a_whole_pretraining_checkpoint_to_timm(tool, encoder, tmp_path, capsys):
    """Heads and eps come from the config in the checkpoint."""
    backbone = dict(SIZES, type='mmmask3d.Mask3DViT', norm_cfg=dict(type='LN', eps=1e-3))
    source = tmp_path / 'epoch_1.pth'
    cfg = f'model = dict(type="mmmask3d.MaskedRGBD", backbone={backbone})'
    state = {f'backbone.{k}': v for k, v in encoder.state_dict().items()}
    state['neck.x'] = torch.zeros(1)
    torch.save({'state_dict': state, 'meta': {'cfg': cfg, 'epoch': 1}}, source)
    code, said, _ = run(tool, capsys, source, tmp_path / 'timm.pth', '--to', 'timm')
    assert code == 0
    assert 'layer norms have eps 0.001' in said
    assert 'neck.*, beside the encoder' in said


@pytest.mark.parametrize(
    ('change', 'options', 'message'),
    [
        ({}, [], '--num-heads'),
        ({}, ['--num-heads=3', '--from', 'multimae'], 'has the names of mae, not of multimae'),
        ({'blocks.1.attn.qkv.bias': None}, ['--num-heads=3'], 'does not load into'),
        ({'blocks.0.norm1.bias': torch.full((24,), float('inf'))}, ['--num-heads=3'], 'infinity'),
    ],
)
def test_failures_write_nothing(tool, mae_file, tmp_path, capsys, change, options, message):
    checkpoint = torch.load(mae_file, weights_only=False)
    weights = {**checkpoint['model'], **change}
    torch.save({'model': {k: v for k, v in weights.items() if v is not None}}, mae_file)
    out = tmp_path / 'encoder.pth'
    out.write_bytes(b'old')
    code, said, error = run(tool, capsys, mae_file, out, *options)
    assert (code, said) == (1, '')
    assert re.search(message, error), error
    assert out.read_bytes() == b'old'
    assert sorted(p.name for p in tmp_path.iterdir()) == ['checkpoint-799.pth', 'encoder.pth']


def test_init_cfg_with_a_foreign_file_names_the_command(tool, mae_file, tmp_path, capsys):
    """Converting is a step of its own; the message is the step."""
    for path in (mae_file, tmp_path / 'timm.safetensors'):
        if path.suffix == '.safetensors':
            weights = torch.load(mae_file, weights_only=False)['model']
            weights = {k: v.contiguous() for k, v in weights.items() if 'mask' not in k}
            save_file({k: v for k, v in weights.items() if 'decoder' not in k}, path)
        model = Mask3DViT(**SIZES, init_cfg=dict(type='Pretrained', checkpoint=str(path)))
        with pytest.raises((ValueError, RuntimeError)) as caught:
            model.init_weights()
        (command,) = re.findall(r'mmmask3d convert-weights (.*)', str(caught.value))
        source, out = command.split()
        assert source == str(path)
        out = tmp_path / out
        assert run(tool, capsys, source, out, '--num-heads', 3)[0] == 0
        model = Mask3DViT(**SIZES, init_cfg=dict(type='Pretrained', checkpoint=str(out)))
        model.init_weights()


# ---------------------------------------------------------------- against timm itself


def timm_models():
    from timm.layers import SwiGLUPacked
    from timm.models.vision_transformer import VisionTransformer as Timm
    from torch import nn

    sizes = dict(img_size=24, patch_size=8, embed_dim=24, depth=2, num_heads=3, num_classes=5)
    return {
        'plain': lambda: Timm(**sizes),
        'layer scale, no position of the class token': lambda: Timm(
            **sizes, init_values=0.1, no_embed_class=True
        ),
        'average pooling, no class token': lambda: Timm(
            **sizes, global_pool='avg', class_token=False
        ),
        'CLIP': lambda: Timm(**sizes, pre_norm=True, norm_layer=partial(nn.LayerNorm, eps=1e-5)),
        'gated': lambda: Timm(
            **sizes, mlp_layer=SwiGLUPacked, act_layer=nn.SiLU, mlp_ratio=64 / 24
        ),
    }


NAMES = (
    'plain',
    'layer scale, no position of the class token',
    'average pooling, no class token',
    'CLIP',
    'gated',
)


@pytest.mark.parametrize('name', NAMES)
def test_features_equal_those_of_timm(tool, name, tmp_path, capsys):
    torch.manual_seed(0)
    theirs = timm_models()[name]().eval()
    for p in theirs.parameters():
        torch.nn.init.normal_(p, std=0.3)
    torch.save(theirs.state_dict(), tmp_path / 'timm.pth')
    out, back = tmp_path / 'encoder.pth', tmp_path / 'back.pth'
    code, said, error = run(tool, capsys, tmp_path / 'timm.pth', out, '--num-heads', 3)
    assert code == 0, error
    settings = eval(f'dict({said.split("build with: ")[1].strip()})')
    init_cfg = dict(type='Pretrained', checkpoint=str(out))
    ours = Mask3DViT(**settings, img_size=24, out_type='raw', init_cfg=init_cfg)
    ours.init_weights()
    image = torch.randn(2, 3, 24, 24)
    with torch.no_grad():
        torch.testing.assert_close(
            ours.eval()(image)[0], theirs.forward_features(image), rtol=1e-5, atol=1e-5
        )
    code, said, error = run(tool, capsys, out, back, '--to', 'timm')
    assert code == 0, error
    assert "loads into timm's VisionTransformer" in said


def test_options_against_the_record_are_refused(tool, encoder, tmp_path, capsys):
    """The file knows its heads; other ones would give other features."""
    meta = dict(backbone=dict(type='Mask3DViT', **SIZES))
    torch.save(dict(state_dict=encoder.state_dict(), meta=meta), tmp_path / 'e.pth')
    out = tmp_path / 'out.pth'
    for options, message in (
        (('--num-heads', 6), '--num-heads 6, but the file records 3'),
        (('--num-heads', 3), ''),
    ):
        code, _, error = run(tool, capsys, tmp_path / 'e.pth', out, *options)
        assert (code == 0) == (not message), error
        assert message in error
        assert out.exists() == (not message)


def test_encoder_of_a_fine_tuned_pyramid(tool, encoder, tmp_path, capsys):
    backbone = dict(
        type='mmmask3d.Mask3DPyramid', **SIZES, out_strides=(4, 8), out_channels=(8, 16),
        out_indices=(0, 1), feature_indices=-1,
    )  # fmt: skip
    model = torch.nn.Module()
    model.backbone = Mask3DPyramid(**{k: v for k, v in backbone.items() if k != 'type'})
    model.backbone.vit.load_state_dict(encoder.state_dict())
    cfg = Config(dict(model=dict(backbone=backbone))).pretty_text
    torch.save(dict(state_dict=model.state_dict(), meta=dict(cfg=cfg)), tmp_path / 'epoch_1.pth')
    out = tmp_path / 'encoder.pth'
    code, _, error = run(tool, capsys, tmp_path / 'epoch_1.pth', out)
    assert code == 0, error
    written = load_checkpoint_file(out)
    same(written['state_dict'], encoder.state_dict())
    assert record.read_meta(written)['backbone']['type'] == 'mmmask3d.Mask3DViT'
