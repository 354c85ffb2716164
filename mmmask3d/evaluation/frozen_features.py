"""Patch features of a frozen encoder, with the labels or the depth of the same frames."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from mmengine.config import ConfigDict
from torch import Tensor, nn


@dataclass
class FrozenFeatures:
    """What an encoder gives for some frames, and what they show.

    Attributes:
        features: ``(F, h, w, C)`` float32, on the CPU.
        targets: of each frame, ``(H, W)``: class ids (uint8), or depth (float32).
        valid: of each frame, ``(H, W)`` bool: labelled pixels, or pixels with a reading.
        kind: 'labels', 'metric' (depth in metres) or 'relative'.
    """

    features: Tensor
    targets: list[Tensor] = field(default_factory=list)
    valid: list[Tensor] = field(default_factory=list)
    kind: str = 'labels'


def image_normaliser(preprocessor: dict) -> Callable[[Tensor], Tensor]:
    """Normalisation of a config's data preprocessor, without its padding.

    Args:
        preprocessor: config with ``mean``, ``std`` (ImageNet's by default) and ``bgr_to_rgb``
            (True by default).

    Returns:
        Function from ``(B, 3, H, W)`` uint8 to float32.
    """
    mean = preprocessor.get('mean', (123.675, 116.28, 103.53))
    std = preprocessor.get('std', (58.395, 57.12, 57.375))
    mean, std = torch.tensor(mean).view(-1, 1, 1), torch.tensor(std).view(-1, 1, 1)
    swap = preprocessor.get('bgr_to_rgb', True)

    def normalise(images: Tensor) -> Tensor:
        images = images.flip(1) if swap else images
        return (images.float() - mean.to(images.device)) / std.to(images.device)

    return normalise


@torch.no_grad()
def extract_features(
    backbone: nn.Module,
    dataset: Sequence[dict],
    normalise: Callable[[Tensor], Tensor],
    batch_size: int = 16,
    limit: int | None = None,
    device: str | torch.device = 'cpu',
    ignore_index: int = 255,
) -> FrozenFeatures:
    """Run an encoder over the frames of a data set.

    Args:
        backbone: gives a tuple of maps ``(B, C, h, w)``; the last one is taken. Of a
            ``Mask3DPyramid`` it is that of the transformer, as the pyramid is in no encoder's
            file. It is evaluated in eval mode and left in the mode it was in.
        dataset: samples packed by mmseg's ``PackSegInputs`` (with ``gt_sem_seg``, or
            ``gt_depth_map`` in metres, 0 = no reading) or by ``PackRGBDInputs``. All images have
            one size; targets may have another.
        normalise: see :func:`image_normaliser`.
        batch_size: frames at a time.
        limit: at most so many frames, spread evenly over the data set.
        device: where the encoder is.
        ignore_index: label of unlabelled pixels.

    Raises:
        ValueError: no frame, images of several sizes, or a sample without a target.
    """
    total = len(dataset)
    if not total:
        raise ValueError('the data set to probe on has no frame.')
    chosen = range(total)
    if limit is not None and limit < total:
        chosen = [round(i * (total - 1) / max(1, limit - 1)) for i in range(limit)]
    backbone = getattr(backbone, 'vit', backbone)
    maps, targets, valid, kinds = [], [], [], set()
    was_training = backbone.training
    backbone.eval()
    try:
        for start in range(0, len(chosen), batch_size):
            samples = [dataset[i] for i in chosen[start : start + batch_size]]
            images = [_image(sample) for sample in samples]
            if len({image.shape for image in images}) > 1:
                raise ValueError(
                    f'images of several sizes, {sorted({tuple(i.shape[1:]) for i in images})}: '
                    f'resize them to one in the pipeline (keep_ratio=False).'
                )
            out = backbone(normalise(torch.stack(images).to(device)))[-1]
            maps.append(out.permute(0, 2, 3, 1).float().cpu())
            for sample in samples:
                target, known, kind = _target(sample, ignore_index)
                targets.append(target)
                valid.append(known)
                kinds.add(kind)
    finally:
        backbone.train(was_training)
    if len(kinds) > 1:
        raise ValueError(
            f'frames of several kinds, {sorted(kinds)}, in one data set; probe them one by one.'
        )
    return FrozenFeatures(torch.cat(maps), targets, valid, kinds.pop())


def _image(sample: dict) -> Tensor:
    inputs = sample['inputs']
    return inputs['img'] if isinstance(inputs, dict) else inputs


def _target(sample: dict, ignore_index: int) -> tuple[Tensor, Tensor, str]:
    inputs, info = sample['inputs'], sample['data_samples']
    if isinstance(inputs, dict):
        return inputs['depth'][0], inputs['valid'][0], info.metainfo['depth_kind']
    if 'gt_sem_seg' in info:
        labels = info.gt_sem_seg.data[0].to(torch.uint8)  # many frames are held at once
        return labels, labels != ignore_index, 'labels'
    if 'gt_depth_map' in info:
        depth = info.gt_depth_map.data[0]
        return depth, depth > 0, 'metric'
    raise ValueError(
        'a sample has neither gt_sem_seg nor depth; the pipeline has to load labels or depth.'
    )


def with_pipeline(dataset: ConfigDict, pipeline: Sequence[dict]) -> ConfigDict:
    """A data set's config with another pipeline, also inside wrappers, and no random draws.

    Args:
        dataset: config of a data set, or of a wrapper around one or several.
        pipeline: the pipeline, of validation.
    """
    dataset = ConfigDict(dataset)
    if 'datasets' in dataset:
        inner = [with_pipeline(d, pipeline) for d in dataset.datasets]
        return ConfigDict({**dataset, 'datasets': inner})
    if 'dataset' in dataset:
        return ConfigDict({**dataset, 'dataset': with_pipeline(dataset.dataset, pipeline)})
    return ConfigDict({**dataset, 'pipeline': list(pipeline), 'test_mode': True})
