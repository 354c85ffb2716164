"""Features of a frozen encoder: of the right frames, normalised, with targets as they are."""

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.structures import PixelData
from mmpretrain.structures import DataSample
from mmseg.structures import SegDataSample
from torch import nn

from mmmask3d.evaluation.frames import depth_targets, label_targets, read_frames
from mmmask3d.evaluation.frozen_features import (
    encode,
    image_normaliser,
    with_pipeline,
    with_targets,
)
from mmmask3d.models import Mask3DPyramid


class Means(nn.Module):
    """Mean colour of each 4x4 block; notes the mode it was called in."""

    def __init__(self):
        super().__init__()
        self.modes = []

    def forward(self, x):
        self.modes.append(self.training)
        return (x * 0, nn.functional.avg_pool2d(x, 4))


def labelled(i, size=(8, 12), target=(16, 24)):
    sample = SegDataSample()
    labels = torch.full((1, *target), i % 3)
    labels[:, 0] = 255
    sample.gt_sem_seg = PixelData(data=labels)
    return dict(inputs=torch.full((3, *size), i, dtype=torch.uint8), data_samples=sample)


def rgbd(i, kind='metric'):
    depth = torch.full((1, 8, 12), 1.0 + i)
    valid = torch.ones(1, 8, 12, dtype=torch.bool)
    valid[:, :2] = False
    image = torch.full((3, 8, 12), i, dtype=torch.uint8)
    info = DataSample(metainfo=dict(depth_kind=kind))
    return dict(inputs=dict(img=image, depth=depth, valid=valid), data_samples=info)


def plain(images):
    return images.float()


def extract_features(encoder, dataset, normalise, batch_size=16, limit=None):
    frames = read_frames([dataset], limit)
    targets = next(iter(label_targets(frames).values()), None) or depth_targets(frames)
    return with_targets(encode(encoder, frames, normalise, None, batch_size), targets)


def test_images_of_part_of_a_patch_are_resized_to_whole_ones():
    """Padded by the encoder, its map would reach past the picture that targets belong to."""
    encoder = Means()
    encoder.patch_size = 4
    frames = read_frames([[labelled(9, size=(10, 13))]])
    assert encode(encoder, frames, plain).shape == (1, 2, 3, 3)


def test_labels_and_order():
    encoder = Means().train()
    found = extract_features(encoder, [labelled(i) for i in range(5)], plain, batch_size=2)
    assert found.kind == 'labels'
    assert found.features.shape == (5, 2, 3, 3)
    assert found.features.mean((1, 2, 3)).tolist() == [0, 1, 2, 3, 4]
    for i, (labels, valid) in enumerate(zip(found.targets, found.valid, strict=True)):
        assert labels.shape == (16, 24)
        assert not valid[0].any()
        assert valid[1:].all()
        assert (labels[1:] == i % 3).all()
    assert encoder.modes == [False] * 3  # encoded in eval mode,
    assert encoder.training  # and left as it was


def test_depth_of_both_packings():
    found = extract_features(Means(), [rgbd(i) for i in range(3)], plain)
    assert found.kind == 'metric'
    assert [float(d.max()) for d in found.targets] == [1, 2, 3]
    assert all(v.sum() == 6 * 12 for v in found.valid)
    sample = SegDataSample()
    sample.gt_depth_map = PixelData(data=torch.tensor([[[0.0, 2.0]]]))
    data = dict(inputs=torch.zeros(3, 8, 12, dtype=torch.uint8), data_samples=sample)
    found = extract_features(Means(), [data], plain)
    assert found.valid[0].tolist() == [[False, True]]


def test_of_a_pyramid_the_transformer_is_probed():
    """The pyramid is in no encoder's file: what it makes of the map is drawn at random."""
    arch = dict(embed_dims=48, num_layers=2, num_heads=3, feedforward_channels=96)
    pyramids = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        pyramids.append(Mask3DPyramid(arch=arch, img_size=32, patch_size=8))
    pyramids[1].vit.load_state_dict(pyramids[0].vit.state_dict())
    found = [extract_features(p, [labelled(1, (32, 32))], plain) for p in pyramids]
    assert found[0].features.shape == (1, 4, 4, 48)
    assert torch.equal(found[0].features, found[1].features)


def test_limit_spreads_over_the_set():
    frames = [labelled(i) for i in range(9)]
    found = extract_features(Means(), frames, plain, limit=3)
    assert found.features.mean((1, 2, 3)).tolist() == [0, 4, 8]


@pytest.mark.parametrize(
    ('frames', 'message'),
    [
        ([], 'no frame'),
        ([labelled(0), labelled(1, size=(8, 16))], 'several sizes'),
        ([rgbd(0), rgbd(1, 'relative')], 'several kinds'),
        ([dict(labelled(0), data_samples=SegDataSample())], 'neither gt_sem_seg nor depth'),
    ],
)
def test_what_cannot_be_probed(frames, message):
    with pytest.raises(ValueError, match=message):
        extract_features(Means(), frames, plain)


def test_normalisation_by_hand():
    images = torch.tensor([10, 20, 30], dtype=torch.uint8).view(1, 3, 1, 1)
    config = dict(mean=[1.0, 2.0, 3.0], std=[2.0, 4.0, 8.0], bgr_to_rgb=True)
    found = image_normaliser(config)(images)
    assert found.flatten().tolist() == [(30 - 1) / 2, (20 - 2) / 4, (10 - 3) / 8]
    config['bgr_to_rgb'] = False
    assert image_normaliser(config)(images)[0, 0] == (10 - 1) / 2


def test_pipeline_reaches_into_wrappers():
    leaf = dict(type='A', pipeline=['random'])
    config = ConfigDict(type='Concat', datasets=[leaf, dict(type='Repeat', dataset=leaf)])
    found = with_pipeline(config, ['fixed'])
    for dataset in (found.datasets[0], found.datasets[1].dataset):
        assert dataset.pipeline == ['fixed']
        assert dataset.test_mode
    assert config.datasets[0].pipeline == ['random']
