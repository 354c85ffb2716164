"""Inference, pictures and the report card with an encoder of timm: its own normalisation."""

import cv2
import pytest
import torch

from mmmask3d.apis import MaskedRGBDInferencer, get_model
from mmmask3d.apis.encoders import build_encoder
from mmmask3d.apis.reconstructions import draw_reconstructions
from mmmask3d.engine.run_config import load_config

IMAGENET = 'dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])'


@pytest.fixture
def write_config(make_tiny_config, tmp_path):
    """Function that writes a pre-training config with a small CLIP; returns its path."""
    make_tiny_config(tmp_path)

    def write(name='clip.py', preprocessor='dict()', **options):
        small = dict(embed_dim=48, depth=2, num_heads=3)
        backbone = dict(_delete_=True, type='TimmViT', model='vit_base_patch16_clip_224')
        backbone |= dict(model_args=small, img_size=(32, 48), patch_size=8, **options)
        path = tmp_path / name
        model = f'dict(backbone={backbone!r}, data_preprocessor={preprocessor})'
        path.write_text(f"_base_ = './tiny.py'\nmodel = {model}\n")
        return str(path)

    return write


@pytest.fixture
def weights(write_config, tmp_path):
    torch.manual_seed(0)
    model = get_model(write_config())
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'whole.pth')
    torch.save(model.backbone.trunk.state_dict(), tmp_path / 'encoder.pth')
    return str(tmp_path / 'whole.pth'), str(tmp_path / 'encoder.pth'), model.backbone.eval()


def by_hand(encoder, image):
    """CLIP's statistics, as they stand in openai/CLIP."""
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(-1, 1, 1) * 255
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(-1, 1, 1) * 255
    rgb = torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1).float()
    with torch.no_grad():
        return encoder(((rgb - mean) / std)[None])[-1][0]


def test_features_of_the_inferencer(write_config, weights, tmp_path):
    whole, _, encoder = weights
    image = cv2.imread(str(tmp_path / 'frames/rgb/frame_000.png'))
    inferencer = MaskedRGBDInferencer(write_config(), weights=whole, device='cpu')
    (found,) = inferencer.extract_features([image])
    torch.testing.assert_close(found[-1], by_hand(encoder, image), rtol=1e-3, atol=1e-4)


def test_pictures(write_config, weights, tmp_path):
    files = draw_reconstructions(load_config(write_config()), weights[0], tmp_path / 'out', num=2)
    assert len(files) == 3
    assert cv2.imread(str(files[-1])).std() > 0


def test_the_report_card_normalises_as_the_weights_want(write_config, weights, tmp_path):
    _, file, encoder = weights
    built = build_encoder('clip', write_config(pretrained=file), (32, 48))
    image = cv2.imread(str(tmp_path / 'frames/rgb/frame_000.png'))
    images = torch.from_numpy(image).permute(2, 0, 1)[None]
    found = built.module.eval()(built.normalise(images))[-1][0]
    torch.testing.assert_close(found, by_hand(encoder, image), rtol=1e-3, atol=1e-4)


def test_another_normalisation_is_refused_and_both_are_named(write_config, weights):
    whole, file, _ = weights
    other = write_config('other.py', IMAGENET, pretrained=file)
    for build in (
        lambda: build_encoder('clip', other, (32, 48)),
        lambda: MaskedRGBDInferencer(other, weights=whole, device='cpu'),
    ):
        with pytest.raises(ValueError, match=r'68\.5.*58\.395'):
            build()
