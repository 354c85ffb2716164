"""The bottleneck: RGB and depth tokens, one vector per location."""

from typing import Any

import torch
from mmengine.model import BaseModule
from mmengine.model.weight_init import trunc_normal_
from torch import Tensor, nn

from mmmask3d.models.patches import scatter_tokens
from mmmask3d.models.pos_embed import add_sincos
from mmmask3d.registry import MODELS


class Fusion(BaseModule):
    """Common part: project both streams and stand mask tokens where nothing was kept.

    Args:
        rgb_dims: width of the RGB tokens.
        depth_dims: width of the depth tokens; None without a depth branch, where the RGB stream
            passes alone.
        embed_dims: width of the bottleneck and of the decoders.
        num_extra_tokens: class tokens in front of the RGB tokens.
    """

    def __init__(
        self,
        rgb_dims: int,
        depth_dims: int | None,
        embed_dims: int,
        num_extra_tokens: int = 1,
        init_cfg: dict | None = None,
    ):
        super().__init__(init_cfg)
        self.embed_dims = embed_dims
        self.num_extra_tokens = num_extra_tokens
        self.rgb_proj = nn.Linear(rgb_dims, embed_dims)
        self.rgb_mask_token = nn.Parameter(torch.zeros(1, 1, embed_dims))
        self.with_depth = depth_dims is not None
        if depth_dims is not None:
            self.depth_proj = nn.Linear(depth_dims, embed_dims)
            self.depth_mask_token = nn.Parameter(torch.zeros(1, 1, embed_dims))

    def init_weights(self) -> None:
        """Mask tokens as in MAE."""
        super().init_weights()
        trunc_normal_(self.rgb_mask_token, std=0.02)
        if self.with_depth:
            trunc_normal_(self.depth_mask_token, std=0.02)

    def forward(
        self,
        rgb: Tensor,
        rgb_keep: Tensor,
        depth: Tensor | None,
        depth_keep: Tensor,
        grid: tuple[int, int],
    ) -> Tensor:
        """Fuse.

        Args:
            rgb: ``(B, E + K_rgb, C_rgb)``, E extra tokens first.
            rgb_keep: ``(B, K_rgb)`` int64.
            depth: ``(B, K_depth, C_depth)``, or None without a depth branch.
            depth_keep: ``(B, K_depth)`` int64.
            grid: patch rows and columns, N of them in all.

        Returns:
            ``(B, E + N, C)``.
        """
        n = grid[0] * grid[1]
        rgb = self.rgb_proj(rgb)
        extra, rgb = rgb[:, : self.num_extra_tokens], rgb[:, self.num_extra_tokens :]
        rgb = scatter_tokens(rgb, rgb_keep, self.rgb_mask_token, n)
        if self.with_depth:
            depth = scatter_tokens(self.depth_proj(depth), depth_keep, self.depth_mask_token, n)
            rgb = self.fuse(rgb, depth, grid)
        return torch.cat((extra.to(rgb.dtype), rgb), dim=1)

    def fuse(self, rgb: Tensor, depth: Tensor, grid: tuple[int, int]) -> Tensor:
        """Two dense streams ``(B, N, C)`` into one."""
        raise NotImplementedError


@MODELS.register_module()
class AddFusion(Fusion):
    """Sum per location (default; our choice)."""

    def fuse(self, rgb: Tensor, depth: Tensor, grid: tuple[int, int]) -> Tensor:
        """See :class:`Fusion`."""
        return rgb + depth


@MODELS.register_module()
class ConcatFusion(Fusion):
    """Concatenate per location and project back to one width."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.with_depth:
            self.merge = nn.Linear(2 * self.embed_dims, self.embed_dims)

    def fuse(self, rgb: Tensor, depth: Tensor, grid: tuple[int, int]) -> Tensor:
        """See :class:`Fusion`."""
        return self.merge(torch.cat((rgb, depth), dim=-1))


@MODELS.register_module()
class CrossAttentionFusion(Fusion):
    """RGB locations attend to depth locations, added to the RGB stream.

    Args:
        num_heads: attention heads.
        *args: those of :class:`Fusion`.
        **kwargs: those of :class:`Fusion`.
    """

    def __init__(self, *args: Any, num_heads: int = 8, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.with_depth:
            self.query_norm = nn.LayerNorm(self.embed_dims, eps=1e-6)
            self.key_norm = nn.LayerNorm(self.embed_dims, eps=1e-6)
            self.attn = nn.MultiheadAttention(self.embed_dims, num_heads, batch_first=True)

    def fuse(self, rgb: Tensor, depth: Tensor, grid: tuple[int, int]) -> Tensor:
        """See :class:`Fusion`."""
        query = self.query_norm(add_sincos(rgb, grid))
        key = self.key_norm(add_sincos(depth, grid))
        attended, _ = self.attn(query, key, key, need_weights=False)
        return rgb + attended
