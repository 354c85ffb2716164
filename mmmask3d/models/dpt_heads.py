"""DPT's blocks (Ranftl et al., ICCV 2021) on plain maps of a ViT, and segmentation with them."""

from collections.abc import Sequence
from typing import Any

from mmseg.models.decode_heads.dpt_head import DPTHead
from torch import Tensor

from mmmask3d.registry import MODELS


class PlainMapsDPTHead(DPTHead):
    """mmseg's ``DPTHead`` for four maps without class token, as ``Mask3DViT`` returns them.

    Args:
        in_channels: channels of the four maps, as the backbone gives them; equal for a ViT.
        **kwargs: arguments of ``DPTHead``; ``embed_dims`` follows ``in_channels``.

    Raises:
        ValueError: the maps differ in channels, or ``readout_type`` asks for a class token.
    """

    def __init__(self, in_channels: Sequence[int], **kwargs: Any) -> None:
        name = type(self).__name__
        if len(set(in_channels)) != 1 or len(in_channels) != 4:
            raise ValueError(
                f'{name}: expected four maps of equally many channels (out_indices of a ViT), got '
                f'in_channels={list(in_channels)}.'
            )
        if kwargs.get('readout_type', 'ignore') != 'ignore':
            raise ValueError(
                f'{name}: the backbone gives maps without class token; readout_type must be '
                f"'ignore', got {kwargs['readout_type']!r}."
            )
        super().__init__(
            embed_dims=in_channels[0],
            in_channels=list(in_channels),
            in_index=list(range(4)),
            input_transform='multiple_select',
            **kwargs,
        )

    def _transform_inputs(self, inputs: Sequence[Tensor]) -> list[tuple[Tensor, None]]:
        # mmseg's blocks unpack (map, class token); a bare batch of exactly two passes their check
        # of length 2 and is torn apart.
        return [(feature, None) for feature in super()._transform_inputs(inputs)]


@MODELS.register_module()
class DPTSegHead(PlainMapsDPTHead):
    """Semantic segmentation; with a patch of 16 the logits have about half the resolution."""
