"""The encoder as a drop-in for a ResNet: its strides, its channels, its sizes, its arguments."""

import inspect
from collections.abc import Sequence
from typing import Any

from mmengine.model import BaseModule
from mmpretrain.models import VisionTransformer
from torch import Tensor

from mmmask3d.models.mask3d_vit import Mask3DViT
from mmmask3d.models.simple_pyramid import SimplePyramid
from mmmask3d.registry import MODELS

_ARGUMENTS = {
    *inspect.signature(Mask3DViT.__init__).parameters,
    *inspect.signature(VisionTransformer.__init__).parameters,
}


@MODELS.register_module()
class Mask3DPyramid(BaseModule):
    """:class:`Mask3DViT` with ViTDet's simple feature pyramid, in place of a ResNet.

    It gives what a ResNet-50 gives: four stages of strides 4, 8, 16, 32 with 256, 512, 1024 and
    2048 channels, of ``ceil(H / stride) x ceil(W / stride)`` cells for every input size. For a
    dilated ResNet set ``out_strides``, see docs/backbones.md.

    Args:
        encoder: config of the transformer: a :class:`Mask3DViT` or a :class:`TimmViT`, without
            ``out_indices``. None builds a ``Mask3DViT`` from ``pretrained`` and ``**kwargs``.
        out_strides: stride of each stage: the patch size times a power of two.
        out_channels: channels of each stage.
        out_indices: stages that are returned, in ascending order; only these are built.
        feature_indices: layer of the transformer that feeds the stages, by default the last, as in
            ViTDet; or one for each stage.
        norm_cfg: norm layers of the pyramid (the transformer has its own). None is
            ``dict(type='LN2d', eps=1e-6)``, which normalises over the channels of a cell and is
            safe for a batch of one.
        pretrained: as in :class:`Mask3DViT`: the name of a ResNet, which mmseg injects, is ignored
            with a warning.
        **kwargs: arguments of :class:`Mask3DViT`: ``arch``, ``img_size``, ``patch_size``,
            ``frozen_stages``, ``window_size``, ``init_cfg`` and so on. Weights that ``init_cfg``
            names fill the whole encoder or raise; the pyramid's own layers start at random.

    Raises:
        TypeError: an argument that ``Mask3DViT`` has not, such as those of a ResNet.
        ValueError: strides, channels and indices do not fit together.
    """

    def __init__(
        self,
        out_strides: Sequence[int] = (4, 8, 16, 32),
        out_channels: Sequence[int] = (256, 512, 1024, 2048),
        out_indices: Sequence[int] = (0, 1, 2, 3),
        feature_indices: int | Sequence[int] = -1,
        norm_cfg: dict | None = None,
        pretrained: str | None = None,
        encoder: dict | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        foreign = sorted(set(kwargs) - _ARGUMENTS)
        if foreign:
            raise TypeError(
                f'{type(self).__name__} is no ResNet and has no {", ".join(foreign)}. In a config '
                f'that inherits from one, write _delete_=True into the backbone; for a dilated '
                f'ResNet set out_strides.'
            )
        stages = len(out_strides)
        if len(out_channels) != stages:
            raise ValueError(
                f'out_strides={tuple(out_strides)} has {stages} stages and '
                f'out_channels={tuple(out_channels)} has {len(out_channels)}.'
            )
        self.out_strides = tuple(out_strides)
        self.out_channels = tuple(out_channels)
        self.out_indices = tuple(sorted(set(out_indices)))
        if not self.out_indices or not 0 <= self.out_indices[0] <= self.out_indices[-1] < stages:
            raise ValueError(
                f'out_indices={tuple(out_indices)}: expected some of the {stages} stages 0 to '
                f'{stages - 1}. (Layers of the transformer are chosen by feature_indices.)'
            )
        if isinstance(feature_indices, int):
            feature_indices = [feature_indices] * stages
        elif len(feature_indices) != stages:
            raise ValueError(
                f'feature_indices={tuple(feature_indices)}: expected one layer of the '
                f'transformer, or one for each of the {stages} stages.'
            )
        wanted = [feature_indices[stage] for stage in self.out_indices]
        if encoder is None:
            maps = dict(type='mmmask3d.Mask3DViT', out_type='featmap', pretrained=pretrained)
            encoder = dict(**maps, **kwargs)
        elif kwargs:
            raise ValueError(f'{", ".join(kwargs)} belong into encoder=dict(...), which is given.')
        elif pretrained is not None:
            # mmseg injects the name of a ResNet, which the encoder ignores with a warning.
            encoder = {'pretrained': pretrained, **encoder}
        self.vit = MODELS.build({**encoder, 'out_indices': wanted})
        layers = self.vit.out_indices
        order = sorted(set(layers))  # in which the transformer returns them
        self._sources = tuple(order.index(layer) for layer in layers)
        self.pyramid = SimplePyramid(
            in_channels=self.vit.embed_dims,
            in_stride=self.vit.patch_size,
            strides=[self.out_strides[stage] for stage in self.out_indices],
            out_channels=[self.out_channels[stage] for stage in self.out_indices],
            norm_cfg=norm_cfg or dict(type='LN2d', eps=1e-6),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Images ``(B, 3, H, W)``, normalised, to the stages in ``out_indices``.

        Returns:
            For each: ``(B, out_channels[i], ceil(H / out_strides[i]), ceil(W / out_strides[i]))``.
        """
        maps = self.vit(x)
        return self.pyramid([maps[source] for source in self._sources], x.shape[-2:])

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Depth of a parameter and number of depths, for layer-wise learning-rate decay.

        The transformer's as in :class:`Mask3DViT`; the pyramid's is the greatest.
        """
        return self.vit.get_layer_depth(param_name, prefix + 'vit.')
