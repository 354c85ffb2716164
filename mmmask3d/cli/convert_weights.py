"""Convert a ViT encoder between MAE, timm, DINOv2, MultiMAE, mmpretrain and this project.

    python tools/model_converters/convert_weights.py mae_pretrain_vit_base.pth encoder.safetensors
    python tools/model_converters/convert_weights.py model.safetensors encoder.pth --from timm
    python tools/model_converters/convert_weights.py encoder.pth timm.safetensors --to timm

The source is told by its names unless ``--from`` says it. What is written has been loaded into the
model it is meant for, with no missing and no unexpected key, or nothing is written. docs/weights.md
lists what is supported and what is refused.
"""

# ruff: noqa: E402
from mmmask3d.preflight import check_environment

check_environment()  # plain words before an import below fails

import argparse
import io
import sys
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from mmmask3d.atomic_file import write_file
from mmmask3d.checkpoints.files import (
    CheckpointError,
    load_checkpoint_file,
    safetensors_bytes,
)
from mmmask3d.models import encoder_record as record
from mmmask3d.weights import export
from mmmask3d.weights.formats import (
    NORMALISATION,
    SOURCES,
    Conversion,
    convert,
    detect,
    find_tensors,
    to_timm,
)

TARGETS = ('mmmask3d', 'timm', 'mmpretrain')
#: Arguments of a recorded backbone that are no property of its weights.
_RUNTIME = ('img_size', 'init_cfg', 'out_indices', 'out_type', 'frozen_stages', 'with_cp')


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('source', help='file to read; never unpickled')
    parser.add_argument('out', help='file to write, .pth or .safetensors')
    parser.add_argument('--from', dest='kind', choices=('auto', *SOURCES), default='auto')
    parser.add_argument('--to', dest='target', choices=TARGETS, default='mmmask3d')
    parser.add_argument('--prefix', help="in front of the encoder's names; found if not given")
    parser.add_argument(
        '--grid', type=int, nargs=2, metavar=('ROWS', 'COLUMNS'),
        help='patch grid of the source, if it is neither recorded nor square',
    )  # fmt: skip
    parser.add_argument('--num-heads', type=int, help='attention heads, where not known by size')
    parser.add_argument('--norm-eps', type=float, help='of the layer norms; 1e-6 by default')
    for name in ('mean', 'std'):
        parser.add_argument(
            f'--input-{name}', type=float, nargs=3, metavar=('R', 'G', 'B'),
            help=f"the source's {name} of colours in 0..1; the patch embedding is rewritten to "
            "take ImageNet's",
        )  # fmt: skip
    args = parser.parse_args(argv)
    if Path(args.out).suffix not in ('.pth', '.safetensors'):
        parser.error(f'{args.out}: the suffix must be .pth or .safetensors')
    if (args.input_mean is None) != (args.input_std is None):
        parser.error('--input-mean and --input-std go together')
    for name, low in (('mean', 0), ('std', 1e-6)):
        values = getattr(args, f'input_{name}')
        if values is not None and not all(low <= value <= 1 for value in values):
            parser.error(
                f'--input-{name} {" ".join(map(str, values))}: expected numbers for colours in '
                '0..1; divide those for colours in 0..255 by 255'
            )
    if args.num_heads is not None and args.num_heads < 1:
        parser.error(f'--num-heads {args.num_heads}: expected at least 1')
    if args.norm_eps is not None and not args.norm_eps > 0:
        parser.error(f'--norm-eps {args.norm_eps}: expected a positive number')
    return args


def read(args: argparse.Namespace) -> tuple[Mapping, Conversion, str]:
    """Read and translate the source; returns the checkpoint, the encoder and the kind."""
    checkpoint = load_checkpoint_file(args.source)
    kind = args.kind
    if kind == 'auto':
        kind, _ = detect(find_tensors(checkpoint, args.source), args.source, args.prefix)
    recorded, heads, eps = {}, args.num_heads, args.norm_eps
    meta = record.read_meta(checkpoint)
    if kind == 'mmpretrain' and ('backbone' in meta or meta.get('cfg')):
        recorded = record.encoder_config(checkpoint, None, args.source)
        trained = (record.arch_settings(recorded)['num_heads'], recorded.get('norm_cfg', {}))
        for option, asked, known in (
            ('--num-heads', heads, trained[0]),
            ('--norm-eps', eps, trained[1].get('eps')),
        ):
            if asked is not None and known is not None and asked != known:
                raise ValueError(
                    f'{args.source}: {option} {asked}, but the file records {known}. Leave the '
                    'option out.'
                )
        heads, eps = trained[0], eps or trained[1].get('eps')
    norm = None if args.input_mean is None else (args.input_mean, args.input_std)
    grid = None if args.grid is None else (args.grid[0], args.grid[1])
    encoder = convert(checkpoint, args.source, kind, args.prefix, grid, heads, eps, norm)
    if recorded:
        export.check_architecture(encoder.state, recorded, args.source)
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
    ours = export.build_mask3d_vit({**backbone, 'out_type': 'raw'}, grid)
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


def report(args: argparse.Namespace, encoder: Conversion, kind: str, shown: list[str]) -> str:
    """What was done, assumed and left out, and how to use the result."""
    left_out = ', '.join(f'{what} ({n} tensors)' for what, n in sorted(encoder.left_out.items()))
    folded = args.input_mean is not None
    norm = (
        f'{NORMALISATION["mae"]}: the patch embedding was rewritten'
        if folded
        else NORMALISATION[kind]
    )
    lines = [
        f'{args.out}: {len(encoder.state)} tensors with the names of {args.target}, from {kind}, '
        f'patch grid {encoder.grid[0]}x{encoder.grid[1]}',
        *shown,
        f'left out: {left_out or "nothing"}',
        *(f'note: {note}' for note in encoder.notes),
        f'input: RGB, normalised with {norm}',
    ]
    if args.target != 'timm':
        settings = {k: v for k, v in encoder.backbone.items() if k != 'type'}
        lines.append(
            'build with: ' + ', '.join(f'{key}={value!r}' for key, value in settings.items())
        )
    return '\n  '.join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 when the file was written and verified."""
    args = parse_args(argv)
    try:
        checkpoint, encoder, kind = read(args)
        tensors, shown = verify(encoder, args.target)
        meta = metadata(checkpoint, encoder, kind, args.source)
        write(args.out, tensors, meta, args.target)
    except (OSError, KeyError, ValueError, CheckpointError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    print(report(args, encoder, kind, shown))
    return 0


if __name__ == '__main__':
    sys.exit(main())
