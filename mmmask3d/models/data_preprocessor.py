"""From collated RGB-D samples to the batch that :class:`MaskedRGBD` works on, on the device."""

from collections.abc import Mapping, Sequence

import torch
from mmengine.model import BaseDataPreprocessor
from torch import Tensor

from mmmask3d.models.depth_target import DepthTarget
from mmmask3d.models.encoder import RGBEncoder
from mmmask3d.models.interpolation import inverse_distance_fill
from mmmask3d.models.patches import grid_of, keep_ids_from_mask, patch_mask_to_pixels
from mmmask3d.registry import MODELS

_MASKED = ('rgb', 'depth')


@MODELS.register_module()
class RGBDDataPreprocessor(BaseDataPreprocessor):
    """Normalise RGB, make the depth target, and turn masks into indices of kept patches.

    Args:
        mean: RGB mean in 0-255, in RGB order. Defaults to ImageNet's.
        std: RGB standard deviation, on the same scale.
        bgr_to_rgb: whether images come in OpenCV's BGR order (they do from ``LoadRGBD``).
        patch_size: side of a patch in pixels, that of the encoder.
        depth_target: keyword arguments of
            :class:`~mmmask3d.models.depth_target.DepthTarget`.
        depth_dropout: probability that a training frame gives the network no depth at all: all
            its patches count as removed, and RGB alone is left to predict them from.
        ratios_up_to: for training, the largest share of patches removed, by ``'rgb'`` and
            ``'depth'``. Each batch draws a share between that of ``DepthAwareMasking`` and this.
        non_blocking: copy to the device without blocking.
    """

    def __init__(
        self,
        mean: Sequence[float] = (123.675, 116.28, 103.53),
        std: Sequence[float] = (58.395, 57.12, 57.375),
        bgr_to_rgb: bool = True,
        patch_size: int = 16,
        depth_target: dict | None = None,
        depth_dropout: float = 0.0,
        ratios_up_to: Mapping[str, float] | None = None,
        non_blocking: bool = False,
    ):
        super().__init__(non_blocking=non_blocking)
        self.register_buffer('mean', torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer('std', torch.tensor(std).view(-1, 1, 1), persistent=False)
        self.bgr_to_rgb = bgr_to_rgb
        self.patch_size = patch_size
        self.depth_target = DepthTarget(patch_size=patch_size, **(depth_target or {}))
        self.depth_dropout = depth_dropout
        self.ratios_up_to = dict(ratios_up_to or {})
        if not 0 <= depth_dropout <= 1:
            raise ValueError(f'depth_dropout={depth_dropout}: expected a probability, 0 to 1.')
        wrong = {k: v for k, v in self.ratios_up_to.items() if k not in _MASKED or not 0 <= v <= 1}
        if wrong:
            raise ValueError(f'ratios_up_to={wrong}: expected shares of {_MASKED}, 0 to 1.')
        self.interpolate = False
        """Whether batches carry the interpolation of the kept readings (set by the model when a
        head predicts a residual over it)."""

    def forward(self, data: dict, training: bool = False) -> dict:
        """Make a batch.

        Args:
            data: ``inputs`` with ``img`` ``(3, H, W)`` uint8, ``depth`` ``(1, H, W)`` float32 in
                metres (or relative), ``valid`` ``(1, H, W)`` bool, ``rgb_mask`` and ``depth_mask``
                ``(N,)`` bool (1 = removed), perhaps ``view`` ``(4,)``, as lists
                (``pseudo_collate``) or stacked (``default_collate``); ``data_samples``, a list or
                None.
            training: whether to remove more, see ``depth_dropout`` and ``ratios_up_to``.

        Returns:
            ``inputs``: ``img`` ``(B, 3, H, W)`` normalised; ``depth`` (0 where invalid), ``valid``
            and ``target`` ``(B, 1, H, W)``; ``target_stats``; ``rgb_mask`` and ``depth_mask``
            ``(B, N)`` bool; ``rgb_keep`` and ``depth_keep`` ``(B, N_keep)`` int64; ``given``
            ``(B, 1, H, W)`` bool, the readings that the network may be given; ``view`` ``(B, 4)``;
            and ``interpolation`` ``(B, 1, H, W)`` in target units where a head asks for it.
        """
        inputs = {k: _stack(k, v) for k, v in data['inputs'].items()}
        missing = {'img', 'depth', 'valid', 'rgb_mask', 'depth_mask'} - inputs.keys()
        if missing:
            raise KeyError(
                f'The batch lacks {sorted(missing)}. The pipeline must end with '
                f'DepthAwareMasking and PackRGBDInputs.'
            )
        data_samples = data.get('data_samples')
        self._check(inputs, data_samples)
        # On the host, where nonzero needs no synchronisation.
        for name in _MASKED:
            mask = inputs[f'{name}_mask']
            if training and name in self.ratios_up_to:
                mask = inputs[f'{name}_mask'] = _remove_more(mask, self.ratios_up_to[name])
            inputs[f'{name}_keep'] = keep_ids_from_mask(mask, f'{name}_mask')
        inputs['given'] = inputs['valid']
        if training and self.depth_dropout:
            dropped = torch.rand(len(inputs['valid'])) < self.depth_dropout
            # The ids of kept patches stay, as all frames of a batch have equally many; they lead
            # to patches without a reading.
            inputs['depth_mask'] = inputs['depth_mask'] | dropped[:, None]
            inputs['given'] = inputs['valid'] & ~dropped[:, None, None, None]
        batch = self.cast_data(inputs)

        img = batch['img']
        if self.bgr_to_rgb:
            img = img.flip(1)
        batch['img'] = (img.float() - self.mean) / self.std
        # Not a number where there is no reading would survive a multiplication by zero.
        batch['depth'] = torch.where(batch['valid'], batch['depth'].float(), 0)
        kept = self.kept_readings(batch)
        stats_mask = kept if self.depth_target.stats_from == 'kept' else batch['valid']
        batch['target_stats'] = self.depth_target.statistics(batch['depth'], stats_mask)
        batch['target'] = self._encode(batch['depth'], batch)
        if self.interpolate:
            filled = inverse_distance_fill(batch['depth'], kept)
            batch['interpolation'] = self.depth_target.encode(filled, batch['target_stats'])
        return dict(inputs=batch, data_samples=data_samples)

    def kept_readings(self, batch: dict) -> Tensor:
        """Pixels with a reading that the network is given: ``(B, 1, H, W)`` bool."""
        grid = grid_of(batch['valid'].shape[-2], batch['valid'].shape[-1], self.patch_size)
        removed = patch_mask_to_pixels(batch['depth_mask'], self.patch_size, grid)
        return batch['valid'] & ~removed

    def normalised_for(self, img: Tensor, encoder: RGBEncoder) -> Tensor:
        """Normalised images ``(B, 3, H, W)`` in the normalisation that another encoder wants."""
        wanted = encoder.normalisation
        if wanted is None:
            return img
        mean, std = (img.new_tensor(wanted[key]).view(-1, 1, 1) for key in ('mean', 'std'))
        return img * (self.std / std) + (self.mean - mean) / std

    def _encode(self, depth: Tensor, batch: dict) -> Tensor:
        target = self.depth_target.encode(depth, batch['target_stats'])
        return torch.where(batch['valid'], target, 0)

    def _check(self, inputs: dict[str, Tensor], data_samples: list | None) -> None:
        gh, gw = grid_of(inputs['img'].shape[-2], inputs['img'].shape[-1], self.patch_size)
        for name in ('rgb_mask', 'depth_mask'):
            if inputs[name].shape[1] != gh * gw:
                raise ValueError(
                    f'{name} has {inputs[name].shape[1]} patches, but an input of '
                    f'{tuple(inputs["img"].shape[-2:])} with patch_size={self.patch_size} has '
                    f'{gh}x{gw}. patch_size of DepthAwareMasking, of the preprocessor and of the '
                    f'encoder must be the same.'
                )
            if inputs[name].dtype != torch.bool:
                raise TypeError(
                    f'{name} is {inputs[name].dtype}; expected torch.bool with True = removed, as '
                    f'DepthAwareMasking makes it.'
                )
        needs_kept = self.interpolate or self.depth_target.stats_from == 'kept'
        if needs_kept and (self.depth_dropout or self.ratios_up_to.get('depth') == 1):
            raise ValueError(
                "depth_target.stats='kept' and a residual depth head need kept depth patches, and "
                "depth_dropout or ratios_up_to['depth'] removes all of them in some frames."
            )
        if needs_kept and inputs['depth_mask'].all():
            raise ValueError(
                "depth_target.stats='kept' and a residual depth head need kept depth patches, and "
                "every one is removed. Lower the depth ratio, or use stats='all' without residual."
            )
        if self.depth_target.needs_metric:
            for sample in data_samples or []:
                if sample.get('depth_kind', 'metric') != 'metric':
                    raise ValueError(
                        f'{sample.get("depth_path", "a frame")}: its depth is '
                        f'{sample.get("depth_kind")}, but depth_target.mode='
                        f'{self.depth_target.mode!r} is defined for metres. Use '
                        f"mode='standardise' or 'patch', or leave this source out."
                    )


def _remove_more(mask: Tensor, up_to: float) -> Tensor:
    """Remove further patches of ``(B, N)``, as many of each frame as one draw for the batch says.

    Raises:
        ValueError: more than ``up_to`` are removed already.
    """
    total = mask.shape[1]
    kept, least = int((~mask[0]).sum()), total - round(total * up_to)
    if least > kept:
        raise ValueError(
            f'ratios_up_to={up_to} is below the ratio of DepthAwareMasking, which removes '
            f'{total - kept} of {total} patches.'
        )
    keep = int(torch.randint(least, kept + 1, ()))
    order = torch.rand(mask.shape).masked_fill(mask, 2).argsort(dim=1)
    return torch.ones_like(mask).scatter_(1, order[:, :keep], False)


def _stack(name: str, value: Tensor | Sequence[Tensor]) -> Tensor:
    """Stack what ``pseudo_collate`` leaves as a list."""
    if isinstance(value, Tensor):
        return value
    shapes = {tuple(v.shape) for v in value}
    if len(shapes) > 1:
        raise ValueError(
            f'The samples of a batch differ in the shape of {name}: {sorted(shapes)}. End the '
            f'geometric transforms with one size (RGBDRandomResizedCrop, RGBDResize).'
        )
    return torch.stack(list(value))
