"""Prediction heads: tokens to maps, and the losses on them."""

import math
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmmask3d.models.losses import batch_mean
from mmmask3d.models.patches import patch_mask_to_pixels, patchify, scatter_tokens, unpatchify
from mmmask3d.models.surface_normals import plane_normals
from mmmask3d.registry import MODELS


class PixelHead(BaseModule):
    """A linear layer from a patch token to the pixels of the patch.

    Args:
        in_dims: width of the decoder's tokens.
        channels: of the predicted map.
        patch_size: side of a patch in pixels.
        loss_on: ``'masked'`` patches alone, or ``'all'``.
        loss_weight: factor of the head's loss.
    """

    mask_name = 'depth_mask'
    """The patch mask that ``loss_on='masked'`` refers to."""

    def __init__(
        self,
        in_dims: int,
        channels: int,
        patch_size: int = 16,
        loss_on: str = 'masked',
        loss_weight: float = 1.0,
        init_cfg: dict | None = None,
    ):
        super().__init__(init_cfg)
        if loss_on not in ('masked', 'all'):
            raise ValueError(f"loss_on is {loss_on!r}; expected 'masked' or 'all'.")
        self.patch_size = patch_size
        self.loss_on = loss_on
        self.loss_weight = loss_weight
        self.proj = nn.Linear(in_dims, channels * patch_size**2)

    def init_weights(self) -> None:
        """Xavier, as MAE's linear layers."""
        super().init_weights()
        nn.init.xavier_uniform_(self.proj.weight)
        nn.init.zeros_(self.proj.bias)

    def forward(
        self, tokens: Tensor, grid: tuple[int, int], batch: dict, ids: Tensor | None = None
    ) -> Tensor:
        """Predict ``(B, channels, H, W)`` float32.

        Args:
            tokens: ``(B, N, C)``, or ``(B, S, C)`` where a share was decoded.
            grid: patch rows and columns, N of them in all.
            batch: see :meth:`RGBDDataPreprocessor.forward`.
            ids: the decoded patches ``(B, S)`` int64, None for all; others are predicted as 0.
        """
        values = self.proj(tokens).float()
        if ids is not None:
            filler = values.new_zeros(1, 1, values.shape[-1])
            values = scatter_tokens(values, ids, filler, grid[0] * grid[1])
        return unpatchify(values, self.patch_size, grid)

    def loss(
        self, pred: Tensor, grid: tuple[int, int], batch: dict, ids: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Losses by name, each a scalar; names are completed with the head's.

        Args:
            pred: what :meth:`forward` returned.
            grid: patch rows and columns.
            batch: see :meth:`RGBDDataPreprocessor.forward`.
            ids: the decoded patches ``(B, S)``, None for all; the loss looks at no others.
        """
        raise NotImplementedError

    def patches(self, batch: dict, ids: Tensor | None = None) -> Tensor:
        """Patches that the loss looks at, those of ``ids`` if given: ``(B, N)`` bool."""
        mask: Tensor = batch[self.mask_name]
        if ids is not None:
            return torch.zeros_like(mask).scatter(1, ids, True)
        return mask if self.loss_on == 'masked' else torch.ones_like(mask)

    def sample(self, batch: dict, share: float) -> Tensor:
        """A random share of the patches that the loss looks at: ids ``(B, S)`` int64.

        S is the same for every frame, and at least 1 where the loss looks at any.
        """
        looked_at = self.patches(batch)
        count = looked_at.shape[1]
        if self.loss_on == 'masked':
            count -= batch[self.mask_name.replace('mask', 'keep')].shape[1]
        order = torch.rand(looked_at.shape, device=looked_at.device)
        ids = order.masked_fill(~looked_at, 2).argsort(dim=1)
        return ids[:, : math.ceil(share * count)]

    def where(self, grid: tuple[int, int], batch: dict, ids: Tensor | None = None) -> Tensor:
        """Pixels of :meth:`patches`: ``(B, 1, H, W)`` bool."""
        return patch_mask_to_pixels(self.patches(batch, ids), self.patch_size, grid)


@MODELS.register_module()
class DepthHead(PixelHead):
    """Depth reconstruction: valid pixels of the removed depth patches.

    Args:
        loss: a depth loss (:mod:`mmmask3d.models.losses`) or a list of them, each a config or
            just the type's name.
        residual: predict what is to be added to the inverse-distance interpolation of the kept
            readings, rather than depth itself.
        **kwargs: those of :class:`PixelHead`.
    """

    def __init__(
        self,
        in_dims: int,
        loss: dict | str | list[dict | str] = 'DepthL2Loss',
        residual: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(in_dims, 1, **kwargs)
        self.losses = nn.ModuleList(
            MODELS.build(dict(type=c) if isinstance(c, str) else c)
            for c in (loss if isinstance(loss, list | tuple) else [loss])
        )
        names = [type(loss).__name__ for loss in self.losses]
        if len(set(names)) < len(names):
            raise ValueError(f'DepthHead.loss has a type twice: {names}; give each one once.')
        self.residual = residual

    def init_weights(self) -> None:
        """A residual starts at zero, that is, at the interpolation."""
        super().init_weights()
        if self.residual:
            nn.init.zeros_(self.proj.weight)

    def forward(
        self, tokens: Tensor, grid: tuple[int, int], batch: dict, ids: Tensor | None = None
    ) -> Tensor:
        """See :class:`PixelHead`; in units of the depth target."""
        pred = super().forward(tokens, grid, batch, ids)
        return pred + batch['interpolation'] if self.residual else pred

    def loss(
        self, pred: Tensor, grid: tuple[int, int], batch: dict, ids: Tensor | None = None
    ) -> dict[str, Tensor]:
        """See :class:`PixelHead`; one entry a loss where there are several."""
        mask = self.where(grid, batch, ids) & batch['valid']
        values = {
            type(loss).__name__.removeprefix('Depth').removesuffix('Loss').lower(): loss(
                pred, batch['target'], mask
            )
            for loss in self.losses
        }
        if len(values) == 1:
            values = {'': next(iter(values.values()))}
        return {k: self.loss_weight * v for k, v in values.items()}


@MODELS.register_module()
class RGBHead(PixelHead):
    """RGB reconstruction as in MAE: squared error on the removed RGB patches.

    Args:
        norm_pix: standardise each target patch over its pixels and channels (MAE, section 4.1).
        **kwargs: those of :class:`PixelHead`.
    """

    mask_name = 'rgb_mask'

    def __init__(self, in_dims: int, norm_pix: bool = True, **kwargs: Any) -> None:
        super().__init__(in_dims, 3, **kwargs)
        self.norm_pix = norm_pix

    def statistics(self, img: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation of each patch of ``(B, 3, H, W)``, ``(B, N, 1)`` each."""
        patches = patchify(img, self.patch_size)
        var, mean = torch.var_mean(patches, dim=-1, keepdim=True)
        return mean, (var + 1e-6).sqrt()

    def loss(
        self, pred: Tensor, grid: tuple[int, int], batch: dict, ids: Tensor | None = None
    ) -> dict[str, Tensor]:
        """See :class:`PixelHead`."""
        target = patchify(batch['img'], self.patch_size)
        if self.norm_pix:
            mean, std = self.statistics(batch['img'])
            target = (target - mean) / std
        error = (patchify(pred, self.patch_size) - target).square().mean(-1)
        mask = self.patches(batch, ids)
        return {'': self.loss_weight * batch_mean(torch.where(mask, error, 0).sum(), mask.sum())}

    def to_image(self, pred: Tensor, grid: tuple[int, int], batch: dict) -> Tensor:
        """The prediction in the units of the normalised input, for pictures: ``(B, 3, H, W)``.

        With ``norm_pix`` each patch is shown with its true mean and deviation, as MAE does.
        """
        if not self.norm_pix:
            return pred
        mean, std = self.statistics(batch['img'])
        return unpatchify(patchify(pred, self.patch_size) * std + mean, self.patch_size, grid)


@MODELS.register_module()
class NormalHead(PixelHead):
    """Surface normals, derived from depth: one minus the cosine, on removed depth patches.

    The truth is that of :func:`~mmmask3d.models.surface_normals.plane_normals`: planes that fit a
    window, since differences of neighbours see single steps of 8-bit depth.

    Args:
        fov: horizontal field of view in degrees that a pinhole camera is assumed to have; 57 is a
            Kinect's. Relative depth has the same normals. Crops are known from the batch's
            ``view``; without one, images show whole frames.
        window: side of the window in pixels, odd.
        **kwargs: those of :class:`PixelHead`.
    """

    def __init__(self, in_dims: int, fov: float = 57.0, window: int = 9, **kwargs: Any) -> None:
        super().__init__(in_dims, 3, **kwargs)
        self.fov = fov
        self.window = window

    def loss(
        self, pred: Tensor, grid: tuple[int, int], batch: dict, ids: Tensor | None = None
    ) -> dict[str, Tensor]:
        """See :class:`PixelHead`."""
        normals, valid = plane_normals(
            batch['depth'], batch['valid'], self.fov, self.window, view=batch.get('view')
        )
        mask = self.where(grid, batch, ids) & valid
        # The normals have length 1 where the mask holds. Not torch's cosine_similarity, whose norm
        # over a dimension that is not the last takes ten times as long on a CPU.
        length = pred.square().sum(1, keepdim=True).clamp(min=1e-12).sqrt()
        cosine = (pred * normals).sum(1, keepdim=True) / length
        total = torch.where(mask, 1 - cosine, 0).sum()
        return {'': self.loss_weight * batch_mean(total, mask.sum())}
