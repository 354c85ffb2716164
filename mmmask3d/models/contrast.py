"""An optional contrastive term: RGB and depth features of a place agree, those of two do not."""

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmmask3d.models.patches import gather_tokens, scatter_tokens
from mmmask3d.registry import MODELS

_LEVELS = ('patch', 'frame')


@MODELS.register_module()
class RGBDContrast(BaseModule):
    """InfoNCE between the tokens of the RGB encoder and of the depth encoder, in both directions.

    Jamal and Mohareri (arXiv 2408.02245) add such a term to masked RGB-D pre-training. With
    ``'frame'`` the means of both streams are compared over the frames of a batch (of one process);
    with ``'patch'`` the tokens of patches that both streams kept, over those of one frame. Depth
    patches without a reading take no part.

    Args:
        rgb_dims: channels of the RGB tokens; filled in by the pre-trainer.
        depth_dims: channels of the depth tokens; filled in by the pre-trainer.
        level: see above.
        embed_dims: channels that both are projected to.
        temperature: divides the cosines.
        weight: factor of the loss.
    """

    def __init__(
        self,
        rgb_dims: int,
        depth_dims: int,
        level: str = 'patch',
        embed_dims: int = 128,
        temperature: float = 0.07,
        weight: float = 0.1,
    ):
        super().__init__()
        if level not in _LEVELS:
            raise ValueError(f'RGBDContrast.level is {level!r}; expected one of {_LEVELS}.')
        self.level = level
        self.temperature = temperature
        self.weight = weight
        self.rgb_proj = nn.Linear(rgb_dims, embed_dims)
        self.depth_proj = nn.Linear(depth_dims, embed_dims)

    def forward(
        self, rgb: Tensor, rgb_keep: Tensor, depth: Tensor, depth_keep: Tensor, has_reading: Tensor
    ) -> Tensor:
        """Loss, a scalar float32; 0 where there is nothing to compare.

        Args:
            rgb: tokens of the kept RGB patches, without extra tokens: ``(B, K_rgb, C_rgb)``.
            rgb_keep: ``(B, K_rgb)`` int64.
            depth: ``(B, K_depth, C_depth)``.
            depth_keep: ``(B, K_depth)`` int64.
            has_reading: which patches have a reading that the network is given: ``(B, N)`` bool.
        """
        there = has_reading.gather(1, depth_keep)
        if self.level == 'frame':
            share = there.float() / there.sum(1, keepdim=True).clamp(min=1)
            depth = (depth.float() * share.unsqueeze(-1)).sum(1, keepdim=True)
            rgb = rgb.float().sum(1, keepdim=True) / max(rgb.shape[1], 1)
            there = there.any(1)[None] & (rgb_keep.shape[1] > 0)
            rgb, depth = rgb.transpose(0, 1), depth.transpose(0, 1)
        else:
            total = has_reading.shape[1]
            kept = torch.zeros_like(has_reading).scatter(1, rgb_keep, True)
            there = there & kept.gather(1, depth_keep)
            everywhere = scatter_tokens(rgb, rgb_keep, rgb.new_zeros(1, 1, rgb.shape[-1]), total)
            rgb = gather_tokens(everywhere, depth_keep)
        one = F.normalize(self.rgb_proj(rgb).float(), dim=-1)
        other = F.normalize(self.depth_proj(depth).float(), dim=-1)
        with torch.autocast(one.device.type, enabled=False):
            logits = one @ other.transpose(1, 2) / self.temperature  # (groups, K, K)
        # A token that is not there is nobody's partner: the least float, for there may be no other.
        least = torch.finfo(logits.dtype).min
        logits = logits.masked_fill(~there[:, None], least).masked_fill(~there[:, :, None], least)
        losses = [
            -log.diagonal(dim1=1, dim2=2) for log in (logits.log_softmax(2), logits.log_softmax(1))
        ]
        mean = torch.where(there, sum(losses), 0).sum() / there.sum().clamp(min=1)
        return self.weight * mean / 2
