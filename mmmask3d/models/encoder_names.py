"""Tells by the names of its tensors whose ViT encoder a checkpoint holds, and where in it."""

import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence

from torch import Tensor

#: Where weights come from, in the order they are described.
SOURCES = ('mae', 'timm', 'dinov2', 'multimae', 'mmpretrain', 'huggingface')

# Keys under which checkpoints keep their tensors.
_CONTAINERS = ('state_dict', 'model', 'teacher')
_ANCHORS = {
    'input_adapters.rgb.proj.weight': 'multimae',
    'patch_embed.projection.weight': 'mmpretrain',
    'patch_embed.proj.weight': 'timm',
    'embeddings.patch_embeddings.projection.weight': 'huggingface',
    'embeddings.patch_embeddings.weight': 'huggingface',  # DINOv3
    'embeddings.patch_embedding.weight': 'huggingface',  # CLIP, SigLIP
}
#: What a plain ViT cannot compute, with the reason.
BEYOND_A_PLAIN_VIT = (
    (
        r'rope|.*\.bias_mask$',
        'rotary position embedding (DINOv3, EVA-02): positions enter in every attention layer, '
        'not once at the start',
    ),
    (
        r'dist_token|head_dist\.',
        'a distillation token (DeiT): a second extra token that every patch attends to',
    ),
    (
        r'reg_token$|register_tokens$|storage_tokens$',
        'register tokens: extra tokens that every patch attends to',
    ),
    (r'.*(rel_pos|relative_position)', 'relative position biases in the attention (BEiT, SAM)'),
    (r'.*attn\.(q_norm|k_norm|norm)\.', 'norms inside the attention'),
    (r'.*attn\.(q_bias|v_bias|gate)', 'an attention of another form (BEiT, EVA)'),
    (r'patch_embed\.(backbone|conv|norm)', 'another patch embedding than one convolution'),
)
# Other encodings of a ViT whose names are known well enough to be named in the message.
_FOREIGN = (
    (r'conv_proj\.weight$', 'torchvision'),
    (r'layers\.0\.attn\.attn\.in_proj_weight$', 'mmseg.VisionTransformer or mmcls 0.x'),
    (r'(layer1\.0|stages\.0)\.', 'a convolutional or hierarchical network'),
)


class WeightFormatError(ValueError):
    """Weights that cannot be told, or that a plain ViT cannot express; the message says which."""


def find_tensors(checkpoint: Mapping, source: str) -> OrderedDict[str, Tensor]:
    """Tensors of a checkpoint by name: the whole mapping, or the part of it that holds them.

    Raises:
        WeightFormatError: There are none.
    """
    for name in _CONTAINERS:
        inner = checkpoint.get(name)
        if isinstance(inner, Mapping) and any(isinstance(v, Tensor) for v in inner.values()):
            found = OrderedDict((k, v) for k, v in inner.items() if isinstance(v, Tensor))
            found._metadata = getattr(inner, '_metadata', None)  # type: ignore[attr-defined]
            return found
    found = OrderedDict((k, v) for k, v in checkpoint.items() if isinstance(v, Tensor))
    if not found:
        raise WeightFormatError(
            f'{source}: no tensors by name, neither at the top nor under '
            f'{", ".join(_CONTAINERS)}. Found the keys {some([str(k) for k in checkpoint])}.'
        )
    found._metadata = getattr(checkpoint, '_metadata', None)  # type: ignore[attr-defined]
    return found


def detect(tensors: Mapping[str, Tensor], source: str, prefix: str | None = None) -> tuple:
    """Source and prefix of the encoder among a checkpoint's tensors, told by their names.

    MAE's encoder-only files and timm's have the same names and are converted in the same way; both
    are called ``'timm'``.

    Returns:
        One of :data:`SOURCES`, and what stands in front of the encoder's names.

    Raises:
        WeightFormatError: No encoder, or several of them.
    """
    found = []
    for key in tensors:
        for anchor, kind in _ANCHORS.items():
            before = key[: -len(anchor)]
            if key.endswith(anchor) and (not before or before.endswith('.')):
                found.append((kind, before))
    if prefix is not None:
        prefix = prefix if not prefix or prefix.endswith('.') else f'{prefix}.'
        found = [item for item in found if item[1] == prefix]
    if len(found) > 1:
        raise WeightFormatError(
            f'{source}: holds {len(found)} encoders, under '
            f'{", ".join(repr(p) for _, p in found)}. Say which with --prefix.'
        )
    if not found:
        known = next((n for p, n in _FOREIGN if any(re.search(p, k) for k in tensors)), None)
        beyond = next(
            (w for p, w in BEYOND_A_PLAIN_VIT if any(re.match(p, k) for k in tensors)), None
        )
        looks = f' It looks like {known}.' if known else f' It has {beyond}.' if beyond else ''
        where = '' if prefix is None else f' under {prefix!r}'
        raise WeightFormatError(
            f'{source}: no ViT encoder with names of {", ".join(SOURCES)} found{where}.{looks} '
            f'The file holds {len(tensors)} tensors: {some(list(tensors))}.'
        )
    kind, prefix = found[0]
    keys = {k[len(prefix) :] for k in tensors if k.startswith(prefix)}
    if kind == 'timm':
        if any(k.startswith('decoder_') for k in keys):
            kind = 'mae'
        elif 'mask_token' in keys or any(re.match(r'blocks\.\d+\.\d+\.', k) for k in keys):
            kind = 'dinov2'
    return kind, prefix


def conversion_hint(checkpoint: Mapping, source: str) -> str:
    """A sentence on how to convert weights of another project; empty for any other file."""
    try:
        kind, _ = detect(find_tensors(checkpoint, ''), '')
    except WeightFormatError:
        return ''
    if kind == 'mmpretrain':
        return ''
    return (
        f' The file has the names of {kind}. Convert it once, and load the result: '
        f'mmmask3d convert-weights {source} encoder.safetensors'
    )


def some(names: Sequence[str]) -> str:
    """The first names of a list and how many there are more, for a message."""
    shown, hidden = names[:8], len(names[8:])
    more = f', ... ({hidden} more)' if hidden else ''
    return (', '.join(shown) + more) or 'none'
