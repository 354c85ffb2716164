"""The light depth branch: a small transformer over the kept depth patches."""

import torch
from mmengine.model import BaseModule, ModuleList
from mmpretrain.models.backbones.vision_transformer import TransformerEncoderLayer
from torch import Tensor, nn

from mmmask3d.models.depth_target import masked_mean_std
from mmmask3d.models.patches import gather_tokens, grid_of, patchify
from mmmask3d.models.pos_embed import add_sincos
from mmmask3d.registry import MODELS

_NORMS = ('standardise', 'metric', 'log')


@MODELS.register_module()
class DepthEncoder(BaseModule):
    """Encode kept depth patches and their validity.

    The input is normalised with what the network is given and nothing else: ``'standardise'``
    (default) uses mean and deviation of the valid readings *in the kept patches* of each frame;
    ``'metric'`` divides by ``max_depth``; ``'log'`` takes ``log(d / max_depth)``. Pixels without
    a reading enter as 0 with a validity of 0. A standardised input hides the scale of the frame
    from the network: with a target in metres (metric, log, inverse) use ``'metric'`` or ``'log'``.

    Args:
        patch_size: side of a patch in pixels.
        embed_dims: width.
        num_layers: depth; 2 is light compared with a ViT's 12.
        num_heads: attention heads.
        mlp_ratio: hidden over model width.
        input_norm: see above.
        max_depth: metres, for ``'metric'`` and ``'log'``.
    """

    def __init__(
        self,
        patch_size: int = 16,
        embed_dims: int = 192,
        num_layers: int = 2,
        num_heads: int = 3,
        mlp_ratio: float = 4.0,
        input_norm: str = 'standardise',
        max_depth: float = 10.0,
        init_cfg: dict | None = None,
    ):
        super().__init__(init_cfg)
        if input_norm not in _NORMS:
            raise ValueError(
                f'DepthEncoder.input_norm is {input_norm!r}; expected one of {_NORMS}.'
            )
        self.patch_size = patch_size
        self.embed_dims = embed_dims
        self.input_norm = input_norm
        self.max_depth = max_depth
        self.patch_embed = nn.Linear(2 * patch_size**2, embed_dims)
        self.layers = ModuleList(
            TransformerEncoderLayer(embed_dims, num_heads, int(mlp_ratio * embed_dims))
            for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(embed_dims, eps=1e-6)

    def forward(self, depth: Tensor, valid: Tensor, keep_ids: Tensor) -> Tensor:
        """Encode.

        Args:
            depth: ``(B, 1, H, W)`` metres (or relative); read only where kept and valid.
            valid: ``(B, 1, H, W)`` bool.
            keep_ids: kept patches ``(B, K)`` int64; K may be 0.

        Returns:
            Tokens ``(B, K, C)``.
        """
        grid = grid_of(depth.shape[-2], depth.shape[-1], self.patch_size)
        values = gather_tokens(patchify(depth, self.patch_size), keep_ids)
        given = gather_tokens(patchify(valid, self.patch_size), keep_ids)
        values = torch.where(given, self._normalise(values, given), 0)
        x = self.patch_embed(torch.cat((values, given.to(values.dtype)), dim=-1))
        x = add_sincos(x, grid, keep_ids)
        for layer in self.layers:
            x = layer(x)
        return self.norm(x)

    def _normalise(self, values: Tensor, given: Tensor) -> Tensor:
        if self.input_norm == 'standardise':
            mean, std = masked_mean_std(values.flatten(1), given.flatten(1))
            return (values - mean.unsqueeze(-1)) / std.unsqueeze(-1)
        scaled = values / self.max_depth
        return scaled if self.input_norm == 'metric' else scaled.clamp(min=1e-4).log()
