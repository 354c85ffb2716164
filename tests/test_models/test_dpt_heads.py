"""Segmentation with DPT's blocks: any batch size, plain maps, the frames' own size."""

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.structures import PixelData
from mmseg.models.segmentors import EncoderDecoder
from mmseg.structures import SegDataSample

from mmmask3d.models.dpt_heads import DPTSegHead

HEAD = dict(in_channels=[48] * 4, channels=16, post_process_channels=[8, 8, 16, 16], num_classes=5)


def head(**changes):
    torch.manual_seed(0)
    return DPTSegHead(**(HEAD | changes))


def maps(batch, grid=(4, 6)):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(batch, 48, *grid, generator=generator) for _ in range(4)]


def sample(labels):
    return SegDataSample(gt_sem_seg=PixelData(data=labels))


def test_a_batch_is_its_frames_one_by_one():
    # A batch of exactly two passes for a pair of map and class token in mmseg's DPTHead.
    model = head().eval()
    for batch in (1, 2, 3):
        together = model(maps(batch))
        assert together.shape == (batch, 5, 4 * 8, 6 * 8)
        single = [model([m[i : i + 1] for m in maps(batch)]) for i in range(batch)]
        torch.testing.assert_close(together, torch.cat(single), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(in_channels=[48, 48, 48]), 'DPTSegHead: expected four maps'),
        (dict(in_channels=[48, 48, 48, 96]), 'equally many channels'),
        (dict(readout_type='project'), 'without class token'),
    ],
)
def test_wrong_settings(changes, message):
    with pytest.raises(ValueError, match=message):
        head(**changes)


def test_a_segmentor_trains_on_two_frames_and_predicts_at_their_own_size():
    torch.manual_seed(0)
    model = EncoderDecoder(
        backbone=dict(
            type='mmmask3d.Mask3DViT',
            arch=dict(embed_dims=48, num_layers=4, num_heads=3, feedforward_channels=96),
            img_size=(32, 48),
            patch_size=8,
            out_indices=(0, 1, 2, 3),
        ),
        decode_head=dict(type='mmmask3d.DPTSegHead', **HEAD),
        data_preprocessor=dict(
            type='mmseg.SegDataPreProcessor', mean=[0.0] * 3, std=[255.0] * 3, size=(32, 48)
        ),
        test_cfg=ConfigDict(mode='whole'),
        train_cfg=dict(),
    )
    labels = torch.arange(5).repeat_interleave(8)[None, None].repeat(1, 32, 1)
    data = dict(
        inputs=[torch.randint(0, 255, (3, 32, 40), dtype=torch.uint8) for _ in range(2)],
        data_samples=[sample(labels.clone()) for _ in range(2)],
    )
    model.train()
    batch = model.data_preprocessor(data, training=True)
    losses = model(**batch, mode='loss')
    losses['decode.loss_ce'].backward()
    assert model.backbone.layers[0].attn.qkv.weight.grad.abs().sum() > 0
    model.eval()
    frame = sample(torch.zeros(1, 64, 80))
    frame.set_metainfo(dict(ori_shape=(64, 80), img_shape=(32, 40)))
    data = dict(inputs=[data['inputs'][0]], data_samples=[frame])
    with torch.no_grad():
        found = model(**model.data_preprocessor(data), mode='predict')[0]
    assert found.pred_sem_seg.data.shape == (1, 64, 80)
    assert set(found.pred_sem_seg.data.unique().tolist()) <= set(range(5))
