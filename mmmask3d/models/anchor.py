"""A frozen teacher that keeps an encoder's features where they are while it learns depth."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmmask3d.models.encoder import RGBEncoder
from mmmask3d.models.patches import gather_tokens
from mmmask3d.registry import MODELS

_LOSSES = ('cosine', 'smooth_l1')


class _Hidden(list[Any]):
    """Hides a module from state dicts and optimisers; copies of a model (EMA) share it."""

    def __deepcopy__(self, memo: dict) -> '_Hidden':
        return self


@MODELS.register_module()
class FeatureAnchor(BaseModule):
    """Distance of the encoder's patch tokens to those of a frozen teacher.

    The teacher sees the whole image.

    Without ``teacher`` it is the encoder itself as it was before training: continued pre-training
    then gains geometry and keeps what the encoder knew (Depth Anything, arXiv 2401.10891, section
    3.3, aligns with a frozen encoder in the same way). With the encoder's own grid and masks the
    kept tokens have to predict what they would be if nothing were removed. With another encoder as
    ``teacher`` it is distillation.

    The teacher is no submodule: its weights are in no checkpoint, take no gradient and no
    optimiser state, and follow the images to their device.

    Args:
        embed_dims: channels of the trained encoder; filled in by the pre-trainer.
        weight: factor of the loss.
        loss: ``'cosine'``, one minus the cosine of both tokens; or ``'smooth_l1'`` between tokens
            that are standardised over their channels.
        margin: cosine above which a token costs nothing (Depth Anything takes 0.85); None for no
            such bound. For ``'cosine'`` only.
        layers: layers whose tokens are compared, those of the last one after its norm; negative
            ones counted from the end.
        teacher: config of another encoder, with its weights; None for a copy of the trained one.
            Where its channels differ, a linear layer that is trained along maps to them.
        img_size: ``(height, width)`` that images are resized to for the teacher; None for the
            size at hand. Multiples of the teacher's patch; maps on another patch grid are
            resampled to the trained encoder's.

    Raises:
        ValueError: an unknown loss, a margin that does not fit it, or a teacher without weights.
    """

    def __init__(
        self,
        embed_dims: int,
        weight: float = 5.0,
        loss: str = 'cosine',
        margin: float | None = None,
        layers: tuple[int, ...] = (-1,),
        teacher: dict | None = None,
        img_size: tuple[int, int] | None = None,
    ):
        super().__init__()
        if loss not in _LOSSES:
            raise ValueError(f'FeatureAnchor.loss is {loss!r}; expected one of {_LOSSES}.')
        if margin is not None and (loss != 'cosine' or not -1 < margin <= 1):
            raise ValueError(
                f'FeatureAnchor.margin={margin} with loss={loss!r}: expected a cosine, with '
                f"loss='cosine'."
            )
        self.weight = weight
        self.loss_type = loss
        self.margin = margin
        self.layers = tuple(layers)
        self.img_size = None if img_size is None else tuple(img_size)
        self.teacher_cfg = teacher
        self._teacher = _Hidden()
        self.projections = nn.ModuleList()
        if teacher is not None:
            built = MODELS.build(teacher)
            if not built.has_weights():
                raise ValueError(
                    f'The teacher of an anchor would have random weights: {teacher}. Give it '
                    f'pretrained or init_cfg.'
                )
            self._teacher.append(built)
            if built.embed_dims != embed_dims:
                self.projections.extend(
                    nn.Linear(embed_dims, built.embed_dims) for _ in self.layers
                )

    @property
    def teacher(self) -> RGBEncoder:
        """The frozen encoder.

        Raises:
            RuntimeError: the trained encoder has not been initialised yet.
        """
        if not self._teacher:
            raise RuntimeError(
                'The anchor has no teacher yet: it is a copy of the encoder after init_weights(), '
                'which has not been called.'
            )
        encoder: RGBEncoder = self._teacher[0]
        return encoder

    def set_teacher(self, encoder: nn.Module) -> None:
        """Copy the trained encoder as it is now, or load the weights of the configured teacher."""
        if self.teacher_cfg is None:
            self._teacher = _Hidden([copy.deepcopy(encoder)])
        else:
            self._teacher[0].init_weights()
        self._teacher[0].requires_grad_(False)
        self._teacher[0].eval()

    def shares(self, encoder: nn.Module) -> bool:
        """Whether the teacher is a copy of the encoder that is equal in all that is frozen there.

        It is not where other weights were loaded since: of a stage in which those layers trained.
        """
        if self.teacher_cfg is not None:
            return False
        own = dict(self._teacher[0].named_parameters())
        return all(
            torch.equal(parameter, own[name].to(parameter.device))
            for name, parameter in encoder.named_parameters()
            if not parameter.requires_grad
        )

    @torch.no_grad()
    def targets(
        self, images: Tensor, grid: tuple[int, int], frozen: Tensor | None = None
    ) -> list[Tensor]:
        """Teacher's tokens of each compared layer on the trained encoder's grid: ``(B, N, C)``.

        Args:
            images: ``(B, 3, H, W)``, normalised for the teacher.
            grid: the trained encoder's patch rows and columns.
            frozen: tokens after the frozen stages of the trained encoder, where the teacher
                :meth:`shares` them.
        """
        teacher: Any = self.teacher
        teacher.to(images.device)
        if self.img_size is not None and images.shape[-2:] != self.img_size:
            images = F.interpolate(images, self.img_size, mode='bicubic', antialias=True)
            frozen = None
        misfit = [side % teacher.patch_size for side in images.shape[-2:]]
        if any(misfit):
            rows, columns = (side * teacher.patch_size for side in grid)
            raise ValueError(
                f"Images of {tuple(images.shape[-2:])} (height, width) do not fill the teacher's "
                f"patches of {teacher.patch_size}, so its map would not lie on the encoder's. Set "
                f'anchor.img_size to multiples, e.g. ({rows}, {columns}), the same grid.'
            )
        out = []
        for features in teacher(images, layers=self.layers, frozen=frozen):
            if features.shape[-2:] != grid:
                features = F.interpolate(features.float(), grid, mode='bilinear')
            out.append(features.flatten(2).transpose(1, 2))
        return out

    def forward(
        self, tokens: tuple[Tensor, ...], targets: Sequence[Tensor], keep_ids: Tensor
    ) -> Tensor:
        """Loss of the kept tokens.

        Args:
            tokens: of each compared layer, without extra tokens: ``(B, K, C)``.
            targets: of :meth:`targets`.
            keep_ids: kept patches ``(B, K)`` int64.

        Returns:
            A scalar float32, the mean over tokens and layers times ``weight``.
        """
        losses = []
        for i, (own, full) in enumerate(zip(tokens, targets, strict=True)):
            own = self.projections[i](own) if len(self.projections) else own
            losses.append(self.compare(own.float(), gather_tokens(full, keep_ids).float()))
        return self.weight * torch.stack(losses).mean()

    def compare(self, own: Tensor, target: Tensor) -> Tensor:
        """Mean distance of tokens ``(B, K, C)``."""
        if self.loss_type == 'smooth_l1':
            own, target = (F.layer_norm(t, t.shape[-1:]) for t in (own, target))
            total = F.smooth_l1_loss(own, target, reduction='sum')
            return total / max(own.numel(), 1)  # no token may be kept
        cosine = F.cosine_similarity(own, target, dim=-1)
        if self.margin is not None:
            cosine = torch.where(cosine > self.margin, 1.0, cosine)
        return (1 - cosine).sum() / max(cosine.numel(), 1)
