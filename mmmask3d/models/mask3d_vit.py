"""The RGB encoder: mmpretrain's vision transformer, for kept patches only or for dense maps."""

import re
import warnings
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmcv.cnn.bricks import DropPath
from mmengine.logging import print_log
from mmengine.model.weight_init import trunc_normal_
from mmpretrain.models import VisionTransformer
from torch import Tensor, nn

from mmmask3d.models.encoder import EncoderParts, record_grid
from mmmask3d.models.encoder_loading import load_encoder
from mmmask3d.models.patches import gather_tokens, grid_of, keep_tokens, patchify
from mmmask3d.models.pos_embed import (
    grid_from_metadata,
    infer_grid,
    resize_to_grid,
    sincos_pos_embed,
)
from mmmask3d.models.windowed_attention import global_layers, run_layer, window_layer
from mmmask3d.registry import MODELS

# What mm's R-50 configs name and EncoderDecoder hands to any backbone it finds; no transformer.
_FOREIGN_WEIGHTS = re.compile(r'(open-?mmlab|torchvision|modelzoo|mmcls|jhu)://(?!.*vit)')


@MODELS.register_module()
class Mask3DViT(EncoderParts, VisionTransformer):
    """Vision transformer for masked pre-training and, afterwards, for dense tasks.

    Its state-dict keys are those of :class:`mmpretrain.models.VisionTransformer`, so its encoder
    also loads there. What it adds: kept patches alone (``keep_ids``; MAE, section 3), grids that
    are no squares, strict and safe loading of ``init_cfg=dict(type='Pretrained', checkpoint=...,
    prefix=...)``, maps of any layers, windows, frozen stages. docs/backbones.md describes it.

    Images need not be a multiple of the patch: they are padded with zeros at the right and bottom
    and give maps of ``ceil(H / p) x ceil(W / p)``.

    Args:
        arch: name in mmpretrain's zoo (``'deit-tiny'``, ``'deit-small'``, ``'base'``,
            ``'large'``) or a dict with ``embed_dims``, ``num_layers``, ``num_heads``,
            ``feedforward_channels``.
        img_size: input size in pixels, an int or ``(height, width)``; other sizes work too, with
            the position embedding resampled on the fly.
        patch_size: side of a patch in pixels.
        out_indices: layers whose output is returned.
        out_type: as in ``VisionTransformer``; ``'featmap'`` by default, which dense necks and
            heads need.
        frozen_stages: -1 freezes nothing, 0 patch embedding, position embedding and class token, n
            also the first n layers, and the number of layers everything, the final norm included.
        window_size: side in patches of the windows of windowed layers; 0 for global attention in
            every layer. ViTDet takes 14. Not for masked pre-training.
        global_attn_indexes: layers that attend globally all the same, counted from 0 or, negative,
            from the end; None for the last layer of each quarter, as in ViTDet.
        pos_embed_resize: how positions are resampled for other sizes: ``offset`` and ``antialias``
            of :func:`~.pos_embed.resize_to_grid`. ``dict(offset=0.1)`` is DINOv2's own way; None is
            MAE's.
        with_cp: recompute the layers in the backward pass to save memory.
        pretrained: what mmseg's ``EncoderDecoder`` injects: the weights of a ResNet are ignored
            with a warning, anything else is the checkpoint of ``init_cfg``.
        init_cfg: initialisation, see above.
        **kwargs: the other arguments of ``VisionTransformer``.

    Raises:
        ValueError: an index is out of range, a window setting has no effect, ``init_cfg`` names the
            weights of a ResNet, or both ``pretrained`` and ``init_cfg`` name weights.
    """

    out_indices: tuple[int, ...]

    def __init__(
        self,
        arch: str | dict = 'base',
        img_size: int | Sequence[int] = 224,
        patch_size: int = 16,
        out_indices: int | Sequence[int] = -1,
        out_type: str = 'featmap',
        frozen_stages: int = -1,
        window_size: int = 0,
        global_attn_indexes: Sequence[int] | None = None,
        pos_embed_resize: dict | None = None,
        with_cp: bool = False,
        pretrained: str | None = None,
        init_cfg: dict | list | None = None,
        **kwargs: Any,
    ) -> None:
        if isinstance(img_size, Sequence):
            img_size = tuple(img_size)
        super().__init__(
            arch=arch,
            img_size=img_size,
            patch_size=patch_size,
            # The parent writes into the sequence it is handed.
            out_indices=out_indices if isinstance(out_indices, int) else list(out_indices),
            out_type=out_type,
            frozen_stages=-1,  # done below, where it also covers 0
            init_cfg=initialisation(pretrained, init_cfg),
            **kwargs,
        )
        if max(self.out_indices) >= self.num_layers:  # the parent lets num_layers itself pass
            raise ValueError(
                f'out_indices={out_indices!r}: this encoder has {self.num_layers} layers, numbered '
                f'from 0 to {self.num_layers - 1}.'
            )
        for module in self.modules():
            if isinstance(module, DropPath):
                # The parent's rates are numpy numbers, at each of which torch.compile gives up.
                module.drop_prob = float(module.drop_prob)
        self.out_indices = tuple(self.out_indices)
        self.patch_size = patch_size
        self.pos_embed_resize = dict(pos_embed_resize or {})
        unknown = self.pos_embed_resize.keys() - {'offset', 'antialias'}
        if unknown:
            raise ValueError(
                f'pos_embed_resize={pos_embed_resize!r}: expected offset and antialias, found '
                f'{", ".join(sorted(unknown))}.'
            )
        self.with_cp = with_cp
        self.window_size = window_size
        self.global_attn_indexes = global_layers(window_size, global_attn_indexes, self.num_layers)
        for i, layer in enumerate(self.layers):
            if i not in self.global_attn_indexes:
                window_layer(layer, window_size, self.num_extra_tokens)
        self._freeze(frozen_stages, self.num_layers)
        projection = self.patch_embed.projection
        self._plain_patches = (
            isinstance(projection, nn.Conv2d)
            and projection.kernel_size == projection.stride == (patch_size, patch_size)
            and self.patch_embed.norm is None
        )
        self._register_state_dict_hook(record_grid)

    #: Images are normalised as the config says: files of this encoder do not tell.
    normalisation = None

    @property
    def grid_size(self) -> tuple[int, int]:
        """Patch grid ``(rows, columns)`` the position embedding is stored for."""
        return tuple(self.patch_resolution)

    def init_weights(self) -> None:
        """Initialise: sine-cosine positions and MAE's rules, or the given checkpoint."""
        if self.is_init:
            return
        pretrained = self._pretrained()
        if pretrained is not None:
            load_encoder(self, **pretrained)
            self._is_init = True
            return
        super().init_weights()
        with torch.no_grad():
            extra = self.num_extra_tokens
            self.pos_embed[:, :extra] = 0
            self.pos_embed[:, extra:] = sincos_pos_embed(self.grid_size, self.embed_dims)
            # MAE: the patch embedding as a linear layer.
            weight = self.patch_embed.projection.weight
            nn.init.xavier_uniform_(weight.view(weight.shape[0], -1))
            if self.cls_token is not None:
                trunc_normal_(self.cls_token, std=0.02)
        self._is_init = True

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Depth of a parameter and number of depths, for layer-wise learning-rate decay.

        As in ``VisionTransformer``, but the norm before the layers belongs to depth 0.
        """
        depth, num_layers = super().get_layer_depth(param_name, prefix)
        return (0 if param_name.startswith(prefix + 'pre_norm.') else depth), num_layers

    def _frozen(self) -> tuple[list[nn.Module], list[nn.Parameter | None]]:
        layers = list(self.layers)[: self.frozen_stages]
        modules = [self.patch_embed, self.drop_after_pos, self.pre_norm, *layers]
        if self.frozen_stages == self.num_layers:
            modules += [getattr(self, name) for name in ('ln1', 'ln2') if hasattr(self, name)]
        return modules, [self.pos_embed, self.cls_token]

    def _start(
        self, x: Tensor, keep_ids: Tensor | None = None, frozen: Tensor | None = None
    ) -> tuple[Tensor, tuple[int, int]]:
        """Tokens before the layers to be run; their grid is the context."""
        if keep_ids is not None and frozen is not None:
            return keep_tokens(frozen, keep_ids, self.num_extra_tokens), self._grid_of(x)
        if frozen is not None:
            return frozen, self._grid_of(x)
        if keep_ids is not None:
            return self._embed_kept(x, keep_ids), self._grid_of(x)
        x, grid = self.patch_embed(x)
        return self._with_extra_tokens(x + self._positions(grid)), grid

    def _embed_kept(self, x: Tensor, keep_ids: Tensor) -> Tensor:
        """Tokens of the kept patches alone."""
        if not self._plain_patches:
            raise ValueError(
                'Encoding kept patches needs a plain patch embedding (a convolution whose kernel '
                'and stride are the patch size, without norm); patch_cfg changed it.'
            )
        grid = grid_of(x.shape[-2], x.shape[-1], self.patch_size)
        projection = self.patch_embed.projection
        patches = gather_tokens(patchify(x, self.patch_size), keep_ids)
        x = F.linear(patches, projection.weight.flatten(1), projection.bias)
        return self._with_extra_tokens(x + F.embedding(keep_ids, self._positions(grid)[0]))

    def _layer(self, index: int, x: Tensor, grid: tuple[int, int]) -> Tensor:
        return run_layer(self.layers[index], x, grid)

    def _last_norm(self, x: Tensor) -> Tensor:
        return self.ln1(x) if self.final_norm else x

    def _to_map(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        return self._format_output(x, grid)

    def _positions(self, grid: tuple[int, int]) -> Tensor:
        """Position embedding of the patches on ``grid``: ``(1, rows * columns, C)``.

        Resampled at each call. Keeping the result would save less than 1% of a forward pass, and
        it would go stale unnoticed: mmengine's EMAHook swaps weights through ``.data``, which
        leaves no trace in a tensor's version.
        """
        pos = self._resampled(self.pos_embed, self.grid_size, grid)
        return pos[:, self.num_extra_tokens :]

    def _with_extra_tokens(self, x: Tensor) -> Tensor:
        """Put the class token first, then what precedes the layers."""
        if self.cls_token is not None:
            cls = self.cls_token + self.pos_embed[:, : self.num_extra_tokens]
            x = torch.cat((cls.expand(x.shape[0], -1, -1).to(x.dtype), x), dim=1)
        return self.pre_norm(self.drop_after_pos(x))

    def _prepare_pos_embed(
        self, state_dict: dict, prefix: str, local_metadata: dict, *args: Any, **kwargs: Any
    ) -> None:
        """Resample the position embedding that is being loaded; knows grids that are no squares.

        Replaces the parent's load hook, which takes the root of the number of patches for the
        side of the grid.
        """
        name = prefix + 'pos_embed'
        if name not in state_dict:
            return
        pos = state_dict[name]
        recorded = grid_from_metadata(local_metadata)
        rows, columns = recorded or self.grid_size
        if not self.with_cls_token and pos.shape[1] == rows * columns + 1:
            pos = pos[:, 1:]
        source = infer_grid(pos.shape[1] - self.num_extra_tokens, self.grid_size, recorded)
        if source != self.grid_size:
            print_log(
                f'Position embedding resampled from {source[0]}x{source[1]} to '
                f'{self.grid_size[0]}x{self.grid_size[1]} patches.',
                logger='current',
            )
        state_dict[name] = self._resampled(pos, source, self.grid_size)

    def _resampled(
        self, pos_embed: Tensor, source: tuple[int, int], target: tuple[int, int]
    ) -> Tensor:
        return resize_to_grid(
            pos_embed,
            source,
            target,
            self.num_extra_tokens,
            self.interpolate_mode,
            **self.pos_embed_resize,
        )


def initialisation(pretrained: str | None, init_cfg: dict | list | None) -> dict | list | None:
    """Merge the two ways to name weights into ``init_cfg``; see ``Mask3DViT``."""
    for cfg in init_cfg if isinstance(init_cfg, list | tuple) else [init_cfg or {}]:
        if _FOREIGN_WEIGHTS.match(str(cfg.get('checkpoint'))):
            raise ValueError(  # before a download that is for nothing
                f'init_cfg.checkpoint={cfg["checkpoint"]!r} names the weights of another '
                f'architecture. Give the file of an encoder, or no init_cfg. In a config that '
                f'inherits from a ResNet, write _delete_=True into the backbone.'
            )
    if pretrained is None:
        return init_cfg
    if _FOREIGN_WEIGHTS.match(pretrained):
        warnings.warn(
            f'pretrained={pretrained!r} names the weights of another architecture, presumably of '
            f'the backbone that this one replaced; it is ignored. Set model.pretrained=None, and '
            f'give the encoder as backbone.init_cfg=dict(type="Pretrained", checkpoint=...).',
            stacklevel=3,
        )
        return init_cfg
    if init_cfg is not None:
        raise ValueError(
            f'Both pretrained={pretrained!r} and init_cfg={init_cfg!r} are set; keep one of them.'
        )
    return dict(type='Pretrained', checkpoint=pretrained)
