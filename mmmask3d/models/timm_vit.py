"""The second encoder: any plain vision transformer of timm, for kept patches or for dense maps."""

import sys
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.logging import print_log
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmmask3d.checkpoints.locations import read_checkpoint
from mmmask3d.models.adapter import is_adapter, load_adapter
from mmmask3d.models.encoder import EncoderParts, layer_indices, record_grid
from mmmask3d.models.encoder_loading import check_settings, check_tensors, encoder_state
from mmmask3d.models.mask3d_vit import initialisation
from mmmask3d.models.patches import grid_of, keep_tokens
from mmmask3d.models.pos_embed import grid_from_metadata
from mmmask3d.models.windowed_attention import WindowedAttention, global_layers, run_layer
from mmmask3d.registry import MODELS

# Modules of timm.models whose transformers this one runs.
_MODULES = ('vision_transformer', 'deit', 'eva')
# Parts of timm's models that come after the patch features and do not belong to an encoder.
_AFTER_THE_FEATURES = {'attn_pool', 'fc_norm', 'head', 'head_dist', 'head_drop'}


@MODELS.register_module()
class TimmViT(EncoderParts, BaseModule):
    """A vision transformer of timm under the contract of :class:`~.encoder.RGBEncoder`.

    It serves timm's ``VisionTransformer`` (ViT, MAE, DeiT III, CLIP, SigLIP 2, DINOv2 with and
    without registers, AIMv2) and ``Eva`` (DINOv3, EUPE, EVA-02, Perception Encoder: rotary
    positions). timm computes the features; kept patches, maps of chosen layers, any input size,
    frozen stages and strict, safe loading are added here.

    Inputs whose sides are no multiple of the patch are padded with zeros at the right and bottom.

    Args:
        model: name in timm, with or without the tag of its weights:
            ``'vit_small_patch16_dinov3.lvd1689m'``.
        pretrained: True for timm's weights of that name, from the cache or the hub, always as
            safetensors; a path or URL for a file, with timm's names or those of the original
            project. What mmseg's ``EncoderDecoder`` injects for ResNets is ignored with a warning.
            Weights are read in ``init_weights``, as everywhere in mm.
        img_size: input size in pixels, an int or ``(height, width)``, for which positions are
            stored; other sizes work too, with positions resampled at each call.
        patch_size: side of a patch in pixels; None for the model's own. With weights of another
            size the patch embedding is resampled (FlexiViT, arXiv 2212.08013).
        out_indices: layers whose maps are returned, negative ones counted from the end.
        frozen_stages: -1 freezes nothing, 0 what comes before the layers, n also the first n
            layers, and the number of layers everything.
        window_size: side in patches of the windows of windowed layers, see
            :class:`~.windowed_attention.WindowedAttention`; 0 for global attention. Not for models
            with rotary positions and not for masked pre-training.
        global_attn_indexes: layers that attend globally all the same; None for the last of each
            quarter.
        drop_path_rate: rate of the last layer; it grows linearly from 0.
        with_cp: recompute the layers in the backward pass to save memory.
        model_args: further arguments of timm's model, such as ``embed_dim``, ``depth``,
            ``num_heads``.
        init_cfg: ``dict(type='Pretrained', checkpoint=..., prefix=...)``, as ``pretrained`` with a
            file. A file may be an adapter: it is added to the weights it belongs to, timm's of that
            name or those that ``base=...`` names.

    Raises:
        ImportError: timm is not installed.
        ValueError: the name is unknown to timm, the model is no plain ViT, an index is out of
            range, or windows with rotary positions.
    """

    trunk: Any  # timm's model

    def __init__(
        self,
        model: str,
        pretrained: bool | str | None = None,
        img_size: int | Sequence[int] = 224,
        patch_size: int | None = None,
        out_indices: int | Sequence[int] = -1,
        frozen_stages: int = -1,
        window_size: int = 0,
        global_attn_indexes: Sequence[int] | None = None,
        drop_path_rate: float = 0.0,
        with_cp: bool = False,
        model_args: dict | None = None,
        init_cfg: dict | list | None = None,
    ):
        from_timm = pretrained is True
        given = pretrained if isinstance(pretrained, str) else None
        super().__init__(init_cfg=initialisation(given, init_cfg))
        if from_timm and self.init_cfg:
            raise ValueError(
                f'Both pretrained=True and init_cfg={init_cfg!r} are set; keep one of them. '
                'pretrained=FILE reads a file.'
            )
        self.model_name = model
        self._weights_of_timm = from_timm
        arguments: dict[str, Any] = dict(model_args or {})
        if patch_size is not None:
            arguments['patch_size'] = patch_size
        if window_size:
            if has_rotary_code(model):
                raise ValueError(
                    f'window_size={window_size}: {model} belongs to the models of timm with rotary '
                    f'positions, for which windows are not supported. Use window_size=0.'
                )
            arguments['attn_layer'] = _windowed_attention()
        self.trunk = _build(
            model,
            img_size=img_size if isinstance(img_size, int) else tuple(img_size),
            drop_path_rate=drop_path_rate,
            **arguments,
        )
        self.with_cp = with_cp
        self.out_indices = layer_indices(out_indices, self.num_layers, 'out_indices')
        self.window_size = window_size
        self.global_attn_indexes = global_layers(window_size, global_attn_indexes, self.num_layers)
        for i, block in enumerate(self.trunk.blocks):
            if i not in self.global_attn_indexes:
                block.attn.set_window(window_size, self.num_extra_tokens)
        self._freeze(frozen_stages, self.num_layers)
        self._register_state_dict_hook(record_grid)

    @property
    def patch_size(self) -> int:
        """Side of a patch in pixels."""
        return self.trunk.patch_embed.patch_size[0]

    @property
    def embed_dims(self) -> int:
        """Channels of a token."""
        return self.trunk.embed_dim

    @property
    def num_layers(self) -> int:
        """Number of transformer layers."""
        return len(self.trunk.blocks)

    @property
    def num_heads(self) -> int:
        """Attention heads of a layer."""
        return self.trunk.blocks[0].attn.num_heads

    @property
    def num_extra_tokens(self) -> int:
        """Class and register tokens, which stand before the patches."""
        return self.trunk.num_prefix_tokens

    @property
    def grid_size(self) -> tuple[int, int]:
        """Patch grid ``(rows, columns)`` that positions are stored for."""
        rows, columns = self.trunk.patch_embed.grid_size
        return int(rows), int(columns)

    @property
    def trained_size(self) -> tuple[int, int]:
        """Height and width in pixels of the images that the model's weights were trained on."""
        height, width = self.trunk.pretrained_cfg['input_size'][-2:]
        return int(height), int(width)

    @property
    def normalisation(self) -> dict[str, tuple[float, ...]]:
        """``mean`` and ``std`` (RGB, 0 to 255) that the model's weights were trained with."""
        cfg = self.trunk.pretrained_cfg
        return {
            key: tuple(round(255 * float(value), 3) for value in cfg[key])
            for key in ('mean', 'std')
        }

    def init_weights(self) -> None:
        """Load the weights that were named; otherwise timm's own initialisation stands."""
        if self.is_init:
            return
        pretrained = self._pretrained()
        if self._weights_of_timm:
            self._load_from_timm()
        elif pretrained is not None:
            self._load_from_file(**pretrained)
        self._is_init = True

    def has_weights(self) -> bool:
        """Whether the config names weights to start from."""
        return self._weights_of_timm or super().has_weights()

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Depth of a parameter and number of depths, for layer-wise learning-rate decay.

        As in mmpretrain's ``VisionTransformer``: 0 before the layers, i + 1 in layer i, then the
        final norm.
        """
        name = param_name.removeprefix(prefix + 'trunk.')
        num_depths = self.num_layers + 2
        if not param_name.startswith(prefix) or name == param_name:
            return num_depths - 1, num_depths  # a head, not of this encoder
        if name.startswith('blocks.'):
            return int(name.split('.')[1]) + 1, num_depths
        return (num_depths - 1 if name.startswith('norm.') else 0), num_depths

    def _start(
        self, x: Tensor, keep_ids: Tensor | None = None, frozen: Tensor | None = None
    ) -> tuple[Tensor, tuple[Tensor | None, tuple[int, int]]]:
        """Tokens before the layers to be run; the context is rotary positions and the grid."""
        tokens: Any = frozen
        rope, grid = None, self._grid_of(x)
        if frozen is None or self._has_rope:
            # Absolute positions are added, rotary ones are a table.
            embedded = self.trunk._pos_embed(self.trunk.patch_embed(x))
            start, rope = embedded if isinstance(embedded, tuple) else (embedded, None)
            tokens = start if frozen is None else frozen
        if keep_ids is not None:
            grid_of(x.shape[-2], x.shape[-1], self.patch_size)
            tokens = keep_tokens(tokens, keep_ids, self.num_extra_tokens)
            rope = None if rope is None else self._kept_rope(tokens, rope, keep_ids)
        return (self.trunk.norm_pre(tokens) if frozen is None else tokens), (rope, grid)

    @property
    def _has_rope(self) -> bool:
        return getattr(self.trunk, 'rope', None) is not None

    def _kept_rope(self, x: Tensor, rope: Tensor, keep_ids: Tensor) -> Tensor:
        """Rotary positions of the kept patches."""
        from timm.layers import apply_keep_indices_nlc

        # (N, D) for every layer and head becomes (B, 1, K, D); with a table for each layer
        # (L, heads, N, D) becomes (L, B, heads, K, D). As in timm's Eva with patch dropout.
        rope = apply_keep_indices_nlc(x, rope, keep_ids)
        return rope.transpose(0, 1) if self._rope_by_layer else rope.unsqueeze(1)

    @property
    def _rope_by_layer(self) -> bool:
        return bool(getattr(self.trunk, 'rope_mixed', False))

    def _layer(self, index: int, x: Tensor, context: tuple[Any, tuple[int, int]]) -> Tensor:
        rope, grid = context
        if rope is None:
            return run_layer(self.trunk.blocks[index], x, grid)
        rope = rope[index] if self._rope_by_layer else rope
        return self.trunk.blocks[index](x, rope=rope)

    def _last_norm(self, x: Tensor) -> Tensor:
        return self.trunk.norm(x)

    def _to_map(self, x: Tensor, context: tuple[Any, tuple[int, int]]) -> Tensor:
        patches = x[:, self.num_extra_tokens :]
        return patches.transpose(1, 2).unflatten(2, context[1]).contiguous()

    def _frozen(self) -> tuple[list[nn.Module], list[nn.Parameter | None]]:
        trunk = self.trunk
        modules = [trunk.patch_embed, trunk.pos_drop, trunk.norm_pre]
        modules += [trunk.rope] if self._has_rope else []
        modules += list(trunk.blocks)[: self.frozen_stages]
        modules += [trunk.norm] if self.frozen_stages == self.num_layers else []
        return modules, [getattr(trunk, n, None) for n in ('pos_embed', 'cls_token', 'reg_token')]

    def _load_from_timm(self) -> None:
        """Fill the encoder with timm's weights of its name, from the cache or the hub."""
        cfg = self.trunk.pretrained_cfg
        name = cfg.get('hf_hub_id')
        if not name:
            raise ValueError(
                f'{self.model_name}: timm names no weights on the hub for it. Give the tag of '
                f'weights in the name (timm.list_pretrained lists them), or a file as pretrained.'
            )
        location = f'hf://{name}:{cfg.get("hf_hub_filename") or "model.safetensors"}'
        self.fill(read_checkpoint(location)['state_dict'], location)

    def _load_base(self, location: str | None) -> None:
        if location is None:
            self._load_from_timm()
        else:
            self._load_from_file(location)

    def _load_from_file(
        self, checkpoint: str, prefix: str | None = None, base: str | None = None, **options: Any
    ) -> None:
        loaded = read_checkpoint(checkpoint, **options)
        if is_adapter(loaded, base):
            check_settings(self, loaded, checkpoint)
            load_adapter(self, loaded, checkpoint, base, self._load_base)
            return
        state = encoder_state(loaded, prefix, checkpoint)
        check_settings(self, loaded, checkpoint)
        grid = grid_from_metadata(state._metadata.get(''))  # type: ignore[attr-defined]
        bare = {k.removeprefix('trunk.'): v for k, v in state.items()}
        self.fill(bare, checkpoint, grid)

    def fill(
        self, tensors: Mapping[str, Tensor], source: str, grid: tuple[int, int] | None = None
    ) -> None:
        """Load timm's names, or those of the original project, strictly.

        Args:
            tensors: by name, without the ``trunk.`` of this class; more than the encoder needs.
            source: the file, for messages.
            grid: patch grid of the positions, where it is known; else it is a square.

        Raises:
            RuntimeError: a tensor is missing, unknown or of another shape.
        """
        from timm.layers import resample_abs_pos_embed

        positions = tensors.get('pos_embed') if grid else None
        if positions is not None:
            # A grid that is no square: timm's filter would take the root.
            own = 0 if self.trunk.no_embed_class else self.num_extra_tokens
            positions = resample_abs_pos_embed(
                positions, list(self.grid_size), list(grid or ()), num_prefix_tokens=own
            )
            tensors = {k: v for k, v in tensors.items() if k != 'pos_embed'}
        filtered = sys.modules[type(self.trunk).__module__].checkpoint_filter_fn(
            dict(tensors), self.trunk
        )
        if positions is not None:
            filtered['pos_embed'] = positions
        kept = {k: v for k, v in filtered.items() if k.split('.')[0] not in _AFTER_THE_FEATURES}
        hint = f'Name the model of timm, its patch size and model_args as in {source}.'
        check_tensors(self.trunk, kept, source, hint)
        self.trunk.load_state_dict(kept, strict=True)
        print_log(f'Loaded all {len(kept)} encoder tensors from {source}.', logger='current')


def has_rotary_code(model: str) -> bool:
    """Whether timm computes it in its ``Eva``."""
    import timm

    return timm.models.is_model_in_modules(model.split('.')[0], ['eva'])


def _build(model: str, **arguments: Any) -> nn.Module:
    """Build timm's model without head and pooling, and check that it is a plain ViT."""
    try:
        import timm
    except ImportError as error:
        raise ImportError(
            f'mmmask3d.TimmViT(model={model!r}) needs timm: pip install "mmmask3d[timm]".'
        ) from error
    from timm.layers import PatchEmbed
    from timm.models.eva import Eva
    from timm.models.vision_transformer import VisionTransformer

    if not timm.is_model(model):
        near = timm.list_models(f'*{model.split(".")[0]}*')[:5]
        hint = f' Did you mean one of {", ".join(near)}?' if near else ''
        raise ValueError(
            f'model={model!r} is no model of timm {timm.__version__}.{hint} '
            f'timm.list_models("vit*") lists them.'
        )
    if not timm.models.is_model_in_modules(model.split('.')[0], _MODULES):
        raise ValueError(
            f'model={model!r}: expected a plain vision transformer, one of the modules '
            f'{", ".join(_MODULES)} of timm.models.'
        )
    arguments |= dict(num_classes=0, dynamic_img_size=True, dynamic_img_pad=True)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', UserWarning)  # timm's on overwritten names in its registry
        trunk = timm.create_model(model, pretrained=False, **arguments)
    if not isinstance(trunk, VisionTransformer | Eva) or type(trunk.patch_embed) is not PatchEmbed:
        raise ValueError(
            f'model={model!r} is a {type(trunk).__name__} with {type(trunk.patch_embed).__name__}: '
            f'expected a VisionTransformer or Eva of timm with plain patches.'
        )
    for name in ('attn_pool', 'fc_norm', 'head', 'head_drop'):
        setattr(trunk, name, nn.Identity())
    return trunk


def _windowed_attention() -> type[nn.Module]:
    """timm's attention with :class:`WindowedAttention` where it calls for all keys."""
    import torch.nn.functional as F
    from timm.layers import Attention

    class WindowedTimmAttention(Attention):
        """The same parameters, and patches that see their window and the extra tokens."""

        def __init__(self, *args: Any, **kwargs: Any):
            super().__init__(*args, **kwargs)
            self.window: WindowedAttention | None = None

        def set_window(self, window_size: int, num_extra_tokens: int) -> None:
            attend = F.scaled_dot_product_attention
            self.window = WindowedAttention(attend, window_size, num_extra_tokens)

        def forward(self, x: Tensor, attn_mask: Tensor | None = None, **kwargs: Any) -> Tensor:
            if self.window is None:
                return super().forward(x, attn_mask, **kwargs)
            batch, length, _ = x.shape
            qkv = self.qkv(x).reshape(batch, length, 3, self.num_heads, self.head_dim)
            q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
            rate = self.attn_drop.p if self.training else 0.0
            out = self.window(self.q_norm(q), self.k_norm(k), v, dropout_p=rate)
            out = self.norm(out.transpose(1, 2).reshape(batch, length, self.attn_dim))
            if self.gate is not None:
                out = out * self.gate(x).sigmoid()
            return self.proj_drop(self.proj(out))

    return WindowedTimmAttention
