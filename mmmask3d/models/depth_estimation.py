"""Monocular depth from RGB with mmseg's ``DepthEstimator``: its head."""

from collections.abc import Sequence
from typing import Any

import torch
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from mmmask3d.models.dpt_heads import PlainMapsDPTHead
from mmmask3d.models.losses import DepthLoss
from mmmask3d.registry import MODELS


@MODELS.register_module()
class DPTDepthHead(PlainMapsDPTHead):
    """Dense prediction transformer (Ranftl et al., ICCV 2021) that gives depth in metres.

    The blocks are those of mmseg's ``DPTHead``, which reads ``gt_sem_seg`` and pairs of map and
    class token; this one reads ``gt_depth_map`` and plain maps. Depth lies between ``min_depth``
    and ``max_depth``, through a sigmoid; readings outside and pixels without a reading enter no
    loss.

    Args:
        in_channels: channels of the four maps, as the backbone gives them; equal for a ViT.
        channels: width of the fusion blocks.
        min_depth: smallest depth in metres.
        max_depth: largest depth in metres.
        loss_decode: one or several losses of :mod:`mmmask3d.models.losses`, on metres.
        dropout_ratio: of the channels before the last convolution.
        **kwargs: arguments of ``DPTHead``; ``embed_dims`` follows ``in_channels``.

    Raises:
        ValueError: the maps differ in channels, the range is empty, or ``readout_type`` asks for
            a class token.
        TypeError: a loss takes no mask of valid pixels.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int = 256,
        min_depth: float = 1e-3,
        max_depth: float = 10.0,
        loss_decode: dict | Sequence[dict] = dict(type='mmmask3d.DepthSILogLoss', lam=0.85),  # noqa: B006
        dropout_ratio: float = 0.0,
        **kwargs: Any,
    ) -> None:
        if not 0 < min_depth < max_depth:
            raise ValueError(
                f'DPTDepthHead: expected 0 < min_depth < max_depth, got {min_depth}, {max_depth}.'
            )
        super().__init__(
            in_channels=in_channels,
            channels=channels,
            num_classes=1,
            threshold=0.0,  # of binary segmentation; unused, and without it mmseg warns
            loss_decode=loss_decode,
            dropout_ratio=dropout_ratio,
            **kwargs,
        )
        self.min_depth = min_depth
        self.max_depth = max_depth
        wrong = [type(m).__name__ for m in self._losses() if not isinstance(m, DepthLoss)]
        if wrong:
            raise TypeError(
                f'DPTDepthHead: {", ".join(wrong)} takes no mask of valid pixels. Use the losses '
                f'of mmmask3d: DepthSILogLoss, DepthL1Loss, DepthL2Loss, DepthBerHuLoss, '
                f'DepthGradientLoss.'
            )

    def _losses(self) -> list[nn.Module]:
        several = isinstance(self.loss_decode, nn.ModuleList)
        return list(self.loss_decode) if several else [self.loss_decode]

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Predict depth.

        Args:
            inputs: four maps ``(B, C, h, w)`` of one size.

        Returns:
            ``(B, 1, H', W')`` in metres, float32, at about half the input's resolution.
        """
        logits = super().forward(inputs).float()
        return self.min_depth + (self.max_depth - self.min_depth) * logits.sigmoid()

    def loss_by_feat(
        self, pred_depth: Tensor, batch_data_samples: Sequence[SegDataSample]
    ) -> dict[str, Tensor]:
        """Loss over valid pixels.

        Args:
            pred_depth: ``(B, 1, h, w)`` metres.
            batch_data_samples: with ``gt_depth_map`` of data ``(1, H, W)``, metres, 0 = none.
        """
        target = torch.stack([sample.gt_depth_map.data for sample in batch_data_samples])
        pred_depth = nn.functional.interpolate(
            pred_depth, target.shape[-2:], mode='bilinear', align_corners=self.align_corners
        )
        valid = (target >= self.min_depth) & (target <= self.max_depth)  # False for NaN
        losses: dict[str, Tensor] = {}
        for loss in self._losses():
            name = f'loss_{type(loss).__name__.removesuffix("Loss").lower()}'
            losses[name] = losses.get(name, 0) + loss(pred_depth, target, valid)
        return losses
