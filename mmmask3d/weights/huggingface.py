"""Names of the ViTs of Hugging Face ``transformers``, translated to timm's, and back to theirs.

ViT, ViT-MAE and DINOv2 are plain ViTs under other names. DINOv2 with registers, DINOv3, and the
vision towers of CLIP and SigLIP with their activations are for ``TimmViT``. Every tensor is used,
known to stand outside of the encoder, or a reason to refuse the file.

Layouts followed: transformers ``models/{vit,vit_mae,dinov2,dinov2_with_registers,dinov3_vit,clip,
siglip}``, as files hold them, and as models of transformers 5 name their parameters in memory.
"""

import json
import re
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mmmask3d.models.encoder_names import WeightFormatError, some


@dataclass(frozen=True)
class Family:
    """One architecture of ``transformers``.

    Attributes:
        title: Its name.
        eps: Of the layer norms, where no ``config.json`` tells.
        activation: Of the feed-forward networks, likewise, under Hugging Face's name.
        timm: Its models of timm, where ``TimmViT`` computes it and a plain ViT does not.
        differing: Parts of names that are others in these models than in timm's plain ViT.
    """

    title: str
    eps: float
    activation: str = 'gelu'
    timm: tuple[str, ...] = ()
    differing: tuple[tuple[str, str], ...] = ()


_DINOV3 = tuple(f'vit_{n}_patch16_dinov3' for n in ('small', 'base', 'large', '7b'))
_DINOV3_GATED = tuple(f'vit_{n}_patch16_dinov3' for n in ('small_plus', 'huge_plus', '7b'))
_GAMMAS = (('.ls1.gamma', '.gamma_1'), ('.ls2.gamma', '.gamma_2'))
FAMILIES = {
    'vit': Family('ViT', 1e-12),
    'dinov2': Family('DINOv2', 1e-6),
    'registers': Family(
        'DINOv2 with registers',
        1e-6,
        timm=tuple(f'vit_{n}_patch14_reg4_dinov2' for n in ('small', 'base', 'large', 'giant')),
        differing=(('.mlp.w12.', '.mlp.fc1.'), ('.mlp.w3.', '.mlp.fc2.')),
    ),
    'dinov3': Family(
        'DINOv3',
        1e-5,
        timm=_DINOV3,
        differing=(*_GAMMAS, ('.up.', '.fc1.'), ('.down.', '.fc2.')),
    ),
    'dinov3 gated': Family(
        'DINOv3',
        1e-5,
        'silu',
        timm=_DINOV3_GATED,
        differing=(*_GAMMAS, ('.gate.', '.fc1_g.'), ('.up.', '.fc1_x.'), ('.down.', '.fc2.')),
    ),
    'clip': Family(
        'CLIP',
        1e-5,
        'quick_gelu',
        timm=(
            'vit_base_patch16_clip_224', 'vit_base_patch32_clip_224', 'vit_large_patch14_clip_224',
            'vit_large_patch14_clip_336', 'vit_huge_patch14_clip_224', 'vit_giant_patch14_clip_224',
            'vit_gigantic_patch14_clip_224',
        ),
    ),
    'siglip': Family(
        'SigLIP',
        1e-6,
        'gelu_pytorch_tanh',
        timm=(
            'vit_base_patch16_siglip_224', 'vit_base_patch32_siglip_256',
            'vit_large_patch16_siglip_256', 'vit_so400m_patch14_siglip_224',
            'vit_so400m_patch16_siglip_256', 'vit_giantopt_patch16_siglip_256',
        ),
    ),
}  # fmt: skip
#: Hugging Face's names of activations, and timm's.
ACTIVATIONS = {
    'gelu': 'gelu', 'gelu_pytorch_tanh': 'gelu_tanh', 'quick_gelu': 'quick_gelu', 'silu': 'silu',
}  # fmt: skip


def rules(pairs: Iterable[tuple[str, str]]) -> list[tuple[re.Pattern, str]]:
    """Patterns for :func:`renamed`.

    Args:
        pairs: Regular expression of old names, and the new name, without ``.weight`` and ``.bias``;
            ``{i}`` in both is the number of the layer.
    """
    number, rest = r'(?P<i>\d+)', r'(?P<rest>\.(?:weight|bias))?'
    return [(re.compile(f'(?:{old.replace("{i}", number)}){rest}'), new) for old, new in pairs]


def renamed(key: str, rules: Sequence[tuple[re.Pattern, str]]) -> str | None:
    """Name of a tensor by the first rule that fits it whole; None where none does."""
    for pattern, name in rules:
        if match := pattern.fullmatch(key):
            parts = match.groupdict()
            return name.replace('{i}', parts.get('i') or '') + (parts['rest'] or '')
    return None


_LAYER = r'(?:(?:encoder|model)\.)?layers?\.{i}\.'
# Hugging Face's names, of all families, and timm's.
_RULES = rules(
    [
        (r'embeddings\.(?:cls_token|class_embedding)', 'cls_token'),
        (r'embeddings\.(?:position_embeddings|position_embedding\.weight)', 'pos_embed'),
        (r'embeddings\.register_tokens', 'reg_token'),
        (r'embeddings\.(?:patch_embeddings(?:\.projection)?|patch_embedding)', 'patch_embed.proj'),
        (r'pre_layrnorm', 'norm_pre'),
        (r'layernorm|norm|post_layernorm', 'norm'),
        *(
            (_LAYER + old, 'blocks.{i}.' + new)
            for old, new in (
                (r'(?:layernorm_before|norm1|layer_norm1)', 'norm1'),
                (r'(?:layernorm_after|norm2|layer_norm2)', 'norm2'),
                (r'(?:attention\.attention\.query|(?:attention|self_attn)\.q_proj)', 'attn.q'),
                (r'(?:attention\.attention\.key|(?:attention|self_attn)\.k_proj)', 'attn.k'),
                (r'(?:attention\.attention\.value|(?:attention|self_attn)\.v_proj)', 'attn.v'),
                (
                    r'(?:attention\.output\.dense|attention\.o_proj|self_attn\.out_proj)',
                    'attn.proj',
                ),
                (r'layer_scale1\.lambda1', 'ls1.gamma'),
                (r'layer_scale2\.lambda1', 'ls2.gamma'),
                (r'(?:intermediate\.dense|mlp\.fc1)', 'mlp.fc1'),
                (r'(?:output\.dense|mlp\.fc2)', 'mlp.fc2'),
                (r'mlp\.weights_in', 'mlp.w12'),
                (r'mlp\.weights_out', 'mlp.w3'),
                (r'mlp\.gate_proj', 'mlp.gate'),
                (r'mlp\.up_proj', 'mlp.up'),
                (r'mlp\.down_proj', 'mlp.down'),
            )
        ),
    ]
)
_OUTSIDE = (
    (r'embeddings\.mask_token$', 'mask token'),
    (r'embeddings\.position_ids$', 'numbers of the positions'),
    (r'(pooler|head|classifier)\.', 'head'),
    (r'decoder\.', "MAE's decoder"),
)
# timm's names of a plain ViT, and those in files of Hugging Face's ViT and of its DINOv2.
_OF_BOTH = (
    ('cls_token', 'embeddings.cls_token'),
    ('pos_embed', 'embeddings.position_embeddings'),
    ('patch_embed.proj', 'embeddings.patch_embeddings.projection'),
    ('norm', 'layernorm'),
    ('blocks.{i}.attn.qkv', 'encoder.layer.{i}.attention.attention.qkv'),
    ('blocks.{i}.attn.proj', 'encoder.layer.{i}.attention.output.dense'),
)
_OF_VIT = (
    ('blocks.{i}.norm1', 'encoder.layer.{i}.layernorm_before'),
    ('blocks.{i}.norm2', 'encoder.layer.{i}.layernorm_after'),
    ('blocks.{i}.mlp.fc1', 'encoder.layer.{i}.intermediate.dense'),
    ('blocks.{i}.mlp.fc2', 'encoder.layer.{i}.output.dense'),
)
_OF_DINOV2 = (
    *((f'blocks.{{i}}.{n}', f'encoder.layer.{{i}}.{n}') for n in ('norm1', 'norm2')),
    *((f'blocks.{{i}}.mlp.{n}', f'encoder.layer.{{i}}.mlp.{n}') for n in ('fc1', 'fc2')),
    *((f'blocks.{{i}}.ls{n}.gamma', f'encoder.layer.{{i}}.layer_scale{n}.lambda1') for n in (1, 2)),
)


@dataclass
class Renamed:
    """An encoder of Hugging Face under timm's names.

    Attributes:
        family: A key of :data:`FAMILIES`.
        state: Tensors.
        left_out: Number of tensors by the part of the model that they belonged to.
    """

    family: str
    state: OrderedDict[str, Tensor]
    left_out: Counter


def rename(given: Mapping[str, Tensor], source: str) -> Renamed:
    """Translate the encoder's tensors, without a prefix, to timm's names.

    Raises:
        WeightFormatError: A tensor has no place in the family, or a part of an attention is
            missing; the message lists them.
    """
    left_out: Counter[str] = Counter()
    state, unknown = OrderedDict(), []
    for key, value in given.items():
        name = renamed(key, _RULES)
        outside = next((what for pattern, what in _OUTSIDE if re.match(pattern, key)), None)
        if outside:
            left_out[outside] += 1
        elif name is None or name in state:
            unknown.append(key)
        else:
            state[name] = value
    family = _family(given, state)
    if unknown:
        raise WeightFormatError(
            f"{source}: has the names of Hugging Face's {FAMILIES[family].title}, but of "
            f'{len(given)} tensors {len(unknown)} have no place there: {some(unknown)}. Leaving '
            'them out could change the features, so nothing was converted.'
        )
    _fuse_attention(state, family, source)
    _shape_tokens(state, family)
    return Renamed(family, state, left_out)


def _family(given: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    if 'embeddings.patch_embedding.weight' in given:
        return 'clip' if 'cls_token' in state else 'siglip'
    if 'embeddings.patch_embeddings.weight' in given:
        return 'dinov3 gated' if 'blocks.0.mlp.gate.weight' in state else 'dinov3'
    if 'reg_token' in state:
        return 'registers'
    return 'dinov2' if 'blocks.0.ls1.gamma' in state else 'vit'


def _fuse_attention(state: OrderedDict[str, Tensor], family: str, source: str) -> None:
    """Stack query, key and value, which timm keeps in one tensor."""
    layers = sorted({int(k.split('.')[1]) for k in state if k.startswith('blocks.')})
    for start in (f'blocks.{i}.attn.' for i in layers):
        for kind in ('weight', 'bias'):
            parts = {
                p: state.pop(f'{start}{p}.{kind}') for p in 'qkv' if f'{start}{p}.{kind}' in state
            }
            if not parts and kind == 'bias':
                continue
            if kind == 'bias' and family.startswith('dinov3') and set(parts) == set('qv'):
                # DINOv3's keys have no bias, and those of timm's models neither.
                if any(bias.any() for bias in parts.values()):
                    state |= {f'{start}{p}_bias': bias for p, bias in parts.items()}
                continue
            if set(parts) != set('qkv'):
                raise WeightFormatError(
                    f'{source}: {start}* has the {kind} of {", ".join(parts) or "nothing"}; '
                    'expected those of query, key and value (q, k, v).'
                )
            state[f'{start}qkv.{kind}'] = torch.cat([parts[p] for p in 'qkv'])


def _shape_tokens(state: OrderedDict[str, Tensor], family: str) -> None:
    """Give tokens and positions timm's shapes, and the rest the names of the family's models."""
    for name in ('cls_token', 'pos_embed'):
        if name in state:
            state[name] = state[name].reshape(1, -1, state[name].shape[-1])
    if family == 'registers':
        # timm adds positions to the patches alone: the class token takes its own beforehand.
        state['cls_token'] = state['cls_token'] + state['pos_embed'][:, :1]
        state['pos_embed'] = state['pos_embed'][:, 1:]
    for key in list(state):
        name = key
        for old, new in FAMILIES[family].differing:
            name = name.replace(old, new)
        state[name] = state.pop(key)


def settings_beside(source: str | Path) -> dict:
    """What ``config.json`` beside a file says of its vision tower; {} where there is none.

    Raises:
        WeightFormatError: It cannot be read.
    """
    path = Path(source).parent / 'config.json'
    if not path.is_file():
        return {}
    try:
        config = json.loads(path.read_text())
        return dict(config.get('vision_config') or config)
    except (ValueError, AttributeError, TypeError) as error:
        raise WeightFormatError(
            f'{path}: expected the settings of a model of transformers as JSON ({error}). Copy it '
            f'again, or move {Path(source).name} to a folder of its own.'
        ) from error


def to_huggingface(state: Mapping[str, Tensor]) -> OrderedDict[str, Tensor]:
    """Translate timm's names of a plain ViT to those of Hugging Face's DINOv2 or ViT.

    With LayerScale it is DINOv2's layout, with an empty mask token, else ViT's; in both cases that
    of the bare encoder, which ``AutoModel`` reads.

    Raises:
        WeightFormatError: A tensor has no counterpart there.
    """
    scaled = 'blocks.0.ls1.gamma' in state
    table = rules([*_OF_BOTH, *(_OF_DINOV2 if scaled else _OF_VIT)])
    up, down = (state.get(f'blocks.0.mlp.fc{n}.weight') for n in (1, 2))
    gated = scaled and up is not None and down is not None and len(up) == 2 * down.shape[1]
    out, unknown = OrderedDict(), []
    for key, value in state.items():
        name = renamed(key, table)
        if name is None:
            unknown.append(key)
        elif '.qkv' in name:
            for part, third in zip(('query', 'key', 'value'), value.chunk(3), strict=True):
                out[name.replace('qkv', part)] = third
        else:
            if gated:
                name = name.replace('.fc1', '.weights_in').replace('.fc2', '.weights_out')
            out[name] = value
    missing = [k for k in ('cls_token', 'norm.weight') if k not in state]
    if unknown or missing:
        raise WeightFormatError(
            f"Hugging Face's {'DINOv2' if scaled else 'ViT'} has no place for {some(unknown)}, and "
            f'needs {some(missing)}. Write the names of timm instead: --to timm.'
        )
    if scaled:
        out['embeddings.mask_token'] = torch.zeros(1, state['cls_token'].shape[-1])
    return out
