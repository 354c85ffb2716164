"""What docs/weights.md says of locations is so."""

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.model.weight_init import PretrainedInit

import mmmask3d
from mmmask3d.checkpoints.download import DownloadError, cached_path
from mmmask3d.cli.main import main
from mmmask3d.models import Mask3DViT
from mmmask3d.weights.export import FORMAT, write_encoder

PAGE = (Path(mmmask3d.__file__).parents[1] / 'docs/weights.md').read_text()
BLOCKS = re.findall(r'^```python\n(.*?)^```', PAGE, flags=re.M | re.S)


def test_every_init_cfg_shown_is_one():
    text, _ = BLOCKS
    examples = re.split(r'^(?=init_cfg)', text, flags=re.M)[1:]
    assert len(examples) == 7
    for example in examples:
        values = {}
        exec(example, values)
        cfg = values['init_cfg']
        assert cfg.pop('type') == 'Pretrained'
        assert cfg.pop('sha256', '<64 digits>') == '<64 digits>'
        PretrainedInit(**cfg)


def test_the_comparison_of_patch_sizes(tmp_path, monkeypatch, capsys):
    """An enlarged image gives the features of before, nearly."""
    monkeypatch.chdir(tmp_path)
    frames = tmp_path / 'data/nyuv2/rgb'
    frames.mkdir(parents=True)
    y, x = np.mgrid[0:120, 0:160] / 20
    for i in range(29):
        smooth = np.stack([np.sin(x + i), np.cos(y), np.sin(x * y / 8)], -1)
        cv2.imwrite(str(frames / f'{i:03d}.jpg'), (127 + 100 * smooth).astype(np.uint8))
    arch = dict(embed_dims=48, num_layers=2, num_heads=3, feedforward_channels=96)
    settings = dict(arch=arch, img_size=224, patch_size=14)
    torch.manual_seed(0)
    state = Mask3DViT(**settings).state_dict()
    backbone = dict(type='Mask3DViT', **settings)
    meta = dict(format=FORMAT, backbone=backbone, patch_grid=(16, 16))
    write_encoder('encoder14.safetensors', state, meta)
    files = ['encoder14.safetensors', 'encoder16.safetensors']
    assert main(['convert-weights', *files, '--patch-size', '16']) == 0
    capsys.readouterr()
    exec(BLOCKS[1], {})
    count, lowest, mean = map(float, capsys.readouterr().out.split())
    assert count == 2
    assert 0.999 < lowest <= mean <= 1.0001


def test_the_cache_is_where_the_page_says(monkeypatch, tmp_path):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    monkeypatch.setattr('torch.hub._hub_dir', None)
    assert '`$TORCH_HOME/hub/checkpoints/mmmask3d/`' in PAGE
    path = cached_path('https://example.org/encoder.pth')
    assert path.is_relative_to(tmp_path / 'hub/checkpoints/mmmask3d')
    with pytest.raises(DownloadError):
        cached_path('https://example.org/encoder.pth#sha256=<64 digits>')
