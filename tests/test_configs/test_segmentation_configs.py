"""Segmentation configs: what their heads are, and frames that are not of the training size."""

from pathlib import Path

import pytest
import torch
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from mmmask3d.engine.run_config import load_config
from mmmask3d.registry import MODELS

CONFIGS = Path(__file__).parents[2] / 'configs/segmentation'
SMALL = dict(embed_dims=48, num_layers=12, num_heads=3, feedforward_channels=48)


def segmentor(name):
    """The config's model with a narrow encoder and head."""
    cfg = load_config(CONFIGS / f'{name}.py')
    init_default_scope(cfg.default_scope)
    model = cfg.model
    model.backbone.arch = SMALL
    widths = model.decode_head.in_channels
    model.decode_head.in_channels = 48 if isinstance(widths, int) else [48] * len(widths)
    if 'neck' in model:
        model.neck.embed_dim = model.auxiliary_head.in_channels = 48
        model.neck.norm_cfg = dict(type='BN')
    if 'post_process_channels' in model.decode_head:
        model.decode_head.post_process_channels = [16] * 4
    model.decode_head.channels = 48
    for head in ('decode_head', 'auxiliary_head'):
        if head in model:
            model[head].norm_cfg = dict(type='BN')
    torch.manual_seed(0)
    return MODELS.build(model), cfg


def frames(shape, classes, count=1, **meta):
    generator = torch.Generator().manual_seed(0)
    found = dict(inputs=[], data_samples=[])
    for _ in range(count):
        size = (3, *shape)
        found['inputs'].append(torch.randint(0, 255, size, generator=generator).to(torch.uint8))
        labels = torch.randint(0, classes, (1, *shape), generator=generator)
        sample = SegDataSample(gt_sem_seg=PixelData(data=labels))
        sample.set_metainfo(dict(ori_shape=shape, img_shape=shape, **meta))
        found['data_samples'].append(sample)
    return found


@pytest.mark.parametrize(('height', 'row'), [(240, 160), (180, 160), (180, 96)])
def test_an_image_of_part_of_a_patch_is_not_squeezed(height, row):
    """As 16:9 at 320 wide is: a head that knows which image rows a patch shows."""
    model, _ = segmentor('mask3d-base_fcn_nyuv2-40-240x320')

    def know(maps):
        below = (torch.arange(maps[-1].shape[2]) + 0.5) * 16 >= row
        shown = below.float()[None, None, :, None].expand(1, 1, -1, maps[-1].shape[3])
        return torch.cat((1 - shown, shown), 1)

    model.decode_head.forward = know
    data = frames((height, 320), 40, scale_factor=(1, 1))
    (found,) = model.eval().test_step(data)
    found = found.pred_sem_seg.data[0]
    assert found.shape == (height, 320)
    assert int((found[:, 160] == 0).sum()) == row


@pytest.mark.parametrize(
    ('name', 'classes'),
    [
        ('mask3d-base_fcn_nyuv2-40-240x320', 40),
        ('mask3d-base_linear_nyuv2-40-240x320', 40),
        ('mask3d-base_dpt_nyuv2-40-240x320', 40),
        ('mask3d-base_upernet_cityscapes-19-240x320', 19),
    ],
)
def test_a_training_step_reaches_the_first_block(name, classes):
    model, _ = segmentor(name)
    # Smaller than a crop, as after a random resize: padded, and ignored there.
    data = model.data_preprocessor(frames((180, 240), classes, count=2), training=True)
    assert data['inputs'].shape == (2, 3, 240, 320)
    assert (data['data_samples'][0].gt_sem_seg.data[:, 180:] == 255).all()
    losses = model.train()(**data, mode='loss')
    sum(v for k, v in losses.items() if 'loss' in k).backward()
    assert model.backbone.layers[0].attn.qkv.weight.grad.abs().sum() > 0


def test_the_linear_head_is_linear():
    model, _ = segmentor('mask3d-base_linear_nyuv2-40-240x320')
    shapes = {k: tuple(v.shape) for k, v in model.decode_head.named_parameters()}
    assert shapes == {'conv_seg.weight': (40, 48, 1, 1), 'conv_seg.bias': (40,)}


def test_a_frame_is_padded_to_640_and_the_padding_is_not_predicted():
    model, cfg = segmentor('mask3d-base_dpt_nyuv2-40-640x640')
    resize = next(t for t in cfg.val_dataloader.dataset.pipeline if t['type'] == 'Resize')
    assert resize['scale'] == (640, 640)
    assert resize['keep_ratio']  # 480x640 stays as it is
    data = model.eval().data_preprocessor(frames((480, 640), 40))
    assert data['inputs'].shape == (1, 3, 640, 640)
    with torch.no_grad():
        found = model(**data, mode='predict')[0]
        whole = model.encode_decode(data['inputs'], [found.metainfo])
    assert found.seg_logits.data.shape == (40, 480, 640)
    torch.testing.assert_close(found.seg_logits.data, whole[0, :, :480])


def test_cityscapes_frames_are_read_in_crops_of_the_training_size(monkeypatch):
    model, _ = segmentor('mask3d-base_upernet_cityscapes-19-240x320')
    seen = []
    extract = model.extract_feat
    monkeypatch.setattr(model, 'extract_feat', lambda x: seen.append(x.shape) or extract(x))
    data = model.eval().data_preprocessor(frames((240, 480), 19))
    with torch.no_grad():
        found = model(**data, mode='predict')[0]
    assert seen == [(1, 3, 240, 320)] * 2
    assert found.pred_sem_seg.data.shape == (1, 240, 480)


def test_cityscapes_is_counted_in_epochs():
    cfg = load_config(CONFIGS / 'mask3d-base_upernet_cityscapes-19-240x320.py')
    # Of mmseg's own endless sampler an epoch would never end.
    assert cfg.train_dataloader.sampler.type == 'DefaultSampler'
    assert cfg.train_dataloader.dataset.pipeline[2]['scale'] == (480, 240)
    assert cfg.val_dataloader.dataset.pipeline[1]['scale'] == (480, 240)
    assert cfg.val_dataloader.dataset.data_prefix.img_path == 'leftImg8bit/val'


@pytest.mark.parametrize('path', sorted(CONFIGS.glob('*.py')), ids=lambda path: path.stem)
def test_no_batch_of_a_single_frame(path):
    """Pyramid pooling to one cell leaves batch norm a single value there."""
    loader = load_config(path).train_dataloader
    frames = loader.dataset.get('indices', 1)  # a fixed number in the demo
    assert loader.drop_last or frames % loader.batch_size != 1
