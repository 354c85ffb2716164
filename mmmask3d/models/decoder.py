"""Light transformer decoders over the fused bottleneck."""

from collections.abc import Callable
from typing import Any

import torch
from mmengine.model import BaseModule, ModuleList
from mmengine.model.weight_init import xavier_init
from mmpretrain.models.backbones.vision_transformer import TransformerEncoderLayer
from torch import Tensor, nn

from mmmask3d.models.patches import gather_tokens
from mmmask3d.models.pos_embed import add_sincos
from mmmask3d.registry import MODELS


class Decoder(BaseModule):
    """Common part: layers of a width of their own, and positions.

    Args:
        in_dims: width of the bottleneck.
        embed_dims: own width; defaults to ``in_dims``.
        num_layers: layers; with 0 each place is decoded by itself.
        num_heads: attention heads.
        mlp_ratio: hidden over model width.
        num_extra_tokens: tokens without a place in front of the patches (class token).
    """

    share = 1.0
    """Of the patches that the loss looks at, how many are decoded in a training step."""
    layer_type: Callable[[int, int, int], nn.Module]
    """Makes a layer from its width, heads and hidden width."""

    def __init__(
        self,
        in_dims: int = 512,
        embed_dims: int | None = None,
        num_layers: int = 4,
        num_heads: int = 16,
        mlp_ratio: float = 4.0,
        num_extra_tokens: int = 1,
        init_cfg: dict | None = None,
    ):
        super().__init__(init_cfg)
        width = self.embed_dims = embed_dims or in_dims
        self.num_extra_tokens = num_extra_tokens
        self.proj = nn.Identity() if width == in_dims else nn.Linear(in_dims, width)
        self.layers = ModuleList(
            self.layer_type(width, num_heads, int(mlp_ratio * width)) for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def embed(self, x: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Extra tokens ``(B, E, C)`` and patches with their positions ``(B, N, C)``."""
        x = self.proj(x)
        extra = self.num_extra_tokens
        return x[:, :extra], add_sincos(x[:, extra:], grid)

    def forward(
        self, x: Tensor, grid: tuple[int, int], visible: Tensor, ids: Tensor | None = None
    ) -> Tensor:
        """Decode.

        Args:
            x: the bottleneck ``(B, E + N, C_in)``.
            grid: patch rows and columns, N of them in all.
            visible: places where RGB or depth was kept ``(B, K)`` int64; one where both were may
                be named twice.
            ids: places to decode ``(B, S)`` int64; None for all.

        Returns:
            Tokens ``(B, S, C)``, or ``(B, N, C)`` where all are decoded.
        """
        raise NotImplementedError


@MODELS.register_module()
class DepthDecoder(Decoder):
    """Transformer over all locations of the bottleneck (MAE's decoder on any grid).

    For its arguments see :class:`Decoder`.
    """

    layer_type = TransformerEncoderLayer

    def forward(
        self, x: Tensor, grid: tuple[int, int], visible: Tensor, ids: Tensor | None = None
    ) -> Tensor:
        """See :class:`Decoder`; every place takes part, whichever are asked for."""
        x = torch.cat(self.embed(x, grid), dim=1)
        for layer in self.layers:
            x = layer(x)
        x = x[:, self.num_extra_tokens :]
        return self.norm(x if ids is None else gather_tokens(x, ids))


@MODELS.register_module()
class RGBDecoder(DepthDecoder):
    """The same decoder for an RGB target; a type of its own so that configs read well."""


class CrossAttentionLayer(BaseModule):
    """Pre-norm attention to a context, and an MLP.

    Args:
        embed_dims: width.
        num_heads: attention heads.
        feedforward_channels: width of the hidden layer.
    """

    def __init__(self, embed_dims: int, num_heads: int, feedforward_channels: int):
        super().__init__()
        self.query_norm = nn.LayerNorm(embed_dims, eps=1e-6)
        self.attn = nn.MultiheadAttention(embed_dims, num_heads, batch_first=True)
        self.ffn_norm = nn.LayerNorm(embed_dims, eps=1e-6)
        self.ffn = nn.Sequential(
            nn.Linear(embed_dims, feedforward_channels),
            nn.GELU(),
            nn.Linear(feedforward_channels, embed_dims),
        )

    def init_weights(self) -> None:
        """Xavier, as the layers of the encoder."""
        super().init_weights()
        for layer in (self.ffn[0], self.ffn[2]):
            xavier_init(layer, distribution='uniform')

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Tokens ``(B, S, C)`` that attend to a normalised context ``(B, K, C)``."""
        x = x + self.attn(self.query_norm(x), context, context, need_weights=False)[0]
        out: Tensor = x + self.ffn(self.ffn_norm(x))
        return out


@MODELS.register_module()
class CrossAttentionDecoder(Decoder):
    """Places to decode attend to those where something was kept (CrossMAE, arXiv 2401.14391).

    They do not see each other, so a training step may decode a random ``share`` of them at a
    fraction of the cost, and each comes out as if all had been decoded. A place starts from what
    the bottleneck has there: the mask token of what was removed, and the RGB token where RGB was
    kept.

    Args:
        share: see :class:`Decoder`. Evaluation and prediction decode everything.
        **kwargs: those of :class:`Decoder`.

    Raises:
        ValueError: ``share`` is no share.
    """

    layer_type = CrossAttentionLayer

    def __init__(self, share: float = 0.25, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0 < share <= 1:
            raise ValueError(
                f'CrossAttentionDecoder.share is {share}; expected more than 0 and at most 1.'
            )
        self.share = share
        self.context_norm = nn.LayerNorm(self.embed_dims, eps=1e-6)

    def forward(
        self, x: Tensor, grid: tuple[int, int], visible: Tensor, ids: Tensor | None = None
    ) -> Tensor:
        """See :class:`Decoder`."""
        extra, x = self.embed(x, grid)
        context = self.context_norm(torch.cat((extra, gather_tokens(x, visible)), dim=1))
        if ids is not None:
            x = gather_tokens(x, ids)
        for layer in self.layers:
            x = layer(x, context)
        return self.norm(x)
