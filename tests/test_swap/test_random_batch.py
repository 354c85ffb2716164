"""Random annotations fit the config: classes, sizes, scales, branches."""

import pytest
import torch
from mmengine.config import Config

from mmmask3d.swap.random_batch import random_batch

SIZE = (48, 64)


def of_kind(*names):
    """A model of which nothing but the names of its base classes matters."""
    cls = torch.nn.Module
    for name in names:
        cls = type(name, (cls,), {})
    return cls()


def config(**heads):
    return Config(dict(model=dict(type='X', **heads)))


def test_segmentation_labels():
    cfg = config(a=dict(num_classes=5), b=[dict(num_classes=3)])
    batch = random_batch(of_kind('BaseSegmentor'), cfg, SIZE)
    assert [image.shape for image in batch['inputs']] == [(3, *SIZE)] * 2
    assert all(image.dtype == torch.uint8 for image in batch['inputs'])
    for sample in batch['data_samples']:
        labels = sample.gt_sem_seg.data
        assert labels.shape == (1, *SIZE)
        assert 0 <= labels.min() <= labels.max() < 3
        assert sample.gt_depth_map.data.min() > 0
    assert len(random_batch(of_kind('BaseSegmentor'), cfg, SIZE, training=False)['inputs']) == 1


def test_seeds():
    model, cfg = of_kind('BaseSegmentor'), config()
    first, again, other = (random_batch(model, cfg, SIZE, seed=s)['inputs'][0] for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize('scale', [1, 0.25])
def test_detection(scale):
    pytest.importorskip('mmcv._ext', reason='mmdet needs mmcv with compiled ops')
    cfg = config(head=dict(num_things_classes=2, num_classes=7))
    loads = dict(type='LoadAnnotations', with_bbox=True, with_mask=True)
    steps = [dict(type='SegRescale', scale_factor=scale)] if scale != 1 else []
    cfg.train_dataloader = dict(dataset=dict(pipeline=[loads, *steps]))
    (sample, _) = random_batch(of_kind('BaseDetector'), cfg, SIZE)['data_samples']
    instances = sample.gt_instances
    assert len(instances) == 3
    assert instances.labels.max() < 2
    boxes = instances.bboxes
    assert ((boxes[:, 2:] - boxes[:, :2]) > 10).all()
    assert (boxes >= 0).all()
    assert (boxes <= torch.tensor([64, 48, 64, 48])).all()
    for mask, (x1, y1, x2, y2) in zip(instances.masks.masks, boxes.int().tolist(), strict=True):
        assert mask.sum() == (x2 - x1) * (y2 - y1)
    assert sample.gt_sem_seg.sem_seg.shape == (1, int(48 * scale), int(64 * scale))
    assert 'proposals' not in sample
    model = of_kind('BaseDetector')
    model.with_rpn = False
    (sample, _) = random_batch(model, cfg, SIZE)['data_samples']
    assert sample.proposals.bboxes.shape == (3, 4)


def test_masks_only_where_a_training_has_them():
    """Losses such as RTMDet's look for masks, and take another way if there are some."""
    pytest.importorskip('mmcv._ext', reason='mmdet needs mmcv with compiled ops')

    def has_masks(model, *steps):
        cfg = config()
        if steps:
            cfg.train_dataloader = dict(dataset=dict(pipeline=list(steps)))
        (sample, _) = random_batch(model, cfg, SIZE)['data_samples']
        return 'masks' in sample.gt_instances

    plain, masked = of_kind('BaseDetector'), of_kind('BaseDetector')
    masked.mask_head = of_kind('FCNMaskHead')
    load = dict(type='mmdet.LoadAnnotations', with_bbox=True)
    assert not has_masks(masked, load)
    assert has_masks(plain, dict(load, with_mask=True))
    assert has_masks(plain, dict(type='LoadPanopticAnnotations'))
    assert (has_masks(plain), has_masks(masked)) == (False, True)


def test_branches_videos_and_identities():
    pytest.importorskip('mmcv._ext', reason='mmdet needs mmcv with compiled ops')
    semi = random_batch(of_kind('BaseDetector', 'SemiBaseDetector'), config(), SIZE)
    assert set(semi['inputs']) == {'sup', 'unsup_teacher', 'unsup_student'}
    video = random_batch(of_kind('BaseMOTModel'), config(), SIZE)
    (frames,), (sample,) = video['inputs'], video['data_samples']
    assert frames.shape == (2, 3, *SIZE)
    assert torch.equal(frames[0], frames[1])
    assert len(sample.get_key_frames()) == len(sample.get_ref_frames()) == 1
    reid = random_batch(of_kind('BaseClassifier', 'BaseReID'), config(), SIZE)
    assert reid['data_samples'][0].gt_label.label.tolist() == [0, 0, 1, 1]
    (first, second) = random_batch(of_kind('BaseClassifier'), config(num_classes=1), SIZE)[
        'data_samples'
    ]
    assert first.gt_label == second.gt_label == 0
