"""Random images with the annotations that a model of mmseg, mmdet or mmpretrain trains on.

Enough to see whether a model runs, in both directions: what is drawn has a meaning to the model's
losses, not to people. ``mmdet.testing.demo_mm_inputs`` does not serve here: it fails for detectors
of one class, its boxes can be empty and its frames are noise, of which no motion can be estimated;
and mmseg and mmpretrain have no counterpart.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.config import Config
from mmengine.structures import InstanceData, PixelData
from torch import nn

from mmmask3d.config_files import nested_dicts
from mmmask3d.swap.backbone import SwapError

#: Corners (x1, y1, x2, y2) of the drawn objects, as shares of the image.
_BOXES = ((0.05, 0.1, 0.55, 0.6), (0.4, 0.3, 0.95, 0.9), (0.3, 0.5, 0.6, 0.95))


def random_batch(
    model: nn.Module,
    cfg: Config,
    size: Sequence[int] = (128, 160),
    training: bool = True,
    seed: int = 0,
) -> dict[str, Any]:
    """What a data loader would hand to ``model.train_step`` or ``model.test_step``.

    Args:
        model: a segmentor, detector, tracker or classifier, told apart by its base classes.
        cfg: its config: number of classes, and the scale of semantic maps in the pipeline.
        size: height and width of the images.
        training: two images, or two of each branch; else one image or one video.
        seed: of the random numbers.

    Raises:
        SwapError: a model of another kind.
    """
    kinds = {base.__name__ for base in type(model).__mro__}
    draw = _Draw(cfg, size, seed)
    # A detector with a first stage takes proposals that are given in place of its own.
    draw.proposals = not getattr(model, 'with_rpn', True)
    draw.masks = _trains_on_masks(model, cfg)
    count = 2 if training else 1
    if 'BaseSegmentor' in kinds:
        samples = [draw.segmentation() for _ in range(count)]
    elif 'BaseReID' in kinds:
        if training:  # one entry for all: two identities, two images of each
            images = torch.stack([draw.image() for _ in range(4)])
            return dict(inputs=[images], data_samples=[draw.identities([0, 0, 1, 1])])
        samples = [draw.identities(0)]
    elif 'BaseMOTModel' in kinds:
        still = draw.image()  # motion between unlike frames cannot be estimated
        return dict(inputs=[torch.stack([still, still])], data_samples=[draw.video()])
    elif 'SemiBaseDetector' in kinds and training:
        branches = ('sup', 'unsup_teacher', 'unsup_student')
        return dict(
            inputs={name: [draw.image() for _ in range(count)] for name in branches},
            data_samples={name: [draw.detection() for _ in range(count)] for name in branches},
        )
    elif 'BaseDetector' in kinds:
        samples = [draw.detection() for _ in range(count)]
    elif 'BaseClassifier' in kinds:
        samples = [draw.classification() for _ in range(count)]
    else:
        raise SwapError(
            f'{type(model).__name__} is no segmentor, detector, tracker or classifier of mmseg, '
            f'mmdet or mmpretrain: no inputs for it are known.'
        )
    return dict(inputs=[draw.image() for _ in samples], data_samples=samples)


class _Draw:
    """Draws images and samples of one size for one config."""

    def __init__(self, cfg: Config, size: Sequence[int], seed: int):
        self.size = int(size[0]), int(size[1])
        self.rng = torch.Generator().manual_seed(seed)
        self.ids = itertools.count()
        self.proposals, self.masks = False, True
        # The heads of cascades and of several tasks differ; labels have to suit all of them.
        counts = _numbers(cfg.model, 'num_classes')
        things = _numbers(cfg.model, 'num_things_classes')
        self.classes = min(counts, default=2)
        self.things = min(counts + things, default=2)
        rescaled = _steps(cfg.get('train_dataloader'), 'SegRescale')
        self.semantic_scale = rescaled[0]['scale_factor'] if rescaled else 1

    def image(self) -> torch.Tensor:
        """Smooth, as motion between frames of noise cannot be estimated; RGB in 0..255."""
        cells = torch.rand((1, 3, 6, 8), generator=self.rng) * 255
        image = nn.functional.interpolate(cells, self.size, mode='bicubic')[0]
        return image.clamp(0, 255).to(torch.uint8)

    def meta(self) -> dict:
        return dict(
            img_id=next(self.ids),
            img_path='random',
            img_shape=self.size,
            ori_shape=self.size,
            scale_factor=(1.0, 1.0),
            flip=False,
            flip_direction=None,
            homography_matrix=torch.eye(3).numpy(),
        )

    def labels(self, shape: Sequence[int], classes: int) -> torch.Tensor:
        return torch.randint(0, classes, tuple(shape), generator=self.rng)

    def segmentation(self) -> Any:
        from mmseg.structures import SegDataSample

        sample = SegDataSample(metainfo=self.meta())
        # Areas of one class, as a labelled image has them; losses that mine examples want some.
        cells = self.labels((1, 1, 4, 4), self.classes).float()
        labels = nn.functional.interpolate(cells, self.size, mode='nearest')[0].long()
        sample.gt_sem_seg = PixelData(data=labels)
        depth = torch.rand((1, *self.size), generator=self.rng) * 9 + 0.5
        sample.gt_depth_map = PixelData(data=depth)
        return sample

    def detection(self, ids: bool = False) -> Any:
        from mmdet.structures import DetDataSample
        from mmdet.structures.mask import BitmapMasks

        sample = DetDataSample(metainfo=self.meta())
        height, width = self.size
        boxes = torch.tensor(_BOXES) * torch.tensor([width, height, width, height])
        masks = torch.zeros(len(boxes), *self.size, dtype=torch.uint8)
        for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist(), strict=True):
            mask[y1:y2, x1:x2] = 1
        labels = self.labels([len(boxes)], self.things)
        for name, count in (('gt_instances', len(boxes)), ('ignored_instances', 0)):
            instances = InstanceData(bboxes=boxes[:count], labels=labels[:count])
            if self.masks:
                instances.masks = BitmapMasks(masks[:count].numpy(), *self.size)
            setattr(sample, name, instances)
        if ids:
            sample.gt_instances.instances_ids = torch.arange(len(boxes))
        if self.proposals:
            sample.proposals = InstanceData(bboxes=boxes + 1.0, scores=torch.ones(len(boxes)))
        scaled = [max(int(side * self.semantic_scale), 1) for side in self.size]
        sample.gt_sem_seg = PixelData(sem_seg=self.labels((1, *scaled), self.classes))
        return sample

    def video(self) -> Any:
        from mmdet.structures import TrackDataSample

        frames = []
        for frame in range(2):
            sample = self.detection(ids=True)
            sample.set_metainfo(dict(frame_id=frame, video_length=2, is_video_data=True))
            frames.append(sample)
        video = TrackDataSample(video_data_samples=frames)
        video.set_metainfo(dict(key_frames_inds=[0], ref_frames_inds=[1]))
        return video

    def identities(self, labels: int | list[int]) -> Any:
        from mmdet.structures import ReIDDataSample

        sample = ReIDDataSample(metainfo=self.meta())
        return sample.set_gt_label(labels)

    def classification(self) -> Any:
        from mmpretrain.structures import DataSample

        return DataSample(metainfo=self.meta()).set_gt_label(int(self.labels([1], self.classes)[0]))


def _trains_on_masks(model: nn.Module, cfg: Config) -> bool:
    """Whether instances come with masks: some losses take another way where there are some."""
    loads = [
        step.get('with_mask', 'Panoptic' in step['type'])
        for step in _steps(cfg.get('train_dataloader'), 'Load')
    ]
    if loads:
        return any(loads)
    parts = list(model.modules())
    return any(getattr(part, 'with_mask', False) or 'Mask' in type(part).__name__ for part in parts)


def _numbers(value: Any, key: str) -> list[int]:
    """The positive numbers under a key, at any depth of a config."""
    found = [entry.get(key) for entry in nested_dicts(value)]
    return [number for number in found if isinstance(number, int) and number > 0]


def _steps(value: Any, kind: str) -> list[Mapping]:
    """The parts of a config whose type starts with ``kind``, at any depth."""
    return [d for d in nested_dicts(value) if str(d.get('type')).split('.')[-1].startswith(kind)]
