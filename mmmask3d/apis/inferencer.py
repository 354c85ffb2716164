"""Complete the depth of RGB-D frames with a pre-trained model, and give its encoder's features."""

import copy
import logging
import math
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from itertools import groupby
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.device import get_device
from mmengine.logging import print_log
from mmengine.registry import DefaultScope
from mmengine.utils import to_2tuple
from mmpretrain.structures import DataSample
from rich.progress import track
from torch import Tensor

from mmmask3d.apis.inference_inputs import DepthReading, InputFrame, read_inputs
from mmmask3d.datasets.masking_config import hand_masking_to, masking_defaults
from mmmask3d.datasets.nearest import resize_nearest
from mmmask3d.datasets.sampling import sample_rng
from mmmask3d.datasets.transforms import (
    DepthAwareMasking,
    LoadRGBD,
    PackRGBDInputs,
    RGBDResize,
)
from mmmask3d.datasets.transforms.masking import patches_with_readings
from mmmask3d.evaluation.frozen_features import image_normaliser
from mmmask3d.inspection.sources import rgbd_configs
from mmmask3d.models.masked_rgbd import MaskedRGBD
from mmmask3d.models.patches import patch_mask_to_pixels
from mmmask3d.registry import TRANSFORMS
from mmmask3d.visualization import panel_of_sample, write_png
from mmmask3d.weights.index import SCHEME
from mmmask3d.weights.zoo import config_of, get_model


class MaskedRGBDInferencer:
    """Run a masked RGB-D pre-trainer on frames of one's own.

    A network that was trained to predict removed patches is asked the same here: of each frame
    ``num_masks`` masks are drawn with the config's ratios, and the prediction at a pixel is the
    mean over the draws in which its *depth* patch was removed. So a prediction never comes from a
    reading at its own place.

    Args:
        model: Name in the zoo, path of a config file, or a config.
        weights: Checkpoint, path or URL, that fills the whole model; by default the published one
            of a name in the zoo.
        pretrained: False, without ``weights``, for a network as initialised.
        device: Where the model goes; the best there is by default.
        show_progress: Whether to show a progress bar.

    Raises:
        ValueError: There are no weights, or the config's pipeline of validation is none whose
            result can be brought back to the frame.
        TypeError: The model is no :class:`~mmmask3d.models.MaskedRGBD`.
        RuntimeError: The weights do not fill the model; lists the tensors.
        CheckpointError: The file is damaged, or would have to be unpickled.
    """

    def __init__(
        self,
        model: str | os.PathLike | Config | dict,
        weights: str | os.PathLike | None = None,
        pretrained: bool = True,
        device: str | torch.device | None = None,
        show_progress: bool = True,
    ) -> None:
        cfg, name = config_of(model)
        if weights is None and pretrained:
            if name is None:
                raise ValueError(
                    'There are no weights: give weights=<checkpoint>, or the name of a model '
                    'with published ones. pretrained=False asks for a network as initialised.'
                )
            weights = f'{SCHEME}{name}'
        if weights is None:
            warnings.warn('The network is as initialised, without weights.', stacklevel=2)
        built = get_model(cfg, pretrained=weights or False, device=device or get_device())
        if not isinstance(built, MaskedRGBD):
            raise TypeError(
                f'MaskedRGBDInferencer runs a MaskedRGBD, and this config builds a '
                f'{type(built).__name__}; use the inferencer of its own package.'
            )
        self.cfg, self.show_progress = cfg, show_progress
        self.model: Any = built
        self._resize, self._masking, self._packing = validation_steps(cfg)
        hand_masking_to(self._masking, masking_defaults(cfg, built))

    @property
    def depth_settings(self) -> dict[str, Any]:
        """How the config's data sets store depth: options for a call on files of theirs.

        ``inferencer(folder, **inferencer.depth_settings)`` reads ``depth_scale``, ``depth_kind``,
        ``depth_invalid`` and the limits as training did. A call does not take them by itself,
        since frames of one's own are seldom stored like the data that was trained on.

        Raises:
            ValueError: The sets of the config differ in them.
        """
        cfg = self.cfg
        loader = cfg.get('test_dataloader') or cfg.get('val_dataloader') or cfg.train_dataloader
        names = [field.name for field in fields(DepthReading)]
        defaults = dict(depth_scale=1000.0)  # of RGBDDataset; the others have one in common
        found = [
            defaults | {name: leaf[name] for name in names if name in leaf}
            for leaf in rgbd_configs(loader['dataset'], 'the config')
        ]
        if any(settings != found[0] for settings in found):
            raise ValueError(
                f'the data sets of the config store depth in several ways: {found}. Give the '
                f'options of the one that the frames belong to.'
            )
        return found[0]

    def __call__(self, inputs: Any, *, return_pictures: bool = False, **options: Any) -> dict:
        """Predict and complete the depth of frames.

        Args:
            inputs: See :meth:`stream`.
            return_pictures: Whether to return the pictures.
            **options: Those of :meth:`stream`.

        Returns:
            ``predictions``: a dict for each frame, see :meth:`stream`; ``visualization``: RGB
            uint8 pictures, or None where ``return_pictures`` is not set.
        """
        frames = self._frames(inputs, options)
        found = self.stream(frames, return_pictures=return_pictures, **options)
        predictions = list(self._with_progress(found, len(frames), 'Inference'))
        pictures = [result.pop('picture') for result in predictions] if return_pictures else None
        return dict(predictions=predictions, visualization=pictures)

    def stream(
        self,
        inputs: Any,
        *,
        batch_size: int = 8,
        num_masks: int = 8,
        seed: int = 0,
        out_dir: str | os.PathLike | None = None,
        return_pictures: bool = False,
        **kwargs: Any,
    ) -> Iterator[dict]:
        """Do what a call does, frame by frame, for more of them than fit into memory.

        Args:
            inputs: One frame, a list of frames, or a folder with ``rgb/`` and ``depth/``. A frame
                is ``dict(img=..., depth=...)``, a tuple ``(img, depth)``, or an image alone.
                ``img`` is a path or (H, W, 3) uint8 in BGR order; ``depth`` a path, (H, W) floats
                in metres, (H, W) integers in millimetres, or None.
            batch_size: Masks of a frame in one pass of the network.
            num_masks: Masks drawn of each frame.
            seed: Of the masks, at least 0; the same draws for every frame.
            out_dir: Folder for a picture of each frame, ``<name of the frame>.png``.
            return_pictures: Whether results have a ``picture``.
            **kwargs: Fields of :class:`~mmmask3d.apis.inference_inputs.DepthReading`
                (``depth_scale``, ``depth_kind``, ``depth_invalid``, ``min_depth``,
                ``max_depth``); and ``img_suffix``, ``depth_suffix`` of a folder.

        Yields:
            A dict for each frame, all maps (H, W), of the frame's own size:

            - ``frame``: its name.
            - ``prediction``: float32, NaN where the depth patch was removed in no draw.
            - ``unit`` of the prediction: 'm', 'relative', or 'standardised' where neither the
              depth target nor kept readings lead to a unit.
            - ``valid``: bool, the readings given.
            - ``completed``: float32, the readings where there are any, the prediction elsewhere,
              NaN where it is NaN or no distance (0 m or less); None where reading and prediction
              have different units.

        Raises:
            ValueError: An option is out of range, or the model predicts no depth.
            FrameError: An input cannot be used; names it.
        """
        frames = self._frames(inputs, kwargs)
        _check_number('batch_size', batch_size, 1)
        _check_number('num_masks', num_masks, 1)
        _check_number('seed', seed, 0)
        if 'depth' not in self.model.heads:
            raise ValueError(
                f'the model predicts {", ".join(self.model.heads)} and no depth; '
                f'extract_features() gives the features of its encoder.'
            )
        reading = DepthReading(**kwargs)
        if out_dir is not None:
            Path(out_dir).mkdir(parents=True, exist_ok=True)

        def results() -> Iterator[dict]:
            for frame in frames:
                loaded = frame.load(reading)
                drawn = self._masked(frame, loaded, num_masks, seed)
                samples: list[DataSample] = []
                with torch.no_grad():
                    for start in range(0, num_masks, batch_size):
                        batch = pseudo_collate(drawn[start : start + batch_size])
                        samples += self.model.test_step(batch)
                result = _completed(loaded, samples)
                if return_pictures or out_dir is not None:
                    bgr = self.model.data_preprocessor.bgr_to_rgb
                    picture = panel_of_sample(drawn[0]['inputs']['img'], samples[0], bgr)
                    if return_pictures:
                        result['picture'] = picture
                    if out_dir is not None:
                        write_png(Path(out_dir) / f'{frame.name}.png', picture)
                yield result

        return results()

    @torch.no_grad()
    def extract_features(self, inputs: Any, batch_size: int = 8) -> list[tuple[Tensor, ...]]:
        """Feature maps of the RGB encoder, of the whole image; depth is not looked at.

        Args:
            inputs: As of a call.
            batch_size: Frames in one pass.

        Returns:
            For each frame a map ``(C, h, w)``, float32 on the CPU, for each of the backbone's
            ``out_indices``.
        """
        frames = read_inputs(inputs, with_depth=False)
        _check_number('batch_size', batch_size, 1)
        pre = self.model.data_preprocessor
        normalise = image_normaliser(pre)
        features: list[tuple[Tensor, ...]] = []
        starts = range(0, len(frames), batch_size)
        for start in self._with_progress(starts, len(starts), 'Features'):
            images = [
                self._resize(frame.load(DepthReading(), with_depth=False))['img']
                for frame in frames[start : start + batch_size]
            ]
            for _, group in groupby(images, np.shape):  # of one size
                stacked = torch.from_numpy(np.stack([*group])).permute(0, 3, 1, 2)
                maps = self.model.extract_feat(normalise(stacked.to(pre.device)))
                features += zip(*(level.float().cpu() for level in maps), strict=True)
        return features

    def _frames(self, inputs: Any, options: dict) -> list[InputFrame]:
        if isinstance(inputs, list) and inputs and isinstance(inputs[0], InputFrame):
            return inputs
        suffixes = {k: options.pop(k, None) for k in ('img_suffix', 'depth_suffix')}
        return read_inputs(inputs, **suffixes)

    def _with_progress(self, items: Iterable, total: int, title: str) -> Iterable:
        return track(items, description=title, total=total) if self.show_progress else items

    def _masked(
        self, frame: InputFrame, loaded: dict, num_masks: int, seed: int
    ) -> list[dict[str, Any]]:
        """The frame as the network takes it, once for each mask that is drawn."""
        resized = self._resize(dict(loaded))
        masking = self._masking_for(frame, resized, loaded['valid'].any())
        drawn = []
        for draw in range(num_masks):
            with sample_rng(seed, draw):
                drawn.append(self._packing(masking(dict(resized))))
        return drawn

    def _masking_for(self, frame: InputFrame, results: dict, has_depth: bool) -> DepthAwareMasking:
        if has_depth:
            if not results['valid'].any():
                raise ValueError(
                    f'{frame.label}: none of its few readings is left at the size of the network, '
                    f'{results["img_shape"]} (height, width), where depth is picked, not mixed. '
                    f'Give depth=None to predict from colour alone.'
                )
            if not self._masking.depth_ratio:
                raise ValueError(
                    "the config's masking removes no depth patch (depth_ratio=0), so nothing is "
                    'predicted.'
                )
            return _reaching(self._masking, results['valid'])
        pre = self.model.data_preprocessor
        if pre.interpolate or pre.depth_target.stats_from == 'kept':
            raise ValueError(
                f"{frame.label} has no depth, and this model (depth_target.stats='kept', or a "
                f'residual head) predicts relative to the readings it is given.'
            )
        masking = copy.copy(self._masking)
        masking.depth_ratio = 1.0
        return masking


def _reaching(masking: DepthAwareMasking, valid: np.ndarray) -> DepthAwareMasking:
    """The masking, with a ratio at which patches with readings are removed as well.

    Patches without a reading are removed first. Where they are nearly as many as are removed at
    all, the others would always be kept, and their holes never be predicted: so at least half of
    them are removed, and one is kept.
    """
    assert masking.patch_size is not None
    if any(side % masking.patch_size for side in valid.shape):
        return masking  # which refuses the frame, and says why
    has_readings = patches_with_readings(valid, masking.patch_size)
    total, known = has_readings.size, int(np.count_nonzero(has_readings))
    removed = round(total * masking.depth_ratio)
    wanted = min(total - known + math.ceil(known / 2), total - 1)
    if removed >= wanted:
        return masking
    masking = copy.copy(masking)
    masking.depth_ratio = wanted / total
    return masking


def _completed(loaded: dict, samples: Sequence[DataSample]) -> dict:
    """A frame's result at its own size, see :meth:`MaskedRGBDInferencer.stream`.

    The prediction of a pixel is the mean over the draws in which its depth patch was removed.
    """
    meta, depth, valid = samples[0].metainfo, loaded['depth'], loaded['valid']
    key, unit = 'pred_depth', 'relative' if meta.get('depth_kind') == 'relative' else 'm'
    if key not in samples[0]:
        key, unit = 'pred_target', 'standardised'
    values = torch.stack([sample.get(key).float() for sample in samples])
    masks = torch.stack([sample.depth_mask for sample in samples])
    removed = patch_mask_to_pixels(masks, meta['patch_size'], meta['grid'])[:, 0].bool()
    count = removed.sum(0)
    mean = values.masked_fill(~removed, 0).sum(0) / count.clamp(min=1)
    known = (count > 0).cpu().numpy()
    if not known.all():
        patches = np.count_nonzero(~known) // meta['patch_size'] ** 2
        print_log(
            f"frame '{loaded['frame']}': {patches} depth patches were removed in none of "
            f'{len(samples)} draws; the prediction is NaN there. Raise num_masks to reach them '
            f'(a frame with readings in a single patch keeps that one).',
            logger='current',
            level=logging.WARNING,
        )
    prediction = _resize_known(mean.cpu().numpy(), known, depth.shape[::-1])
    completed = None
    reading_unit = 'm' if loaded['depth_kind'] == 'metric' else 'relative'
    if not valid.any() or unit == reading_unit:
        usable = prediction > 0 if unit == 'm' else np.isfinite(prediction)
        completed = np.where(usable, prediction, np.float32(np.nan))
        completed[valid] = depth[valid]
    return dict(
        frame=loaded['frame'], prediction=prediction, completed=completed, valid=valid, unit=unit
    )


def _resize_known(values: np.ndarray, known: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize bilinearly, mixing known pixels alone; NaN where the nearest is unknown.

    Args:
        values: (h, w) float32.
        known: (h, w) bool.
        size: Target (width, height).
    """
    if values.shape == size[::-1]:
        return np.where(known, values, np.float32(np.nan))
    weight = cv2.resize(known.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
    total = cv2.resize(np.where(known, values, 0), size, interpolation=cv2.INTER_LINEAR)
    inside = resize_nearest(known, size) & (weight > 0)
    return np.where(inside, total / np.where(inside, weight, 1), np.nan).astype(np.float32)


def validation_steps(cfg: Config) -> tuple[Callable, DepthAwareMasking, PackRGBDInputs]:
    """The config's transforms between loading and masking, its masking and its packing.

    Raises:
        ValueError: There are other transforms.
    """
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope') or 'mmmask3d'):
        transforms = [TRANSFORMS.build(t) for t in _validation_pipeline(cfg)]
    kinds = [type(t).__name__ for t in transforms]
    if not (
        len(transforms) > 2
        and isinstance(transforms[0], LoadRGBD)
        and all(isinstance(t, RGBDResize) for t in transforms[1:-2])
        and isinstance(transforms[-2], DepthAwareMasking)
        and isinstance(transforms[-1], PackRGBDInputs)
    ):
        raise ValueError(
            f"the config's pipeline of validation is {kinds}; expected LoadRGBD, RGBDResize, "
            f'DepthAwareMasking, PackRGBDInputs: what is cut off or turned could not be '
            f'brought back to the frame.'
        )
    return Compose(transforms[1:-2]), transforms[-2], transforms[-1]


def _validation_pipeline(cfg: Config) -> list[dict]:
    """Pipeline of a config's test or validation data, of the first of several sets.

    Where there are none, as in MAE's configs: the masking and packing of the training after a
    resize to the encoder's size.
    """
    if loader := cfg.get('test_dataloader') or cfg.get('val_dataloader'):
        return _pipeline_of(loader['dataset'])
    height, width = to_2tuple(cfg.model.backbone.get('img_size', 224))
    training = _pipeline_of(cfg.train_dataloader['dataset'])
    resize = dict(type='mmmask3d.RGBDResize', scale=(width, height))
    return [*training[:1], resize, *training[-2:]]


def _pipeline_of(dataset: Mapping) -> list[dict]:
    """Pipeline of a data set's config, or of the first of several in it."""
    while 'pipeline' not in dataset:
        dataset = dataset.get('dataset') or dataset['datasets'][0]
    return [dict(step) for step in dataset['pipeline']]


def _check_number(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f'{name} must be an int of at least {least}, got {value!r}.')
