"""ViTDet's simple feature pyramid: maps of several strides from the maps of a plain transformer."""

import math
from collections.abc import Sequence

import torch
from mmengine.model import BaseModule, ModuleList
from mmpretrain.models.utils import build_norm_layer
from torch import Tensor, nn


class PyramidLevel(BaseModule):
    """One level: rescale a map by a power of two, crop it, give it its channels.

    Upwards by transposed convolutions of stride 2, each halving the channels, with norm and GELU
    between two of them; downwards by max pooling 2x2; then a 1x1 convolution and a norm (ViTDet,
    Li et al., ECCV 2022, arXiv 2203.16527, section 3 and appendix A.2). ViTDet's 3x3 convolution
    behind these is left to the neck or head that follows: at a ResNet's 2048 channels it would
    have 38 million weights.

    Args:
        in_channels: channels of the transformer.
        in_stride: stride of its map, the patch size.
        stride: stride of the level.
        out_channels: channels of the level.
        norm_cfg: norm layers.

    Raises:
        ValueError: one stride is not the other times a power of two, or the channels cannot be
            halved that often.
    """

    def __init__(
        self, in_channels: int, in_stride: int, stride: int, out_channels: int, norm_cfg: dict
    ):
        super().__init__()
        self.stride = stride
        steps = math.log2(in_stride / stride)
        if not steps.is_integer():
            raise ValueError(
                f'A map of stride {stride} cannot be made from patches of {in_stride} pixels by '
                f'doubling or halving. Choose out_strides among '
                f'{[in_stride * k // 4 for k in (1, 2, 4, 8) if in_stride * k % 4 == 0]} '
                f'or another patch_size.'
            )
        channels, layers = in_channels, []
        for step in range(max(int(steps), 0)):
            if channels % 2:
                raise ValueError(
                    f'{in_channels} channels cannot be halved {int(steps)} times, which a level '
                    f'of stride {stride} from patches of {in_stride} pixels needs.'
                )
            if step:
                layers += [build_norm_layer(norm_cfg, channels), nn.GELU()]
            layers.append(nn.ConvTranspose2d(channels, channels // 2, kernel_size=2, stride=2))
            channels //= 2
        # ceil_mode: a ResNet's maps have ceil(H / stride) rows.
        layers += [nn.MaxPool2d(2, ceil_mode=True) for _ in range(max(-int(steps), 0))]
        self.rescale = nn.Sequential(*layers)
        self.project = nn.Conv2d(channels, out_channels, kernel_size=1, bias=False)
        self.norm = build_norm_layer(norm_cfg, out_channels)

    def init_weights(self) -> None:
        """Initialise the convolutions so that they keep the variance of their input."""
        super().init_weights()
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                # Kernel and stride are equal: each output pixel sums over the channels only.
                nn.init.normal_(module.weight, std=module.in_channels**-0.5)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Map ``(B, C, ceil(H / p), ceil(W / p))`` of an image of ``size`` (H, W) to the level.

        Returns:
            ``(B, out_channels, ceil(H / stride), ceil(W / stride))``. What belongs to the padding
            of the last patches is cropped at the right and bottom.
        """
        height, width = (-(-side // self.stride) for side in size)
        return self.norm(self.project(self.rescale(x)[..., :height, :width]))


class SimplePyramid(BaseModule):
    """Independent levels side by side; there are no connections between them (ViTDet).

    Args:
        in_channels: channels of the transformer.
        in_stride: stride of its maps, the patch size.
        strides: stride of each level.
        out_channels: channels of each level.
        norm_cfg: norm layers.
    """

    def __init__(
        self,
        in_channels: int,
        in_stride: int,
        strides: Sequence[int],
        out_channels: Sequence[int],
        norm_cfg: dict,
    ):
        super().__init__()
        self.levels = ModuleList(
            PyramidLevel(in_channels, in_stride, stride, channels, norm_cfg)
            for stride, channels in zip(strides, out_channels, strict=True)
        )

    def forward(self, maps: Sequence[Tensor], size: torch.Size) -> tuple[Tensor, ...]:
        """One map of the transformer for each level, and the size (H, W) of the image."""
        return tuple(level(x, size) for level, x in zip(self.levels, maps, strict=True))
