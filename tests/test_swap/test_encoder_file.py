"""Settings of the backbone that follow from a file of weights."""

import pytest
import torch

from mmmask3d.models import Mask3DViT
from mmmask3d.swap.backbone import SwapError
from mmmask3d.swap.encoder_file import encoder_settings

ARCH = dict(embed_dims=48, num_layers=2, num_heads=3, feedforward_channels=96)


def save(path, model, meta=None, keep_grid=True):
    state = model.state_dict()
    torch.save(dict(state_dict=state if keep_grid else dict(state), meta=meta or {}), path)
    return str(path)


def test_architecture_by_its_shapes_and_size_by_the_recorded_grid(tmp_path):
    path = save(tmp_path / 'a.pth', Mask3DViT(arch='deit-tiny', img_size=(240, 320)))
    found = encoder_settings(path)
    assert found == dict(arch='deit-tiny', patch_size=16, img_size=(240, 320))


def test_square_without_a_record(tmp_path):
    model = Mask3DViT(arch='deit-tiny', img_size=64, patch_size=8)
    path = save(tmp_path / 'a.pth', model, keep_grid=False)
    assert encoder_settings(path) == dict(arch='deit-tiny', patch_size=8, img_size=(64, 64))


def test_grid_that_nothing_tells(tmp_path):
    model = Mask3DViT(arch='deit-tiny', img_size=(48, 64))
    path = save(tmp_path / 'a.pth', model, keep_grid=False)
    with pytest.raises(SwapError, match=r'13 positions are no square grid.*convert-weights'):
        encoder_settings(path)


def test_recorded_settings_come_along_but_for_those_of_the_pretraining(tmp_path):
    backbone = dict(
        type='Mask3DViT', arch=ARCH, img_size=(32, 48), patch_size=8, with_cls_token=False,
        layer_scale_init_value=1e-5, drop_path_rate=0.3, drop_rate=0.1, frozen_stages=1,
    )  # fmt: skip
    settings = {k: v for k, v in backbone.items() if k != 'type'}
    path = save(tmp_path / 'a.pth', Mask3DViT(**settings), dict(backbone=backbone))
    assert encoder_settings(path) == dict(
        arch=ARCH, patch_size=8, with_cls_token=False, layer_scale_init_value=1e-5,
        img_size=(32, 48),
    )  # fmt: skip


def test_another_architecture(tmp_path):
    path = save(tmp_path / 'a.pth', Mask3DViT(arch='deit-tiny', img_size=64))
    with pytest.raises(SwapError, match=r"its encoder is 'deit-tiny', and 'base' was asked for"):
        encoder_settings(path, 'base')
    small = save(tmp_path / 'b.pth', Mask3DViT(arch=ARCH, img_size=64))
    with pytest.raises(SwapError, match=r'no architecture of this size is known.*convert-weights'):
        encoder_settings(small)


def test_no_transformer(tmp_path):
    path = tmp_path / 'resnet.pth'
    torch.save({'layer1.0.conv1.weight': torch.zeros(1)}, path)
    with pytest.raises(ValueError, match=r'resnet\.pth: no Vision Transformer found'):
        encoder_settings(str(path))
