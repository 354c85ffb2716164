"""Writes encoders and mmseg segmentors as ONNX files, checked with onnxruntime against torch."""

import importlib.util
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.registry import MODELS
from mmseg.models import BaseSegmentor, DepthEstimator
from torch import Tensor, nn

from mmmask3d.atomic_file import replacing
from mmmask3d.models import Mask3DViT, MaskedRGBD, TimmViT
from mmmask3d.weights.zoo import build_model, config_of, get_model, init_quietly

#: Largest difference that is accepted, relative to the largest value of an output above 1.
TOLERANCE = 1e-4


class OnnxExportError(RuntimeError):
    """A model that cannot be exported, or whose file computes something else."""


def export_onnx(
    config: str | os.PathLike,
    checkpoint: str,
    out: str | os.PathLike,
    size: Sequence[int],
    dynamic_batch: bool = False,
    backbone: bool = False,
    overrides: Mapping[str, Any] | None = None,
) -> list[str]:
    """Export the encoder of a pre-trainer, or an mmseg segmentor, with its weights.

    Args:
        config: path of a config, or name of a model in the zoo.
        checkpoint: path, URL or name in a zoo. It fills the whole segmentor; an encoder is also
            filled from a file of its own.
        out: see :func:`write_onnx`.
        size: see :func:`write_onnx`.
        dynamic_batch: see :func:`write_onnx`.
        backbone: export the backbone, also of a segmentor or detector.
        overrides: of the config, by dotted key.

    Returns:
        What was written, line by line.

    Raises:
        OnnxExportError: the model does not export, or see :func:`write_onnx`.
        RuntimeError: the checkpoint does not fill the model.
    """
    cfg, _ = config_of(config)
    cfg.merge_from_dict(dict(overrides or {}))
    scope = cfg.get('default_scope') or 'mmmask3d'
    kind = _class_of(cfg.model, scope)
    backbone = backbone or issubclass(kind, MaskedRGBD)
    if not backbone and not issubclass(kind, BaseSegmentor):
        raise OnnxExportError(
            f'{config}: {kind.__name__} is neither a pre-trainer nor a segmentor of mmseg. The '
            f'proposals and non-maximum suppression of detectors depend on the data and do not '
            f'export. Export the backbone (--backbone).'
        )
    if backbone and 'backbone' not in cfg.model:
        raise OnnxExportError(f'{config}: expected model.backbone in it, found no such key.')
    if backbone and issubclass(_class_of(cfg.model.backbone, scope), Mask3DViT | TimmViT):
        cfg.model.backbone.pretrained = None
        cfg.model.backbone.init_cfg = dict(type='Pretrained', checkpoint=checkpoint)
        model: Any = build_model(cfg.model, scope)
        init_quietly(model.backbone)
    else:
        model = get_model(cfg, pretrained=checkpoint)
    lines = write_onnx(model.backbone if backbone else model, out, size, dynamic_batch)
    mean, std = (getattr(model.data_preprocessor, name, None) for name in ('mean', 'std'))
    if mean is not None and std is not None:
        wanted = [', '.join(f'{v:g}' for v in t.flatten().tolist()) for t in (mean, std)]
        lines.append(f'give it RGB, 0 to 255, less ({wanted[0]}), divided by ({wanted[1]})')
    return lines


def write_onnx(
    model: nn.Module, out: str | os.PathLike, size: Sequence[int], dynamic_batch: bool = False
) -> list[str]:
    """Write a module for images of one size; the file appears complete and checked or not at all.

    Args:
        model: a backbone, or an mmseg segmentor, on the CPU; it is put into evaluation mode.
        out: the file, ``.onnx``. Its input ``images`` is ``(B, 3, H, W)`` float32, normalised as
            for the model. Its outputs are the maps of a backbone, ``map0``, ``map1``, ..., or what
            a segmentor gives before it is enlarged to the image: ``logits`` ``(B, classes, h, w)``,
            of a depth estimator ``depth`` ``(B, 1, h, w)``.
        size: height and width of the images in pixels.
        dynamic_batch: let B be any number, in place of 1.

    Returns:
        What was written and how far it is from torch, line by line.

    Raises:
        OnnxExportError: a package is missing, the model gives something else than maps, the
            exporter fails, or onnxruntime and torch differ.
    """
    for package in ('onnx', 'onnxscript', 'onnxruntime'):
        if importlib.util.find_spec(package) is None:
            raise OnnxExportError(f"{package} is not installed: pip install 'mmmask3d[onnx]'.")
    if Path(out).suffix != '.onnx':
        raise OnnxExportError(f'{out}: the suffix must be .onnx.')
    wrapped = _Outputs(model).eval()
    images = _images(2 if dynamic_batch else 1, size)  # a batch of 1 would be taken as fixed
    with torch.no_grad():
        expected = wrapped(images)
    other = [type(value).__name__ for value in expected if not isinstance(value, Tensor)]
    if other:
        raise OnnxExportError(
            f'{type(model).__name__} gives a {other[0]}, expected a map: its head has no logits '
            f'for every place, or the backbone returns class tokens too. Of a segmentor export the '
            f'backbone (--backbone); of a backbone set out_type="featmap".'
        )
    names = [f'map{i}' for i in range(len(expected))]
    if wrapped.segmentor:
        names = ['depth' if isinstance(model, DepthEstimator) else 'logits']
    shapes = ', '.join(f'{n} {tuple(t.shape[1:])}' for n, t in zip(names, expected, strict=True))
    with replacing(out) as temporary:
        _write(wrapped, images, str(temporary), names, dynamic_batch)
        worst = max(
            _difference(wrapped, str(temporary), _images(batch, size), names)
            for batch in ((1, 3) if dynamic_batch else (1,))
        )
    return [
        f'{out}: images ({"B" if dynamic_batch else 1}, 3, {size[0]}, {size[1]}) to {shapes}',
        f'onnxruntime and torch differ by at most {worst:.0e} of the largest value',
    ]


class _Outputs(nn.Module):
    """The maps of a backbone or the one map of a segmentor, as a tuple."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        self.segmentor = isinstance(model, BaseSegmentor)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return (self.model(images, mode='tensor'),) if self.segmentor else tuple(self.model(images))


def _class_of(settings: Mapping, scope: str) -> type:
    with MODELS.switch_scope_and_registry(scope) as registry:
        found = registry.get(settings['type'])
    if found is None:
        raise OnnxExportError(f'{settings["type"]} is no model of the scope {scope}.')
    return found


def _images(batch: int, size: Sequence[int]) -> Tensor:
    generator = torch.Generator().manual_seed(batch)
    return torch.randn(batch, 3, *size, generator=generator)


def _write(
    model: _Outputs, images: Tensor, path: str, names: list[str], dynamic_batch: bool
) -> None:
    batch = {0: torch.export.Dim.DYNAMIC} if dynamic_batch else {}
    try:
        with torch.no_grad():
            torch.onnx.export(
                model, (images,), path, input_names=['images'], output_names=names,
                dynamic_shapes=(batch,), dynamo=True, external_data=False, verbose=False,
            )  # fmt: skip
    except Exception as error:  # the exporter's own, of many kinds, around the one that tells
        reason: BaseException = error
        while reason.__cause__ is not None:
            reason = reason.__cause__
        text = (str(reason).strip().splitlines() or [''])[0]
        raise OnnxExportError(
            f'torch.onnx does not export this model ({type(reason).__name__}: {text}).'
        ) from error


def _difference(model: _Outputs, path: str, images: Tensor, names: list[str]) -> float:
    """Largest difference between onnxruntime and torch, relative to the largest value above 1."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
    with torch.no_grad():
        expected = model(images)
    worst = 0.0
    found: Any = session.run(names, {'images': images.numpy()})
    for name, ours, theirs in zip(names, expected, found, strict=True):
        scale = max(float(ours.abs().max()), 1.0)
        difference = float((torch.from_numpy(theirs) - ours).abs().max()) / scale
        if not difference < TOLERANCE:
            raise OnnxExportError(
                f'{name}: onnxruntime gives other values than torch; they differ by '
                f'{difference:.1e} of the largest, expected less than {TOLERANCE:g}. Nothing was '
                f'written.'
            )
        worst = max(worst, difference)
    return worst
