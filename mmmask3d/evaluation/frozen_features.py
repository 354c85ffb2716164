"""Patch features of a frozen encoder, with the targets of the same frames."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.config import ConfigDict
from torch import Tensor, nn

from mmmask3d.evaluation.frames import Frame, Targets
from mmmask3d.models.encoder_record import as_pair


@dataclass
class FrozenFeatures:
    """What an encoder gives for some frames, and what they show."""

    features: Tensor  # (F, h, w, C) float16 or float32, on the CPU
    targets: list[Tensor] = field(default_factory=list)  # see Targets.values
    valid: list[Tensor] = field(default_factory=list)  # of each frame, (H, W) bool
    kind: str = 'labels'  # 'labels', 'metric', 'relative' or 'normals'

    def subset(self, indices: Sequence[int]) -> 'FrozenFeatures':
        """Some of the frames."""
        return FrozenFeatures(
            self.features[list(indices)],
            [self.targets[i] for i in indices],
            [self.valid[i] for i in indices],
            self.kind,
        )


def with_targets(features: Tensor, targets: Targets) -> FrozenFeatures:
    """Features of the frames that have a target, and the targets; no copy if all have one."""
    if targets.indices != list(range(len(features))):
        features = features[targets.indices]
    return FrozenFeatures(features, targets.values, targets.valid, targets.kind)


def image_normaliser(preprocessor: Any) -> Callable[[Tensor], Tensor]:
    """Normalisation of a config's data preprocessor, without its padding.

    Args:
        preprocessor: a model's, or a config with ``mean``, ``std`` (ImageNet's by default) and
            ``bgr_to_rgb`` (True by default).

    Returns:
        Function from BGR images ``(B, 3, H, W)``, 0 to 255, to float32.
    """
    if isinstance(preprocessor, nn.Module):
        preprocessor = {key: getattr(preprocessor, key) for key in ('mean', 'std', 'bgr_to_rgb')}
    mean = preprocessor.get('mean', (123.675, 116.28, 103.53))
    std = preprocessor.get('std', (58.395, 57.12, 57.375))
    mean, std = (torch.as_tensor(v).cpu().view(-1, 1, 1) for v in (mean, std))
    swap = preprocessor.get('bgr_to_rgb', True)

    def normalise(images: Tensor) -> Tensor:
        images = images.flip(1) if swap else images
        return (images.float() - mean.to(images.device)) / std.to(images.device)

    return normalise


@torch.no_grad()
def encode(
    backbone: nn.Module,
    frames: Sequence[Frame],
    normalise: Callable[[Tensor], Tensor],
    size: tuple[int, int] | None = None,
    batch_size: int = 16,
    device: str | torch.device = 'cpu',
    progress: Callable[[int], object] = lambda done: None,
) -> Tensor:
    """Run an encoder over frames.

    Args:
        backbone: gives a tuple of maps ``(B, C, h, w)``; the last one is taken. Of a
            ``Mask3DPyramid`` it is that of the transformer, as the pyramid is in no encoder's
            file. It is evaluated in eval mode and left in the mode it was in.
        frames: what it sees.
        normalise: see :func:`image_normaliser`.
        size: ``(height, width)`` that images are resized to, their own by default; either is
            rounded to whole patches.
        batch_size: frames at a time.
        device: where the encoder is.
        progress: is told how many frames are done after each batch.

    Returns:
        ``(F, h, w, C)`` float16, half the memory of float32, rounded by 0.05 % at most.

    Raises:
        ValueError: images of several sizes and no ``size``, or features that are no numbers or
            beyond float16.
    """
    shapes = {tuple(frame.image.shape[1:]) for frame in frames}
    if size is None and len(shapes) > 1:
        raise ValueError(
            f'images of several sizes, {sorted(shapes)}: '
            f'resize them to one in the pipeline (keep_ratio=False).'
        )
    backbone = getattr(backbone, 'vit', backbone)
    height, width = size or (shapes.pop() if shapes else (1, 1))
    size = whole_patches(backbone, (height, width))
    was_training = backbone.training
    backbone.eval()
    maps = None
    try:
        for start in range(0, len(frames), batch_size):
            images = [_resized(f.image, size) for f in frames[start : start + batch_size]]
            out = backbone(normalise(torch.stack(images).to(device)))[-1]
            out = out.permute(0, 2, 3, 1).half().cpu()
            if not out.isfinite().all():
                raise ValueError('the encoder gave features that are NaN, infinite or above 65504.')
            if maps is None:
                maps = out.new_empty((len(frames), *out.shape[1:]))
            maps[start : start + len(out)] = out
            progress(start + len(out))
    finally:
        backbone.train(was_training)
    if maps is None:
        raise ValueError('there is no frame to encode.')
    return maps


def whole_patches(module: nn.Module, size: tuple[int, int]) -> tuple[int, int]:
    """The size of whole patches that is nearest; as it is for networks without patches."""
    embedding = getattr(module, 'patch_embed', None)  # of mmpretrain's: with a kernel of that size
    kernel = getattr(getattr(embedding, 'projection', None), 'kernel_size', 1)
    patch = getattr(module, 'patch_size', kernel)
    rows, columns = as_pair(patch)
    height, width = size
    return max(1, round(height / rows)) * rows, max(1, round(width / columns)) * columns


def _resized(image: Tensor, size: tuple[int, int] | None) -> Tensor:
    if size is None or tuple(image.shape[1:]) == tuple(size):
        return image.float()
    return F.interpolate(image[None].float(), size=size, mode='bilinear', antialias=True)[0]


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
