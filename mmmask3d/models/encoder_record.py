"""What a checkpoint records about the encoder it holds, read without running any of it."""

import ast
import json
from collections.abc import Mapping
from typing import Any

from mmpretrain.models import VisionTransformer

# What a Mask3DPyramid has in addition to its encoder; its norm_cfg is that of the pyramid.
_OF_A_PYRAMID = ('out_strides', 'out_channels', 'feature_indices', 'out_indices', 'norm_cfg')


def parse_config_text(text: str) -> dict:
    """Read the config text that mmengine stores in a checkpoint, without running it.

    ``Config.fromstring`` executes the text, so a checkpoint could run any code through it. Only
    assignments of literals and ``dict(...)`` calls are understood here, which is all that
    ``Config.pretty_text`` writes.

    Raises:
        ValueError: the text holds anything else.
    """

    def value(node: Any) -> Any:
        if isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else None
            if name == 'dict' and len(node.args) <= 1:
                out = value(node.args[0]) if node.args else {}
                out.update({k.arg: value(k.value) for k in node.keywords})
                return out
            raise ValueError(
                f'line {node.lineno}: the config stored in the checkpoint calls '
                f'{ast.unparse(node.func)!r}; only plain values are read. Pass --config.'
            )
        if isinstance(node, ast.Dict):
            return {value(k): value(v) for k, v in zip(node.keys, node.values, strict=True)}
        if isinstance(node, ast.List | ast.Tuple | ast.Set):
            kind = {ast.List: list, ast.Tuple: tuple, ast.Set: set}[type(node)]
            return kind(value(item) for item in node.elts)
        if isinstance(node, ast.Name) and node.id in ('inf', 'nan'):
            return float(node.id)  # as mmengine writes them, though it cannot read them back
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return -value(node.operand)
        return ast.literal_eval(node)

    config = {}
    for statement in ast.parse(text).body:
        if not (
            isinstance(statement, ast.Assign)
            and len(statement.targets) == 1
            and isinstance(statement.targets[0], ast.Name)
        ):
            raise ValueError(
                f'line {statement.lineno}: the config stored in the checkpoint is not a list of '
                'assignments. Pass --config.'
            )
        config[statement.targets[0].id] = value(statement.value)
    return config


def read_meta(checkpoint: Mapping) -> dict:
    """Return a checkpoint's metadata; values that safetensors keeps as JSON text are decoded."""
    meta = checkpoint.get('meta')
    meta = dict(meta) if isinstance(meta, Mapping) else {}
    if str(meta.get('format')).startswith('"mmmask3d-'):
        meta = {k: json.loads(v) for k, v in meta.items()}
    return meta


def as_pair(value: Any) -> tuple[int, int]:
    """Two whole numbers, of which one number is both."""
    if isinstance(value, int):
        return value, value
    first, second = value
    return int(first), int(second)


def encoder_config(
    checkpoint: Mapping, config: Mapping | None, source: str, with_lora: bool = False
) -> dict:
    """Return the encoder's config: from ``config``, an earlier export, or the stored text.

    Of a ``Mask3DPyramid`` what belongs to the transformer in it; of a ``LoRAEncoder`` the encoder
    inside, unless ``with_lora`` asks for both.

    Raises:
        ValueError: none of the three describes the backbone.
    """
    meta = read_meta(checkpoint)
    if config is None and 'backbone' in meta:
        found = meta['backbone']
    else:
        if config is None and meta.get('cfg'):
            config = parse_config_text(meta['cfg'])
        if config is None or 'backbone' not in config.get('model', {}):
            raise ValueError(
                f'{source}: its metadata does not hold the config of the run, so the number of '
                'attention heads is unknown. Pass the pre-training config with --config.'
            )
        found = config['model']['backbone']
    found = _without_pyramid(found)
    return dict(found['module']) if is_lora(found) and not with_lora else found


def is_timm(backbone: Mapping) -> bool:
    """Whether the config is that of a :class:`TimmViT`, whose files have timm's names."""
    return str(backbone.get('type')).split('.')[-1] == 'TimmViT'


def is_lora(backbone: Mapping) -> bool:
    """Whether the config is that of a :class:`LoRAEncoder`, or of mmpretrain's ``LoRAModel``."""
    return str(backbone.get('type')).split('.')[-1] in ('LoRAEncoder', 'LoRAModel')


def _without_pyramid(backbone: Mapping) -> dict:
    if not str(backbone.get('type')).endswith('Mask3DPyramid'):
        return dict(backbone)
    if backbone.get('encoder'):
        return dict(backbone['encoder'])
    kept = {k: v for k, v in backbone.items() if k not in _OF_A_PYRAMID}
    return {**kept, 'type': 'mmmask3d.Mask3DViT'}


def arch_settings(backbone: Mapping) -> dict:
    """Return the dict of widths and depths behind ``arch``, a name or already such a dict."""
    arch = backbone.get('arch', 'base')
    return dict(VisionTransformer.arch_zoo[arch.lower()] if isinstance(arch, str) else arch)
