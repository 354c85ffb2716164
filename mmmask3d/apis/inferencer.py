"""Complete the depth of RGB-D frames with a pre-trained model, and give its encoder's features."""

import copy
import logging
import math
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
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
from mmmask3d.weights.export import pipeline_of
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
        weights: Checkpoint, path or URL, that fills the whole model.
        pretrained: True for the published weights of a name in the zoo; None for the same where
            ``model`` is a name and ``weights`` is not given; False, without ``weights``, for a
            network as initialised.
        device: Where the model goes; the best there is by default.
        show_progress: Whether to show a progress bar.

    Raises:
        ValueError: There are no weights, or no model, or the config's pipeline of validation is
            none whose result can be brought back to the frame.
        TypeError: The model is no :class:`~mmmask3d.models.MaskedRGBD`.
        RuntimeError: The weights do not fill the model; lists the tensors.
        CheckpointError: The file is damaged, or would have to be unpickled.
    """

    def __init__(
        self,
        model: str | os.PathLike | Config | dict | None = None,
        weights: str | os.PathLike | None = None,
        pretrained: bool | None = None,
        device: str | torch.device | None = None,
        show_progress: bool = True,
    ) -> None:
        if model is None:
            raise ValueError(
                'MaskedRGBDInferencer needs a model: a name of mmmask3d.apis.list_models(), or a '
                'config. The config text inside a checkpoint is not used: it is Python, and '
                'running it would run whatever a downloaded file holds.'
            )
        cfg, name = config_of(model)
        if weights is not None and pretrained:
            raise ValueError('Give weights or pretrained=True, not both.')
        if weights is None and pretrained is not False:
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
        loader = _validation_loader(self.cfg) or self.cfg.train_dataloader
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
                in metres, (H, W) integers, or None. 0, NaN, infinite and negative depth are no
                reading.
            batch_size: Masked frames in one pass of the network.
            num_masks: Masks drawn of each frame.
            seed: Of the masks, at least 0. Frames of one list get the same draws, so a frame's
                result does not depend on the others. The global generators are left as they are.
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
        masked = self._masked(frames, num_masks, seed, DepthReading(**kwargs))
        return self._run(_batches(masked, batch_size), num_masks, out_dir, return_pictures)

    @torch.no_grad()
    def extract_features(
        self, inputs: Any, batch_size: int = 8, **kwargs: Any
    ) -> list[tuple[Tensor, ...]]:
        """Feature maps of the RGB encoder, of the whole image; depth is not looked at.

        Args:
            inputs: As of a call.
            batch_size: Frames in one pass.
            **kwargs: ``img_suffix``, ``depth_suffix`` of a folder.

        Returns:
            For each frame a map ``(C, h, w)``, float32 on the CPU, for each of the backbone's
            ``out_indices``.
        """
        frames = self._frames(inputs, kwargs, with_depth=False)
        if kwargs:
            raise TypeError(f'extract_features has no option {", ".join(sorted(kwargs))}.')
        _check_number('batch_size', batch_size, 1)
        pre = self.model.data_preprocessor
        normalise = image_normaliser(
            dict(
                mean=pre.mean.flatten().tolist(),
                std=pre.std.flatten().tolist(),
                bgr_to_rgb=pre.bgr_to_rgb,
            )
        )
        images = self._with_progress(
            (self._resize(f.load(DepthReading(), with_depth=False))['img'] for f in frames),
            len(frames),
            'Features',
        )
        features: list[tuple[Tensor, ...]] = []
        for batch in _batches(((image.shape, image) for image in images), batch_size):
            stacked = torch.from_numpy(np.stack(batch)).permute(0, 3, 1, 2)
            maps = self.model.extract_feat(normalise(stacked.to(pre.device)))
            maps = [level.float().cpu() for level in maps]
            features.extend(zip(*maps, strict=True))
        return features

    def _frames(self, inputs: Any, options: dict, with_depth: bool = True) -> list[InputFrame]:
        if isinstance(inputs, list) and inputs and isinstance(inputs[0], InputFrame):
            return inputs
        suffixes = {k: options.pop(k, None) for k in ('img_suffix', 'depth_suffix')}
        return read_inputs(inputs, **suffixes, with_depth=with_depth)

    def _with_progress(self, items: Iterable, total: int, title: str) -> Iterable:
        return track(items, description=title, total=total) if self.show_progress else items

    def _run(
        self,
        batches: Iterable[list],
        num_masks: int,
        out_dir: str | os.PathLike | None,
        return_pictures: bool,
    ) -> Iterator[dict]:
        if out_dir is not None:
            Path(out_dir).mkdir(parents=True, exist_ok=True)
        pictured = return_pictures or out_dir is not None
        bgr = self.model.data_preprocessor.bgr_to_rgb
        for batch in batches:
            averages, packed = zip(*batch, strict=True)
            with torch.no_grad():
                samples = self.model.test_step(pseudo_collate(packed))
            for average, data, sample in zip(averages, packed, samples, strict=True):
                if pictured and not average.draws:
                    average.picture = panel_of_sample(data['inputs']['img'], sample, bgr)
                average.add(sample)
                if average.draws < num_masks:
                    continue
                result = average.result()
                if return_pictures:
                    result['picture'] = average.picture
                if out_dir is not None:
                    write_png(Path(out_dir) / f'{average.frame}.png', average.picture)
                yield result

    def _masked(
        self,
        frames: Iterable[InputFrame],
        num_masks: int,
        seed: int,
        reading: DepthReading,
    ) -> Iterator[tuple[tuple, tuple['_Average', dict]]]:
        for frame in frames:
            loaded = frame.load(reading)
            average = _Average(loaded)
            results = self._resize(dict(loaded))
            masking = self._masking_for(frame, results, loaded['valid'].any())
            for draw in range(num_masks):
                with sample_rng(seed, draw):
                    masked = masking(dict(results))
                data = self._packing(masked)
                # One batch has one size and as many kept patches in each frame.
                kept = (int(masked['rgb_mask'].sum()), int(masked['depth_mask'].sum()))
                yield (data['inputs']['img'].shape, *kept), (average, data)

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


class _Average:
    """Mean prediction of one frame over the draws in which a pixel's depth patch was removed."""

    def __init__(self, loaded: dict) -> None:
        self.frame: str = loaded['frame']
        self.depth: np.ndarray = loaded['depth']
        self.valid: np.ndarray = loaded['valid']
        self.reading_unit = 'm' if loaded['depth_kind'] == 'metric' else 'relative'
        self.unit = ''
        self.draws = 0
        self.picture: np.ndarray | None = None
        self._sum: Any = 0.0
        self._count: Any = 0
        self._patch_size = 1

    def add(self, sample: DataSample) -> None:
        """Add a draw."""
        value, self.unit = _prediction_of(sample)
        self._patch_size = sample.metainfo['patch_size']
        removed = _removed_pixels(sample, sample.depth_mask)
        self._sum = self._sum + np.where(removed, value, 0)
        self._count = self._count + removed
        self.draws += 1

    def result(self) -> dict:
        """The frame's result at its own size, see :meth:`MaskedRGBDInferencer.stream`."""
        height, width = self.depth.shape
        prediction = _resize_known(*self._mean(), (width, height))
        completed = None
        if not self.valid.any() or self.unit == self.reading_unit:
            usable = prediction > 0 if self.unit == 'm' else np.isfinite(prediction)
            completed = np.where(usable, prediction, np.float32(np.nan))
            completed[self.valid] = self.depth[self.valid]
        return dict(
            frame=self.frame,
            prediction=prediction,
            completed=completed,
            valid=self.valid,
            unit=self.unit,
        )

    def _mean(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean (h, w) float32, and where there is one, (h, w) bool; says what is left out."""
        known = self._count > 0
        if not known.all():
            patches = np.count_nonzero(~known) // self._patch_size**2
            print_log(
                f"frame '{self.frame}': {patches} depth patches were removed in none of "
                f'{self.draws} draws; the prediction is NaN there. Raise num_masks to reach them '
                f'(a frame with readings in a single patch keeps that one).',
                logger='current',
                level=logging.WARNING,
            )
        return (self._sum / np.maximum(self._count, 1)).astype(np.float32), known


def _removed_pixels(sample: DataSample, mask: Tensor) -> np.ndarray:
    """Pixels, bool (h, w), of the patches that a mask, bool (N,), removes."""
    meta = sample.metainfo
    pixels = patch_mask_to_pixels(mask[None], meta['patch_size'], meta['grid'])
    return pixels[0, 0].cpu().numpy()


def _prediction_of(sample: DataSample) -> tuple[np.ndarray, str]:
    """Predicted map (h, w) and its unit."""
    if 'pred_depth' not in sample:
        return sample.pred_target.float().cpu().numpy(), 'standardised'
    unit = 'relative' if sample.metainfo.get('depth_kind') == 'relative' else 'm'
    return sample.pred_depth.float().cpu().numpy(), unit


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


def _validation_loader(cfg: Config) -> dict | None:
    return cfg.get('test_dataloader') or cfg.get('val_dataloader')


def _validation_pipeline(cfg: Config) -> list[dict]:
    """Pipeline of a config's test or validation data, of the first of several sets.

    Where there are none, as in MAE's configs: the masking and packing of the training after a
    resize to the encoder's size.
    """
    loader = _validation_loader(cfg)
    if loader:
        return [dict(step) for step in pipeline_of(loader['dataset'])]
    if not cfg.get('train_dataloader'):
        raise ValueError(
            'the config has none of test_dataloader, val_dataloader and train_dataloader, whose '
            'pipeline says how a frame is resized and masked.'
        )
    height, width = to_2tuple(cfg.model.backbone.get('img_size', 224))
    training = pipeline_of(cfg.train_dataloader['dataset'])
    resize = dict(type='mmmask3d.RGBDResize', scale=(width, height))
    return [dict(step) for step in (*training[:1], resize, *training[-2:])]


def _batches(items: Iterable[tuple[Any, Any]], size: int) -> Iterator[list]:
    """Lists of at most ``size`` neighbours of one key, in order."""
    batch: list = []
    last = None
    for key, item in items:
        if batch and (len(batch) == size or key != last):
            yield batch
            batch = []
        batch.append(item)
        last = key
    if batch:
        yield batch


def _check_number(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f'{name} must be an int of at least {least}, got {value!r}.')
