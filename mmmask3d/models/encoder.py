"""What every RGB encoder of this project gives: the contract of ``Mask3DViT`` and ``TimmViT``."""

from typing import Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class RGBEncoder(Protocol):
    """An image encoder that serves masked pre-training and dense tasks.

    The pre-trainer, the pyramid, layer decay, the probes and the inferencer use these members and
    no others. ``forward(images)`` gives feature maps, ``forward(images, keep_ids)`` the tokens of
    the kept patches, as if the other patches did not exist. Images have any size in the first case,
    and sides that are multiples of the patch in the second.
    """

    patch_size: int
    """Side of a patch in pixels."""
    embed_dims: int
    """Channels of a token."""
    num_layers: int
    """Number of transformer layers."""
    num_extra_tokens: int
    """Class and register tokens, which stand before the patches."""
    grid_size: tuple[int, int]
    """Patch grid ``(rows, columns)`` that positions are stored for."""
    out_indices: tuple[int, ...]
    """Layers whose maps are returned, counted from 0."""
    frozen_stages: int
    """-1: nothing is frozen; 0: what precedes the layers; n: also the first n layers."""
    window_size: int
    """Side of attention windows in patches, 0 for global attention."""

    def forward(self, x: Tensor, keep_ids: Tensor | None = None) -> tuple[Tensor, ...] | Tensor:
        """Maps ``(B, C, h, w)`` of ``out_indices``; with ``keep_ids`` tokens ``(B, E + K, C)``."""

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Depth of a parameter and number of depths, for layer-wise learning-rate decay."""
