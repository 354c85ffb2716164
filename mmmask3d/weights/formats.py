"""Names and layouts of ViT encoders elsewhere, translated to mmpretrain's, and back to timm's.

Many ViTs compute what ``mmpretrain.VisionTransformer`` computes and differ in names, in where the
position embedding keeps the class token, and in parts around the encoder. What belongs to the
encoder is renamed, what is known to stand outside of it is left out and reported, and everything
else is refused: a tensor that nothing uses would be a difference that nobody sees.

Layouts followed: facebookresearch/mae ``models_mae.py``, timm ``models/vision_transformer.py``,
facebookresearch/dinov2 ``models/vision_transformer.py``, EPFL-VILAB/MultiMAE
``multimae/{multimae,input_adapters}.py``, mmpretrain ``backbones/vision_transformer.py``.
"""

import math
import re
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from mmpretrain.models import VisionTransformer
from torch import Tensor

from mmmask3d.models.encoder_names import (
    BEYOND_A_PLAIN_VIT,
    SOURCES,
    WeightFormatError,
    detect,
    find_tensors,
    some,
)
from mmmask3d.models.pos_embed import grid_from_metadata
from mmmask3d.weights.huggingface import FAMILIES, rename, renamed, rules

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

#: Input normalisation of each source; all take RGB. mmpretrain and timm leave it to the model.
NORMALISATION = {
    'mae': "ImageNet's mean and standard deviation",
    'timm': "the model's own: see its pretrained_cfg (augreg: 0.5 and 0.5, CLIP: its own)",
    'dinov2': "ImageNet's mean and standard deviation",
    'multimae': "ImageNet's mean and standard deviation",
    'mmpretrain': "the config's data_preprocessor (ImageNet's in most)",
    'huggingface': "the model's own: see its preprocessor_config.json (DINOv2, DINOv3 and ViT-MAE: "
    "ImageNet's; ViT and SigLIP: 0.5 and 0.5; CLIP: its own)",
}

# mmpretrain's names of architectures, one of each size.
_ARCHITECTURES = (
    'deit-tiny', 'deit-small', 'small', 'base', 'large', 'huge', 'eva-giant', 'dinov2-giant',
)  # fmt: skip
# timm's names of the encoder, and mmpretrain's. `{i}` is the number of the layer.
_TIMM_TO_MM = (
    ('cls_token', 'cls_token'),
    ('pos_embed', 'pos_embed'),
    ('patch_embed.proj', 'patch_embed.projection'),
    ('norm_pre', 'pre_norm'),
    ('norm', 'ln1'),
    ('blocks.{i}.norm1', 'layers.{i}.ln1'),
    ('blocks.{i}.attn.qkv', 'layers.{i}.attn.qkv'),
    ('blocks.{i}.attn.proj', 'layers.{i}.attn.proj'),
    ('blocks.{i}.ls1.gamma', 'layers.{i}.attn.gamma1.weight'),
    ('blocks.{i}.norm2', 'layers.{i}.ln2'),
    ('blocks.{i}.mlp.fc1', 'layers.{i}.ffn.layers.0.0'),
    ('blocks.{i}.mlp.fc2', 'layers.{i}.ffn.layers.1'),
    ('blocks.{i}.mlp.w12', 'layers.{i}.ffn.w12'),  # DINOv2's gated FFN
    ('blocks.{i}.mlp.w3', 'layers.{i}.ffn.w3'),
    ('blocks.{i}.ls2.gamma', 'layers.{i}.ffn.gamma2.weight'),
)
# Parts that stand outside of the encoder, with what they are.
_OUTSIDE = (
    (r'decoder_|decoder\.', "MAE's decoder"),
    (r'mask_token$', 'mask token'),
    (r'(head|fc_norm|attn_pool|pre_logits|fc)\.', 'head'),
    (r'output_adapters\.', "MultiMAE's decoders"),
    (r'input_adapters\.(?!rgb\.)', 'input adapters of other modalities'),
    (r'ln2\.', 'norm of averaged features'),
)


@dataclass
class Conversion:
    """An encoder under mmpretrain's names.

    Attributes:
        state: Tensors, float32.
        backbone: Arguments of ``Mask3DViT`` and ``VisionTransformer`` that it needs, without
            ``img_size``.
        grid: Patch grid ``(rows, columns)`` of the position embedding.
        left_out: Number of tensors by the part of the model that they belonged to.
        notes: What was assumed, in sentences.
        normalisation: Of its input, where it is not that of the source.
    """

    state: OrderedDict[str, Tensor]
    backbone: dict
    grid: tuple[int, int]
    left_out: Counter = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    normalisation: str | None = None


def convert(
    checkpoint: Mapping,
    source: str,
    kind: str = 'auto',
    prefix: str | None = None,
    grid: tuple[int, int] | None = None,
    num_heads: int | None = None,
    norm_eps: float | None = None,
    input_norm: tuple[Sequence[float], Sequence[float]] | None = None,
    config: Mapping | None = None,
) -> Conversion:
    """Translate a loaded checkpoint to the names of ``mmpretrain.VisionTransformer``.

    Args:
        checkpoint: What the file held.
        source: Its name, for messages.
        kind: One of :data:`SOURCES`, or ``'auto'`` to tell it from the names.
        prefix: What stands in front of the encoder's names; found if None.
        grid: Patch grid of the position embedding; None for the recorded one, else a square.
        num_heads: Number of attention heads, which no tensor tells; None looks it up by width,
            depth and FFN width among mmpretrain's named architectures.
        norm_eps: Of the layer norms; None for 1e-6, and 1e-5 with a norm before the layers (CLIP).
        input_norm: Mean and standard deviation (of colours in 0..1, RGB) the source was trained
            with; the patch embedding is rewritten to take ImageNet's instead, exactly.
        config: ``config.json`` of a file from Hugging Face, for the eps of its norms; None takes
            what its family has.

    Raises:
        WeightFormatError: Not one of these layouts, or something that a plain ViT cannot express.
    """
    tensors = find_tensors(checkpoint, source)
    found, prefix = detect(tensors, source, prefix)
    timm_like = ('mae', 'dinov2', 'huggingface')  # the last once it is renamed
    layouts = {name: 'timm' if name in timm_like else name for name in SOURCES}
    if kind == 'auto':
        kind = found
    elif layouts[kind] != layouts[found] or (kind == 'huggingface') != (found == 'huggingface'):
        raise WeightFormatError(f'{source}: has the names of {found}, not of {kind}.')
    left_out = beside_the_encoder(tensors, prefix)
    given = under_prefix(tensors, prefix)
    if found == 'huggingface':
        hf = rename(given, source)
        family, config = FAMILIES[hf.family], config or {}
        if family.timm:
            raise WeightFormatError(
                f"{source}: Hugging Face's {family.title} is more than a plain ViT. Write timm's "
                'names, for mmmask3d.TimmViT: --to timm.'
            )
        given = hf.state
        left_out += hf.left_out
        norm_eps = norm_eps or config.get('layer_norm_eps', family.eps)
        if (activation := config.get('hidden_act', family.activation)) != 'gelu':
            raise WeightFormatError(
                f'{source}: its config.json says hidden_act={activation!r}; expected gelu, as '
                f'{family.title} has.'
            )
    state, own_grid = _translate(given, layouts[kind], source, left_out)
    metadata = (getattr(tensors, '_metadata', None) or {}).get(prefix.rstrip('.'))
    recorded = (
        own_grid or grid_from_metadata(checkpoint.get('meta')) or grid_from_metadata(metadata)
    )
    if grid is not None and recorded is not None and tuple(grid) != recorded:
        raise WeightFormatError(f'{source}: its patch grid is {recorded}, not {tuple(grid)}.')
    out = Conversion(state, {}, (0, 0), left_out)
    _check_values(state, source)
    out.grid = _settle_positions(out, grid or recorded, source)
    _settle_architecture(out, num_heads, source)
    if kind == 'dinov2':
        out.backbone['pos_embed_resize'] = dict(offset=0.1)  # of Meta's code
    eps = norm_eps or (1e-5 if 'pre_norm.weight' in state else 1e-6)
    if eps != 1e-6:
        out.backbone['norm_cfg'] = dict(type='LN', eps=eps)
        out.notes.append(f'layer norms have eps {eps:g}')
    if 'pre_norm.weight' in state:
        out.notes.append(
            'the norm before the layers is that of CLIP; if the model was trained with QuickGELU '
            "(OpenAI's), build it with layer_cfgs=dict(act_cfg=dict(type='mmpretrain.QuickGELU')), "
            'which no tensor tells'
        )
    if input_norm is not None:
        _fold_normalisation(out, *input_norm)
    return out


def beside_the_encoder(tensors: Mapping[str, Tensor], prefix: str) -> Counter:
    """Number of tensors by the part of a checkpoint that stands outside of its encoder."""
    return Counter(
        f'{k.split(".")[0]}.*, beside the encoder' for k in tensors if not k.startswith(prefix)
    )


def under_prefix(tensors: Mapping[str, Tensor], prefix: str) -> OrderedDict[str, Tensor]:
    """The encoder's tensors, without what stands in front of their names."""
    return OrderedDict((k[len(prefix) :], v) for k, v in tensors.items() if k.startswith(prefix))


def check_patches(weight: Tensor, source: str) -> None:
    """Refuse a patch embedding that is not for RGB and square patches."""
    if weight.ndim != 4 or weight.shape[1] != 3 or weight.shape[2] != weight.shape[3]:
        raise WeightFormatError(
            f'{source}: the patch embedding is of shape {tuple(weight.shape)}; expected '
            '(channels, 3, size, size): RGB input and square patches.'
        )


def to_timm(state: Mapping[str, Tensor]) -> OrderedDict[str, Tensor]:
    """Translate mmpretrain's names to those of timm's ``VisionTransformer`` without a head.

    Raises:
        WeightFormatError: A tensor has no counterpart there.
    """
    # timm's SwiGLUPacked has the names of an ordinary FFN.
    gated = (('w12', 'fc1'), ('w3', 'fc2'))
    table = rules(
        [
            *((mm, timm) for timm, mm in _TIMM_TO_MM if '.mlp.w' not in timm),
            *((f'layers.{{i}}.ffn.{mm}', f'blocks.{{i}}.mlp.{timm}') for mm, timm in gated),
        ]
    )
    names = {k: renamed(k, table) for k in state if not k.startswith('ln2.')}
    unknown = [k for k, name in names.items() if name is None]
    if unknown:
        raise WeightFormatError(f'timm has no counterpart of {some(unknown)}')
    return OrderedDict((str(name), state[k]) for k, name in names.items())


# --------------------------------------------------------------------------------------------


def _translate(
    given: Mapping[str, Tensor], layout: str, source: str, left_out: Counter
) -> tuple[OrderedDict[str, Tensor], tuple[int, int] | None]:
    """Rename; what stands outside is counted in ``left_out``, what cannot be expressed refused."""
    own_grid = None
    if layout == 'multimae':
        given, own_grid = _multimae_as_timm(given, source)
    # Training checkpoints of DINOv2 keep layers in chunks: blocks.<chunk>.<layer>.
    given = {re.sub(r'^blocks\.\d+\.(?=\d+\.)', 'blocks.', k): v for k, v in given.items()}
    pairs = _TIMM_TO_MM if layout != 'mmpretrain' else [(mm, mm) for _, mm in _TIMM_TO_MM]
    for pattern, why in BEYOND_A_PLAIN_VIT:
        key = next((k for k in given if re.match(pattern, k)), None)
        if key is not None:
            raise WeightFormatError(
                f'{source}: has {why} ({key}). A plain ViT cannot express it, and leaving it out '
                'would give other features. Choose a model without it.'
            )
    table, state, unknown = rules(pairs), OrderedDict(), []
    for key, value in given.items():
        name = renamed(key, table)
        outside = next((what for pattern, what in _OUTSIDE if re.match(pattern, key)), None)
        if name is not None:
            state[name] = value
        elif outside:
            left_out[outside] += 1
        else:
            unknown.append(key)
    if unknown:
        raise WeightFormatError(
            f'{source}: {len(unknown)} tensors have no place in a plain ViT: {some(unknown)}. '
            'Leaving them out could change the features, so nothing was converted.'
        )
    if 'pos_embed' not in state:
        raise WeightFormatError(
            f'{source}: has no position embedding, which a plain ViT adds at the start. Models '
            'with rotary or relative positions (DINOv3, EVA-02, BEiT) cannot be expressed.'
        )
    _split_gated(state)
    return state, own_grid


def _multimae_as_timm(
    given: Mapping[str, Tensor], source: str
) -> tuple[OrderedDict[str, Tensor], tuple[int, int]]:
    """Bring the RGB adapter, the global token and the shared encoder of MultiMAE to timm's names.

    The global token has no position there, which zeros express; it stands last instead of first,
    which attention does not see. The encoder has no norm at its end.
    """
    tokens, pos = given.get('global_tokens'), given.get('input_adapters.rgb.pos_emb')
    count = 0 if tokens is None else tokens.shape[1]
    if tokens is None or count != 1 or pos is None or pos.ndim != 4:
        raise WeightFormatError(
            f'{source}: has {count} global tokens; expected one, the class token of a plain ViT, '
            'and input_adapters.rgb.pos_emb of shape (1, channels, rows, columns).'
        )
    out = OrderedDict(cls_token=tokens)
    patches = pos.flatten(2).transpose(1, 2)
    out['pos_embed'] = torch.cat([torch.zeros_like(patches[:, :1]), patches], dim=1)
    for key, value in given.items():
        if key.startswith('input_adapters.rgb.proj.'):
            out[key.replace('input_adapters.rgb.', 'patch_embed.')] = value
        elif key.startswith('encoder.'):
            out[key.replace('encoder.', 'blocks.', 1)] = value
        elif key not in ('global_tokens', 'input_adapters.rgb.pos_emb'):
            out[key] = value
    return out, (pos.shape[2], pos.shape[3])


def _split_gated(state: OrderedDict[str, Tensor]) -> None:
    """Give the gated FFN that timm stores as ``fc1`` and ``fc2`` (SwiGLUPacked) its own names."""
    first, second = (state.get(f'layers.0.ffn.layers.{n}.weight') for n in ('0.0', '1'))
    if first is None or second is None or first.shape[0] != 2 * second.shape[1]:
        return
    for key in list(state):
        new = key.replace('.ffn.layers.0.0.', '.ffn.w12.').replace('.ffn.layers.1.', '.ffn.w3.')
        if new != key:
            state[new] = state.pop(key)


def _check_values(state: OrderedDict[str, Tensor], source: str) -> None:
    bad = [k for k, v in state.items() if not v.is_floating_point()]
    if bad:
        raise WeightFormatError(f'{source}: not floating-point numbers: {some(bad)}.')
    for key, value in state.items():
        state[key] = value.detach().float()
    bad = [k for k, v in state.items() if not torch.isfinite(v).all()]
    if bad:
        raise WeightFormatError(f'{source}: NaN or infinity in {some(bad)}: a damaged training.')


def _settle_positions(
    out: Conversion, grid: tuple[int, int] | None, source: str
) -> tuple[int, int]:
    """Give the class token a position where the source has none; returns the patch grid."""
    pos, cls_tokens = out.state['pos_embed'], int('cls_token' in out.state)
    count = pos.shape[1]
    if grid is None:
        patches = next(
            (n for n in (count - cls_tokens, count) if n > 0 and math.isqrt(n) ** 2 == n), None
        )
        if patches is None:
            raise WeightFormatError(
                f'{source}: {count} positions are no square grid, with or without a class token. '
                'Give the grid the model was trained on: --grid ROWS COLUMNS.'
            )
        grid = (math.isqrt(patches),) * 2
    patches = grid[0] * grid[1]
    if cls_tokens and count == patches:
        out.state['pos_embed'] = torch.cat([torch.zeros_like(pos[:, :1]), pos], dim=1)
        out.notes.append('the class token has no position in the source: zeros express it')
    elif count != patches + cls_tokens:
        raise WeightFormatError(
            f'{source}: {count} positions do not fit a grid of {grid[0]}x{grid[1]} patches'
            f'{" and a class token" if cls_tokens else ""}. Give the right one with --grid.'
        )
    return int(grid[0]), int(grid[1])


def _settle_architecture(out: Conversion, num_heads: int | None, source: str) -> None:
    """Fill ``out.backbone`` with what the shapes tell."""
    state = out.state
    patch = state['patch_embed.projection.weight']
    check_patches(patch, source)
    layers = {k.split('.')[1] for k in state if k.startswith('layers.')}
    gated = 'layers.0.ffn.w12.weight' in state
    hidden = state.get('layers.0.ffn.w3.weight' if gated else 'layers.0.ffn.layers.1.weight')
    if hidden is None:
        raise WeightFormatError(f'{source}: has no feed-forward network in its first layer.')
    ffn = hidden.shape[1]
    if gated:
        ffn = math.ceil(ffn * 3 / 2)  # mmpretrain takes two thirds of it
    arch = dict(embed_dims=patch.shape[0], num_layers=len(layers), feedforward_channels=ffn)
    zoo = VisionTransformer.arch_zoo
    named = {n: zoo[n] for n in _ARCHITECTURES if n in zoo and arch.items() <= zoo[n].items()}
    if num_heads is None:
        if not named:
            raise WeightFormatError(
                f'{source}: no tensor tells the number of attention heads, and no architecture of '
                f'this size is known ({arch}). Give it: --num-heads N.'
            )
        num_heads = next(iter(named.values()))['num_heads']
        out.notes.append(
            f'{num_heads} attention heads, as {next(iter(named))!r} has: no tensor tells it'
        )
    if arch['embed_dims'] % num_heads:
        raise WeightFormatError(
            f'{source}: {arch["embed_dims"]} channels are not divisible by {num_heads} heads.'
        )
    arch['num_heads'] = num_heads
    name = next((n for n, known in named.items() if known['num_heads'] == num_heads), None)
    out.backbone.update(type='mmmask3d.Mask3DViT', arch=name or arch, patch_size=patch.shape[-1])
    if 'ln1.weight' not in state:
        out.backbone['final_norm'] = False
        out.notes.append('the source has no norm after the last layer: final_norm=False')
    if 'cls_token' not in state:
        out.backbone['with_cls_token'] = False
    if 'layers.0.attn.qkv.bias' not in state:
        out.backbone['qkv_bias'] = False
    if 'layers.0.attn.gamma1.weight' in state:
        out.backbone['layer_scale_init_value'] = 1e-5  # any positive number makes the parameters
    if gated:
        out.backbone['layer_cfgs'] = dict(ffn_type='swiglu_fused')
    if 'pre_norm.weight' in state:
        out.backbone['pre_norm'] = True


def _fold_normalisation(out: Conversion, mean: Sequence[float], std: Sequence[float]) -> None:
    """Rewrite the patch embedding for inputs normalised with ImageNet's statistics.

    With ``x = (p - m) / s`` in place of ``(p - mean) / std`` the source's input is
    ``x * s / std + (m - mean) / std`` per channel, which a convolution without padding absorbs.
    """
    own_mean, own_std, given_mean, given_std = (
        torch.tensor(v).double() for v in (IMAGENET_MEAN, IMAGENET_STD, mean, std)
    )
    weight = out.state['patch_embed.projection.weight'].double()
    offset = torch.einsum('ochw,c->o', weight, (own_mean - given_mean) / given_std)
    bias = out.state.get('patch_embed.projection.bias')
    if bias is None:
        out.backbone['patch_cfg'] = dict(bias=True)
        bias = torch.zeros_like(offset)
    out.state['patch_embed.projection.bias'] = (bias.double() + offset).float()
    scaled = weight * (own_std / given_std)[:, None, None]
    out.state['patch_embed.projection.weight'] = scaled.float()
    out.notes.append("the patch embedding now takes ImageNet's normalisation")
    out.normalisation = f'{NORMALISATION["mae"]}: the patch embedding was rewritten'
