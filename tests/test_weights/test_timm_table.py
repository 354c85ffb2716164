"""Every cell of the table of timm's families in docs/weights.md, run."""

import re
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import timm
import torch
from mmengine.config import Config

import mmmask3d
from mmmask3d.apis.onnx_export import write_onnx
from mmmask3d.models import Mask3DPyramid, TimmViT
from mmmask3d.registry import MODELS

PAGE = (Path(mmmask3d.__file__).parents[1] / 'docs/weights.md').read_text()
(HEADER,) = re.findall(r'^\| family \| model in timm \|(.*)\|$', PAGE, re.M)
CELLS = [cell.strip() for cell in HEADER.split('|')]
ROWS = re.findall(r'^\| ([^|]+) \| `((?:vit|deit3|eva02|aimv2)_[^`]+)` \|(.*)\|$', PAGE, re.M)
SMALL = dict(embed_dim=48, depth=2, num_heads=3)
SIZE = (48, 80)
SWAPPED = {
    'mmseg': 'mmseg::fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py',
    'mmdet': 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py',
}


def small(name, **options):
    torch.manual_seed(0)
    given = dict(img_size=SIZE, patch_size=16, model_args=SMALL)
    model = TimmViT(name, **{**given, **options})
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape) * 0.1)
    return model.eval()


def loads(name, tmp_path, load_tool):
    path = str(tmp_path / 'timm.pth')
    torch.save(small(name).trunk.state_dict(), path)
    other = small(name, pretrained=path)
    other.init_weights()
    torch.testing.assert_close(other.state_dict(), small(name).state_dict())
    deeper = small(name, pretrained=path, model_args={**SMALL, 'depth': 3})
    with pytest.raises(RuntimeError, match='does not fill'):
        deeper.init_weights()


def masked_step(name, tmp_path, load_tool):
    encoder = dict(type='TimmViT', model=name, img_size=SIZE, patch_size=16, model_args=SMALL)
    model = MODELS.build(
        dict(
            type='mmmask3d.MaskedRGBD',
            backbone=encoder,
            fusion=dict(type='AddFusion', embed_dims=32),
            depth_encoder=dict(type='DepthEncoder', embed_dims=24, num_layers=1, num_heads=2),
            decoders=dict(depth=dict(type='DepthDecoder', num_layers=1, num_heads=2)),
            heads=dict(depth=dict(type='DepthHead', loss=dict(type='DepthL2Loss'))),
            _scope_='mmmask3d',
        )
    )
    mask = torch.arange(15) % 5 > 0
    inputs = dict(
        img=[torch.randint(0, 256, (3, *SIZE), dtype=torch.uint8)],
        depth=[1 + torch.rand(1, *SIZE)],
        valid=[torch.ones(1, *SIZE, dtype=torch.bool)],
        rgb_mask=[mask],
        depth_mask=[mask.flip(0)],
    )
    batch = model.data_preprocessor(dict(inputs=inputs), True)
    sum(model(**batch, mode='loss').values()).backward()
    assert all(p.grad is not None for p in model.backbone.parameters())


def features(name, tmp_path, load_tool):
    ours = small(name)
    theirs = timm.create_model(name, num_classes=0, img_size=SIZE, patch_size=16, **SMALL).eval()
    assert not theirs.load_state_dict(ours.trunk.state_dict(), strict=False).unexpected_keys
    x = torch.rand(2, 3, *SIZE)
    expected = theirs.forward_features(x)[:, theirs.num_prefix_tokens :]
    found = ours(x)[-1].flatten(2).transpose(1, 2)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def pyramid(name, tmp_path, load_tool):
    encoder = dict(type='mmmask3d.TimmViT', model=name, img_size=SIZE, model_args=SMALL)
    model = Mask3DPyramid(encoder=dict(encoder, patch_size=16), out_channels=(8,) * 4).eval()
    shapes = [tuple(m.shape[2:]) for m in model(torch.rand(1, 3, 64, 96))]
    assert shapes == [(16, 24), (8, 12), (4, 6), (2, 3)]


def swapped(library):
    def run(name, tmp_path, load_tool):
        given = dict(model=name, img_size=SIZE, patch_size=16, model_args=SMALL)
        backbone = dict(given, type='mmmask3d.TimmViT')
        state = {f'backbone.{k}': v for k, v in small(name).state_dict().items()}
        cfg = Config(dict(model=dict(type='X', backbone=backbone))).pretty_text
        torch.save(dict(state_dict=state, meta=dict(cfg=cfg)), tmp_path / 'run.pth')
        file, out = str(tmp_path / 'encoder.safetensors'), str(tmp_path / 'new.py')
        extract = load_tool('model_converters/extract_backbone.py').main
        assert extract([str(tmp_path / 'run.pth'), file]) == 0
        options = ['--size', '64', '96', '--skip-predict', '--window-size', '0']
        swap = load_tool('misc/swap_backbone.py').main
        assert swap([SWAPPED[library], '--encoder', file, '-o', out, *options]) == 0
        assert Config.fromfile(out).model.backbone.encoder.pretrained == file

    return run


def onnx(name, tmp_path, load_tool):
    """At another size than that of the positions, which timm then resamples with antialiasing."""
    encoder, file = small(name), tmp_path / 'encoder.onnx'
    write_onnx(encoder, file, (52, 90))
    x = torch.rand(1, 3, 52, 90)
    (found,) = onnxruntime.InferenceSession(file).run(None, {'images': x.numpy()})
    np.testing.assert_allclose(found, encoder(x)[0].detach().numpy(), rtol=1e-4, atol=1e-4)


RUN = {
    'loads': loads,
    'masked step': masked_step,
    'features': features,
    'pyramid': pyramid,
    'mmseg': swapped('mmseg'),
    'mmdet': swapped('mmdet'),
    'ONNX': onnx,
}


def test_the_table_has_the_families():
    assert list(RUN) == CELLS
    assert len(ROWS) == 10


@pytest.mark.parametrize('cell', RUN)
@pytest.mark.parametrize(('family', 'name', 'cells'), ROWS, ids=[row[0] for row in ROWS])
def test_cell(family, name, cells, cell, tmp_path, load_tool):
    said = dict(zip(CELLS, (c.strip() for c in cells.split('|')), strict=True))
    assert said[cell] == 'yes', family
    RUN[cell](name, tmp_path, load_tool)
