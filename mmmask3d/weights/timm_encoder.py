"""Encoders that ``TimmViT`` computes and a plain ViT does not: which model of timm they are."""

import math
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mmmask3d.models.encoder_names import WeightFormatError
from mmmask3d.models.timm_vit import TimmViT
from mmmask3d.weights.formats import Conversion, check_patches
from mmmask3d.weights.huggingface import ACTIVATIONS, FAMILIES, Renamed


def for_timm_vit(
    renamed: Renamed, source: str, num_heads: int | None, eps: float | None, config: Mapping
) -> Conversion:
    """Find the arguments of ``TimmViT`` for an encoder with timm's names.

    Args:
        renamed: The encoder.
        source: The name of its file, for messages.
        num_heads: Attention heads, for sizes that timm has no name for.
        eps: Of the layer norms.
        config: ``config.json`` beside the file, or {}.

    Raises:
        WeightFormatError: The number of heads is unknown, or timm's model computes something else.
    """
    import timm

    family, state = FAMILIES[renamed.family], renamed.state
    patch = state['patch_embed.proj.weight']
    check_patches(patch, source)
    options = _options(renamed, source, config)
    grid = _grid(state, config, source)
    out = Conversion(OrderedDict(state), {}, grid, renamed.left_out)
    settings: dict[str, Any] = {}
    common = dict(img_size=(grid[0] * patch.shape[-1], grid[1] * patch.shape[-1]))
    # Models whose queries and values have a bias; there is none of the largest.
    suffix = '_qkvb' if 'blocks.0.attn.q_bias' in state else ''
    shapes = {k: v.shape for k, v in state.items()}
    for name in (n + suffix for n in family.timm if timm.is_model(n + suffix)):
        settings = dict(model=name, **common)
        if options:
            settings['model_args'] = options
        trunk: Any = _on_meta(settings).trunk
        if {k: v.shape for k, v in trunk.state_dict().items()} == shapes and num_heads in (
            None, trunk.blocks[0].attn.num_heads,
        ):  # fmt: skip
            break
    else:
        settings = dict(
            model=family.timm[0] + suffix, patch_size=patch.shape[-1], **common,
            model_args={**_sizes(state, num_heads, source), **options},
        )  # fmt: skip
    out.backbone = dict(type='mmmask3d.TimmViT', **settings)
    found = {m.eps for m in _on_meta(settings).modules() if isinstance(m, nn.LayerNorm)}
    wanted = eps or config.get('layer_norm_eps', family.eps)
    if found != {wanted}:
        raise WeightFormatError(
            f'{source}: its layer norms have eps {wanted:g}, those of timm.{settings["model"]} '
            f'{", ".join(f"{e:g}" for e in sorted(found))}, which cannot be set there.'
        )
    return out


def _options(renamed: Renamed, source: str, config: Mapping) -> dict:
    """Arguments of timm's model that no tensor tells."""
    family = FAMILIES[renamed.family]
    activation = config.get('hidden_act', family.activation)
    if activation not in ACTIVATIONS:
        raise WeightFormatError(
            f'{source}: config.json says hidden_act={activation!r}; expected one of '
            f'{", ".join(ACTIVATIONS)}.'
        )
    options = {}
    if renamed.family.startswith('dinov3'):
        if activation != family.activation:
            raise WeightFormatError(
                f'{source}: config.json says hidden_act={activation!r}; timm computes DINOv3 with '
                f'{family.activation}.'
            )
        rope = config.get('rope_parameters') or config
        if rope.get('rope_theta', 100) != 100:
            options['rope_temperature'] = rope['rope_theta']
    elif activation != 'gelu':
        options['act_layer'] = ACTIVATIONS[activation]
    registers = renamed.state['reg_token'].shape[1] if 'reg_token' in renamed.state else 0
    if renamed.family == 'registers' and registers != 4:
        options['reg_tokens'] = registers
    if renamed.family.startswith('dinov3') and registers != 4:
        options['num_reg_tokens'] = registers
    return options


def _grid(state: Mapping[str, Tensor], config: Mapping, source: str) -> tuple[int, int]:
    if 'pos_embed' not in state:  # rotary positions belong to no size
        side = int(config.get('image_size', 224)) // state['patch_embed.proj.weight'].shape[-1]
        return side, side
    extra = int('cls_token' in state and 'reg_token' not in state)
    side = math.isqrt(state['pos_embed'].shape[1] - extra)
    if side * side + extra != state['pos_embed'].shape[1]:
        raise WeightFormatError(
            f'{source}: {state["pos_embed"].shape[1]} positions are no square grid of patches.'
        )
    return side, side


def _sizes(state: Mapping[str, Tensor], num_heads: int | None, source: str) -> dict:
    """Arguments for a size that timm has no name for."""
    width = state['patch_embed.proj.weight'].shape[0]
    depth = len({k.split('.')[1] for k in state if k.startswith('blocks.')})
    if num_heads is None:
        raise WeightFormatError(
            f'{source}: timm has no model of this family with {width} channels, {depth} layers and '
            'these tensors, and no tensor tells the number of attention heads. Give it: '
            '--num-heads N.'
        )
    hidden = next(
        (state[k].shape[0] for k in ('blocks.0.mlp.fc1.weight', 'blocks.0.mlp.fc1_x.weight')
         if k in state), 0,
    )  # fmt: skip
    return dict(embed_dim=width, depth=depth, num_heads=num_heads, mlp_ratio=hidden / width)


def _on_meta(settings: Mapping) -> TimmViT:
    with torch.device('meta'):
        return TimmViT(**settings)
