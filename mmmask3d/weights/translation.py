"""Files of weights in the names of another project, proved to load where they are meant for."""

import io
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from mmmask3d.atomic_file import write_file
from mmmask3d.checkpoints.files import (
    load_checkpoint_file,
    safetensors_bytes,
)
from mmmask3d.models import encoder_record as record
from mmmask3d.weights import export
from mmmask3d.weights.formats import (
    NORMALISATION,
    Conversion,
    convert,
    detect,
    find_tensors,
    to_timm,
)

#: Arguments of a recorded backbone that are no property of its weights.
_RUNTIME = ('img_size', 'init_cfg', 'out_indices', 'out_type', 'frozen_stages', 'with_cp')


def translate(
    source: str,
    out: str,
    target: str = 'mmmask3d',
    kind: str = 'auto',
    prefix: str | None = None,
    grid: tuple[int, int] | None = None,
    num_heads: int | None = None,
    norm_eps: float | None = None,
    norm: tuple[Sequence[float], Sequence[float]] | None = None,
) -> list[str]:
    """Read an encoder, prove that it loads under its new names, and write it.

    Args:
        source: File to read.
        out: File to write, .pth or .safetensors.
        target: Whose names: 'mmmask3d', 'timm' or 'mmpretrain'.
        kind: Where the weights come from, one of
            :data:`~mmmask3d.weights.formats.SOURCES`, or 'auto'.
        prefix: In front of the encoder's names; found if None.
        grid: Rows and columns of patches, if neither recorded nor square.
        num_heads: Attention heads, where not known by size.
        norm_eps: Of the layer norms; 1e-6 if nothing else is recorded.
        norm: The source's mean and std of colours in 0..1; the patch embedding is rewritten to
            take ImageNet's.

    Returns:
        What was done, assumed and left out, and how to use the result, line by line.

    Raises:
        ValueError: The source is not understood, or the result does not load or computes something
            else. Nothing is written.
    """
    checkpoint, encoder, kind = read(source, kind, prefix, grid, num_heads, norm_eps, norm)
    tensors, shown = verify(encoder, target)
    meta = metadata(checkpoint, encoder, kind, source)
    write(out, tensors, meta, target)
    return report(out, target, norm is not None, encoder, kind, shown)


def read(
    source: str,
    kind: str,
    prefix: str | None,
    grid: tuple[int, int] | None,
    heads: int | None,
    eps: float | None,
    norm: tuple[Sequence[float], Sequence[float]] | None,
) -> tuple[Mapping, Conversion, str]:
    """Read and translate the source; returns the checkpoint, the encoder and the kind."""
    checkpoint = load_checkpoint_file(source)
    if kind == 'auto':
        kind, _ = detect(find_tensors(checkpoint, source), source, prefix)
    recorded = {}
    meta = record.read_meta(checkpoint)
    if kind == 'mmpretrain' and ('backbone' in meta or meta.get('cfg')):
        recorded = record.encoder_config(checkpoint, None, source)
        trained = (record.arch_settings(recorded)['num_heads'], recorded.get('norm_cfg', {}))
        for option, asked, known in (
            ('--num-heads', heads, trained[0]),
            ('--norm-eps', eps, trained[1].get('eps')),
        ):
            if asked is not None and known is not None and asked != known:
                raise ValueError(
                    f'{source}: {option} {asked}, but the file records {known}. Leave the '
                    'option out.'
                )
        heads, eps = trained[0], eps or trained[1].get('eps')
    encoder = convert(checkpoint, source, kind, prefix, grid, heads, eps, norm)
    if recorded:
        export.check_architecture(encoder.state, recorded, source)
        kept = {k: v for k, v in recorded.items() if k not in (*_RUNTIME, 'arch')}
        encoder.backbone = {**encoder.backbone, **kept}
    return checkpoint, encoder, kind


def metadata(checkpoint: Mapping, encoder: Conversion, kind: str, source: str) -> dict:
    """Metadata of the file that is written: what it is and where it comes from."""
    meta = export.encoder_metadata(
        checkpoint, None, encoder.backbone, encoder.state, encoder.grid, source
    )
    if kind != 'mmpretrain':
        meta['converted_from'] = kind
        meta['notes'] = encoder.notes
    return meta


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
    # Ours is built in any case: it is what the others are compared with.
    ours = export.build_encoder({**backbone, 'out_type': 'raw'}, grid)
    export.load_strictly(ours, state, 'mmmask3d.Mask3DViT')
    size = (grid[0] * backbone['patch_size'], grid[1] * backbone['patch_size'])
    if target != 'timm':
        plain = export.build_plain_vit(backbone, grid)
        export.load_strictly(plain, state, 'mmpretrain.VisionTransformer')
        shown = [f'loads into mmmask3d.Mask3DViT and mmpretrain.VisionTransformer, img_size={size}']
        if target == 'mmpretrain':
            state = OrderedDict((f'backbone.{k}', v) for k, v in state.items())
        return state, shown
    renamed = to_timm(state)
    try:
        theirs = build_timm(encoder)
    except ImportError:
        back = convert(renamed, 'timm', 'timm', '', grid, ours.arch_settings['num_heads']).state
        export.load_strictly(ours, back, 'mmmask3d.Mask3DViT')
        return renamed, ['timm is not installed: converted back and compared, not loaded there']
    export.load_strictly(theirs, renamed, "timm's VisionTransformer")
    image = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = ours.eval()(image)[0]
        found = theirs.eval().forward_features(image)
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
            data = safetensors_bytes(tensors, {'format': 'pt'})
        else:
            content = {'state_dict': tensors, 'meta': meta} if target == 'mmpretrain' else tensors
            buffer = io.BytesIO()
            torch.save(content, buffer)
            data = buffer.getvalue()
        write_file(out, data)
    written = find_tensors(load_checkpoint_file(out), out)
    if export.tensors_sha256(written) != export.tensors_sha256(tensors):
        raise ValueError(f'{out}: reading the file back gives other tensors than were written')


def report(
    out: str, target: str, folded: bool, encoder: Conversion, kind: str, shown: list[str]
) -> list[str]:
    """What was done, assumed and left out, and how to use the result."""
    left_out = ', '.join(f'{what} ({n} tensors)' for what, n in sorted(encoder.left_out.items()))
    norm = (
        f'{NORMALISATION["mae"]}: the patch embedding was rewritten'
        if folded
        else NORMALISATION[kind]
    )
    lines = [
        f'{out}: {len(encoder.state)} tensors with the names of {target}, from {kind}, '
        f'patch grid {encoder.grid[0]}x{encoder.grid[1]}',
        *shown,
        f'left out: {left_out or "nothing"}',
        *(f'note: {note}' for note in encoder.notes),
        f'input: RGB, normalised with {norm}',
    ]
    if target != 'timm':
        settings = {k: v for k, v in encoder.backbone.items() if k != 'type'}
        lines.append(
            'build with: ' + ', '.join(f'{key}={value!r}' for key, value in settings.items())
        )
    return lines
