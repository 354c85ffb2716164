"""The depth estimator: padding is no depth, holes enter no loss, any batch size works."""

from pathlib import Path

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.structures import PixelData
from mmseg.models.losses import SiLogLoss  # noqa: F401  registers it
from mmseg.models.segmentors import DepthEstimator
from mmseg.structures import SegDataSample

from mmmask3d.engine.run_config import load_config
from mmmask3d.models.depth_estimation import DPTDepthHead
from mmmask3d.models.losses import DepthSILogLoss
from mmmask3d.registry import MODELS

CONFIGS = Path(__file__).parents[2] / 'configs'

HEAD = dict(in_channels=[48] * 4, channels=16, post_process_channels=[8, 8, 16, 16])


def sample(depth):
    found = SegDataSample()
    found.gt_depth_map = PixelData(data=depth)
    return found


def head(**changes):
    torch.manual_seed(0)
    return DPTDepthHead(**(HEAD | changes))


def maps(batch, grid=(3, 4), seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, 48, *grid, generator=generator) for _ in range(4)]


def estimator(**changes):
    torch.manual_seed(0)
    backbone = dict(
        type='mmmask3d.Mask3DViT',
        arch=dict(embed_dims=48, num_layers=4, num_heads=3, feedforward_channels=96),
        img_size=(32, 48),
        patch_size=8,
        out_indices=(0, 1, 2, 3),
    )
    preprocessor = dict(
        type='mmseg.SegDataPreProcessor',
        mean=[0.0] * 3,
        std=[1.0] * 3,
        size=(32, 48),
        seg_pad_val=0,
    )
    return DepthEstimator(
        backbone=backbone,
        decode_head=dict(type='mmmask3d.DPTDepthHead', **HEAD),
        data_preprocessor=preprocessor,
        test_cfg=ConfigDict(mode='whole'),
        train_cfg=dict(),
    )


@pytest.mark.parametrize('name', ['tiny_dpt_rooms-240x320', 'base_dpt_nyuv2-480x640'])
def test_padding_is_no_reading(name):
    """mmseg's preprocessor pads depth with 255 m by default; the configs say 0."""
    settings = load_config(CONFIGS / f'depth/mask3d-{name}.py').model.data_preprocessor
    preprocessor = MODELS.build({**settings, 'type': 'mmseg.SegDataPreProcessor', 'size': (32, 48)})
    data = dict(
        inputs=[torch.zeros(3, 20, 30, dtype=torch.uint8)],
        data_samples=[sample(torch.full((1, 20, 30), 2.0))],
    )
    depth = preprocessor(data, training=True)['data_samples'][0].gt_depth_map.data
    assert settings.type == 'SegDataPreProcessor'
    assert depth.shape == (1, 32, 48)
    assert (depth[:, :20, :30] == 2).all()
    assert depth.sum() == 2 * 20 * 30


def test_depth_stays_in_its_range():
    model = head(min_depth=0.5, max_depth=4.0).eval()
    depth = model([100 * m for m in maps(2)])
    assert depth.dtype == torch.float32
    assert depth.shape[:2] == (2, 1)
    assert depth.min() >= 0.5
    assert depth.max() <= 4.0


def test_a_batch_is_its_frames_one_by_one():
    # A batch of exactly two passes for a pair of map and class token in mmseg's DPTHead.
    model = head().eval()
    for batch in (1, 2, 3):
        together = model(maps(batch))
        single = [model([m[i : i + 1] for m in maps(batch)]) for i in range(batch)]
        torch.testing.assert_close(together, torch.cat(single), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('hole', [0.0, 255.0, 1e6, float('nan'), float('inf'), -1.0])
def test_what_is_no_reading_enters_no_loss(hole):
    torch.manual_seed(1)
    depth = torch.rand(2, 1, 24, 32) * 5 + 0.5
    holes = torch.rand(2, 1, 24, 32) < 0.3
    results = []
    for value in (0.0, hole):
        model = head()
        inputs = [m.requires_grad_() for m in maps(2)]
        target = torch.where(holes, torch.tensor(value), depth)
        loss = model.loss_by_feat(model(inputs), [sample(t) for t in target])['loss_depthsilog']
        loss.backward()
        results.append((loss.detach(), [m.grad for m in inputs]))
    assert torch.equal(results[0][0], results[1][0])
    assert all(torch.equal(a, b) for a, b in zip(results[0][1], results[1][1], strict=True))


def test_loss_is_the_loss_over_valid_pixels():
    model = head()
    inputs = maps(2)
    depth = torch.rand(2, 1, 24, 32) * 5 + 0.5
    depth[:, :, 5:9] = 0
    prediction = model(inputs)
    found = model.loss_by_feat(prediction, [sample(t) for t in depth])['loss_depthsilog']
    resized = torch.nn.functional.interpolate(prediction, (24, 32), mode='bilinear')
    total = 0
    for p, t in zip(resized, depth, strict=True):
        g = (p.log() - t.log())[t > 0]
        total += (g.square().sum() - 0.85 * g.sum() ** 2 / g.numel()) / (depth > 0).sum()
    torch.testing.assert_close(found, total)


def test_without_a_reading_the_loss_is_zero_with_a_finite_gradient():
    model = head()
    inputs = [m.requires_grad_() for m in maps(1)]
    loss = model.loss_by_feat(model(inputs), [sample(torch.zeros(1, 24, 32))])['loss_depthsilog']
    loss.backward()
    assert loss == 0
    assert all(torch.equal(m.grad, torch.zeros_like(m)) for m in inputs)


def test_several_losses_and_their_names():
    model = head(
        loss_decode=[dict(type='mmmask3d.DepthL1Loss'), dict(type='mmmask3d.DepthGradientLoss')]
    )
    losses = model.loss_by_feat(model(maps(2)), [sample(torch.ones(1, 24, 32))] * 2)
    assert set(losses) == {'loss_depthl1', 'loss_depthgradient'}


@pytest.mark.parametrize(
    ('changes', 'error', 'message'),
    [
        (dict(in_channels=[48, 48, 48]), ValueError, 'four maps'),
        (dict(in_channels=[48, 48, 48, 96]), ValueError, 'equally many channels'),
        (dict(min_depth=2.0, max_depth=1.0), ValueError, 'min_depth < max_depth'),
        (dict(readout_type='project'), ValueError, 'without class token'),
        (dict(loss_decode=dict(type='mmseg.SiLogLoss')), TypeError, 'SiLogLoss takes no mask'),
    ],
)
def test_wrong_settings(changes, error, message):
    with pytest.raises(error, match=message):
        head(**changes)


def test_estimator_trains_and_predicts_at_the_frames_own_size():
    model = estimator()
    assert isinstance(model.decode_head.loss_decode, DepthSILogLoss)
    data = dict(
        inputs=[torch.randint(0, 255, (3, 32, 40), dtype=torch.uint8) for _ in range(2)],
        data_samples=[sample(torch.full((1, 32, 40), 1.5 + i)) for i in range(2)],
    )
    model.train()
    losses = model(**model.data_preprocessor(data, training=True), mode='loss')
    losses['decode.loss_depthsilog'].backward()
    first = model.backbone.layers[0].attn.qkv.weight.grad
    assert first.abs().sum() > 0
    model.eval()
    frame = sample(torch.full((1, 64, 80), 1.5))
    frame.set_metainfo(dict(ori_shape=(64, 80), img_shape=(32, 40)))
    data = dict(inputs=[data['inputs'][0]], data_samples=[frame])
    with torch.no_grad():
        found = model(**model.data_preprocessor(data), mode='predict')[0]
    assert found.pred_depth_map.data.shape == (1, 64, 80)
