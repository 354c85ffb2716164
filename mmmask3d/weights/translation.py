"""Files of weights in the names of another project, proved to load where they are meant for."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmmask3d.atomic_file import write_file
from mmmask3d.checkpoints.files import (
    load_checkpoint_file,
    safetensors_bytes,
    save_checkpoint_atomic,
)
from mmmask3d.checkpoints.locations import local_file
from mmmask3d.models import encoder_record as record
from mmmask3d.models.patches import resample_patch_embed
from mmmask3d.weights import export, huggingface, timm_encoder
from mmmask3d.weights.formats import (
    NORMALISATION,
    Conversion,
    beside_the_encoder,
    convert,
    detect,
    find_tensors,
    to_timm,
    under_prefix,
)

#: Arguments of a recorded backbone that are no property of its weights.
_RUNTIME = ('img_size', 'init_cfg', 'out_indices', 'out_type', 'frozen_stages', 'with_cp')


def translate(
    source: str,
    out: str,
    target: str | None = None,
    kind: str = 'auto',
    prefix: str | None = None,
    grid: tuple[int, int] | None = None,
    num_heads: int | None = None,
    norm_eps: float | None = None,
    norm: tuple[Sequence[float], Sequence[float]] | None = None,
    patch_size: int | None = None,
) -> list[str]:
    """Read an encoder, prove that it loads under its new names, and write it.

    Args:
        source: File to read, or another location of
            :func:`~mmmask3d.checkpoints.locations.read_checkpoint`.
        out: File to write, .pth or .safetensors.
        target: Whose names: 'mmmask3d', 'timm', 'mmpretrain' or 'huggingface'; None for 'mmmask3d',
            and 'timm' for families of Hugging Face that belong into ``TimmViT``.
        kind: Where the weights come from, one of
            :data:`~mmmask3d.weights.formats.SOURCES`, or 'auto'.
        prefix: In front of the encoder's names; found if None.
        grid: Rows and columns of patches, if neither recorded nor square.
        num_heads: Attention heads, where not known by size.
        norm_eps: Of the layer norms; 1e-6 if nothing else is recorded.
        norm: The source's mean and std of colours in 0..1; the patch embedding is rewritten to
            take ImageNet's.
        patch_size: Side of a patch in pixels that the patch embedding is resampled to; None keeps
            the source's.

    Returns:
        What was done, assumed and left out, and how to use the result, line by line.

    Raises:
        ValueError: The source is not understood, or the result does not load or computes something
            else. Nothing is written.
    """
    source = str(local_file(source))
    checkpoint = load_checkpoint_file(source)
    tensors = find_tensors(checkpoint, source)
    found, prefix = detect(tensors, source, prefix)
    config: dict = {}
    if found == 'huggingface' and kind in ('auto', found):
        config = huggingface.settings_beside(source)
        num_heads = agreed('--num-heads', num_heads, config.get('num_attention_heads'), source)
        norm_eps = agreed('--norm-eps', norm_eps, config.get('layer_norm_eps'), source)
        renamed = huggingface.rename(under_prefix(tensors, prefix), source)
        family = huggingface.FAMILIES[renamed.family]
        if family.timm and target in (None, 'timm'):
            if grid is not None or norm is not None:
                raise ValueError(
                    f'{source}: --grid, --input-mean and --input-std are not for {family.title}: '
                    'its positions are square, and TimmViT knows the normalisation of its models.'
                )
            renamed.left_out += beside_the_encoder(tensors, prefix)
            encoder = timm_encoder.for_timm_vit(renamed, source, num_heads, norm_eps, config)
            resample_patches(encoder, 'patch_embed.proj.weight', patch_size)
            (name,) = export.load_everywhere(encoder.state, encoder.backbone)
            write(out, encoder.state, {}, 'timm')
            shown = [f'loads into {name}, img_size={encoder.backbone["img_size"]}']
            return report(out, 'timm', len(encoder.state), encoder, found, shown)
    kind = found if kind == 'auto' else kind
    recorded, meta = {}, record.read_meta(checkpoint)
    if kind == 'mmpretrain' and ('backbone' in meta or meta.get('cfg')):
        recorded = record.encoder_config(checkpoint, None, source)
        heads, norm_cfg = record.arch_settings(recorded)['num_heads'], recorded.get('norm_cfg', {})
        num_heads = agreed('--num-heads', num_heads, heads, source)
        norm_eps = agreed('--norm-eps', norm_eps, norm_cfg.get('eps'), source)
    encoder = convert(checkpoint, source, kind, prefix, grid, num_heads, norm_eps, norm, config)
    kept = {k: v for k, v in recorded.items() if k not in (*_RUNTIME, 'arch')}
    encoder.backbone = {**encoder.backbone, **kept}
    target = target or 'mmmask3d'
    resample_patches(encoder, 'patch_embed.projection.weight', patch_size)
    written, shown = verify(encoder, target)
    meta = export.encoder_metadata(
        checkpoint, None, encoder.backbone, encoder.state, encoder.grid, source
    )
    if kind != 'mmpretrain':
        meta |= {'converted_from': kind, 'notes': encoder.notes}
    write(out, written, meta, target)
    return report(out, target, len(written), encoder, kind, shown)


def resample_patches(encoder: Conversion, name: str, patch_size: int | None) -> None:
    """Bring the patch embedding, the tensor ``name``, to another patch size; see FlexiViT."""
    own = encoder.state[name].shape[-1]
    if patch_size in (None, own):
        return
    encoder.state[name] = resample_patch_embed(encoder.state[name], patch_size)
    encoder.backbone['patch_size'] = patch_size
    if 'img_size' in encoder.backbone:
        rows, columns = encoder.grid
        encoder.backbone['img_size'] = (rows * patch_size, columns * patch_size)
    encoder.notes.append(f'patch embedding resampled from patches of {own} pixels to {patch_size}')


def agreed(option: str, asked: Any, recorded: Any, source: str) -> Any:
    """What an option asks for and what the file records, one of which may be None.

    Raises:
        ValueError: They differ.
    """
    if asked is not None and recorded is not None and asked != recorded:
        raise ValueError(
            f'{source}: {option} {asked}, but the file records {recorded}. Leave the option out.'
        )
    return recorded if asked is None else asked


def build_timm(encoder: Conversion) -> nn.Module:
    """Build timm's ``VisionTransformer`` of the encoder's architecture, without a head.

    Raises:
        ImportError: timm is not installed.
    """
    from timm.layers import SwiGLUPacked
    from timm.models.vision_transformer import VisionTransformer

    state, backbone = encoder.state, encoder.backbone
    arch, patch = record.arch_settings(backbone), backbone['patch_size']
    gated = state.get('layers.0.ffn.w12.weight')
    hidden = arch['feedforward_channels'] if gated is None else gated.shape[0]
    eps = backbone.get('norm_cfg', {}).get('eps', 1e-6)
    return VisionTransformer(
        img_size=(encoder.grid[0] * patch, encoder.grid[1] * patch),
        patch_size=patch,
        embed_dim=arch['embed_dims'],
        depth=arch['num_layers'],
        num_heads=arch['num_heads'],
        mlp_ratio=hidden / arch['embed_dims'],
        qkv_bias='layers.0.attn.qkv.bias' in state,
        init_values=1e-5 if 'layers.0.attn.gamma1.weight' in state else None,
        class_token='cls_token' in state,
        pre_norm='pre_norm.weight' in state,
        final_norm='ln1.weight' in state,
        fc_norm=False,
        global_pool='',
        num_classes=0,
        norm_layer=partial(nn.LayerNorm, eps=eps),
        **({} if gated is None else dict(mlp_layer=SwiGLUPacked, act_layer=nn.SiLU)),
    )


def verify(encoder: Conversion, target: str) -> tuple[OrderedDict[str, Tensor], list[str]]:
    """Load into the target's model; returns the tensors under its names, and what was shown.

    Raises:
        ValueError: The tensors do not load, or the target computes something else.
    """
    backbone, grid, state = encoder.backbone, encoder.grid, encoder.state
    size = (grid[0] * backbone['patch_size'], grid[1] * backbone['patch_size'])
    takers = export.load_everywhere(state, backbone, grid)
    if target == 'huggingface':
        return to_huggingface(encoder)
    if target != 'timm':
        if target == 'mmpretrain':
            state = OrderedDict((f'backbone.{k}', v) for k, v in state.items())
        return state, [f'loads into {" and ".join(takers)}, img_size={size}']
    renamed = to_timm(state)
    try:
        theirs = build_timm(encoder)
    except ImportError:
        return renamed, ['timm is not installed: not loaded there']
    export.load_strictly(theirs, renamed, "timm's VisionTransformer")
    ours: Any = takers['mmmask3d.Mask3DViT'].eval()
    ours.out_type = 'raw'
    image = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = ours(image)[0]
        found = theirs.eval().forward_features(image)  # type: ignore[operator]
    difference = float((found - expected).abs().max() / expected.abs().max())
    if not difference < 1e-4:
        raise ValueError(
            f"timm's VisionTransformer gives other features: they differ by {difference:.1e} of "
            'the largest one.'
        )
    return renamed, [
        f"loads into timm's VisionTransformer, img_size={size}; features of a random image differ "
        f'by {difference:.0e} of the largest one'
    ]


def to_huggingface(encoder: Conversion) -> tuple[OrderedDict[str, Tensor], list[str]]:
    """Tensors under Hugging Face's names, read back and compared, and the model they are for."""
    state, backbone = encoder.state, encoder.backbone
    tensors = huggingface.to_huggingface(to_timm(state))
    arch = record.arch_settings(backbone)
    eps = backbone.get('norm_cfg', {}).get('eps', 1e-6)
    back = convert(
        tensors, 'written', 'huggingface', '', encoder.grid, arch['num_heads'], eps
    ).state
    if export.tensors_sha256(back) != export.tensors_sha256(state):
        raise ValueError("Hugging Face's names read back give other tensors")
    scaled = 'embeddings.mask_token' in tensors
    patch = backbone['patch_size']
    settings = dict(
        hidden_size=arch['embed_dims'], num_hidden_layers=arch['num_layers'],
        num_attention_heads=arch['num_heads'], layer_norm_eps=eps, patch_size=patch,
        image_size=(encoder.grid[0] * patch, encoder.grid[1] * patch),
    )  # fmt: skip
    if 'attn.qkv.bias' not in ' '.join(state):
        settings['qkv_bias'] = False
    if scaled:
        ratio, rest = divmod(arch['feedforward_channels'], arch['embed_dims'])
        if rest:
            raise ValueError(
                f"Hugging Face's DINOv2 needs a feed-forward width that is a multiple of "
                f'{arch["embed_dims"]}, and this encoder has {arch["feedforward_channels"]}. Write '
                'the names of timm instead: --to timm.'
            )
        settings['mlp_ratio'] = ratio
        settings['use_swiglu_ffn'] = 'layers.0.ffn.w12.weight' in state
    else:
        settings['intermediate_size'] = arch['feedforward_channels']
    name = 'Dinov2' if scaled else 'ViT'
    arguments = ', '.join(f'{key}={value!r}' for key, value in settings.items())
    return tensors, [
        'converted back and compared: the same tensors',
        f'for transformers.{name}Model(transformers.{name}Config({arguments})'
        f'{"" if scaled else ", add_pooling_layer=False"})',
    ]


def write(out: str, tensors: Mapping[str, Tensor], meta: dict, target: str) -> None:
    """Write the file, complete or not at all, and read it back.

    Raises:
        ValueError: The file does not hold what was written.
    """
    if target == 'mmmask3d':
        export.write_encoder(out, tensors, meta)
    else:
        tensors = OrderedDict((k, v.contiguous().clone()) for k, v in tensors.items())
        if Path(out).suffix == '.safetensors':
            write_file(out, safetensors_bytes(tensors, {'format': 'pt'}))
        else:
            content = {'state_dict': tensors, 'meta': meta} if target == 'mmpretrain' else tensors
            save_checkpoint_atomic(content, out)
        export.check_written(out, tensors)


def report(
    out: str, target: str, count: int, encoder: Conversion, kind: str, shown: list[str]
) -> list[str]:
    """What was done, assumed and left out, and how to use the result."""
    left_out = ', '.join(f'{what} ({n} tensors)' for what, n in sorted(encoder.left_out.items()))
    lines = [
        f'{out}: {count} tensors with the names of {target}, from {kind}, '
        f'patch grid {encoder.grid[0]}x{encoder.grid[1]}',
        *shown,
        f'left out: {left_out or "nothing"}',
        *(f'note: {note}' for note in encoder.notes),
        f'input: RGB, normalised with {encoder.normalisation or NORMALISATION[kind]}',
    ]
    for_timm_vit = encoder.backbone['type'].endswith('TimmViT')
    if target not in ('timm', 'huggingface') or for_timm_vit:
        settings = {k: v for k, v in encoder.backbone.items() if k != 'type' or for_timm_vit}
        lines.append(
            'build with: ' + ', '.join(f'{key}={value!r}' for key, value in settings.items())
        )
    return lines
