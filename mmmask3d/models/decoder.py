"""Light transformer decoders over the fused bottleneck."""

import torch
from mmengine.model import BaseModule, ModuleList
from mmpretrain.models.backbones.vision_transformer import TransformerEncoderLayer
from torch import Tensor, nn

from mmmask3d.models.pos_embed import add_sincos
from mmmask3d.registry import MODELS


@MODELS.register_module()
class DepthDecoder(BaseModule):
    """Transformer over all locations of the bottleneck (MAE's decoder on any grid).

    Args:
        in_dims: width of the bottleneck.
        embed_dims: own width; defaults to ``in_dims``.
        num_layers: transformer layers.
        num_heads: attention heads.
        mlp_ratio: hidden over model width.
        num_extra_tokens: tokens without a place in front of the patches (class token).
    """

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
        self.embed_dims = embed_dims or in_dims
        self.num_extra_tokens = num_extra_tokens
        self.proj = (
            nn.Identity() if self.embed_dims == in_dims else nn.Linear(in_dims, self.embed_dims)
        )
        self.layers = ModuleList(
            TransformerEncoderLayer(self.embed_dims, num_heads, int(mlp_ratio * self.embed_dims))
            for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(self.embed_dims, eps=1e-6)

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        """Decode ``(B, E + N, C_in)`` into one token per patch, ``(B, N, C)``."""
        x = self.proj(x)
        extra = self.num_extra_tokens
        x = torch.cat((x[:, :extra], add_sincos(x[:, extra:], grid)), dim=1)
        for layer in self.layers:
            x = layer(x)
        return self.norm(x[:, extra:])


@MODELS.register_module()
class RGBDecoder(DepthDecoder):
    """The same decoder for an RGB target; a type of its own so that configs read well."""
