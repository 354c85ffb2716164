"""Write the encoder of a pre-training checkpoint as a file of its own, and prove that it loads.

    python tools/model_converters/extract_backbone.py work_dirs/run/epoch_100.pth encoder.pth
    python tools/model_converters/extract_backbone.py epoch_100.pth encoder.safetensors --grid 14

The export keeps the patch grid it was trained on, unless ``--grid`` asks for another. A square
grid is what ``mmpretrain.VisionTransformer`` needs to resize the position embedding to other image
sizes by itself.
"""

# ruff: noqa: E402
from mmmask3d.preflight import check_environment

check_environment()  # plain words before an import below fails

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mmmask3d.checkpoints.files import CheckpointError, load_checkpoint_file
from mmmask3d.config_files import read_config_file
from mmmask3d.models import encoder_record as record
from mmmask3d.weights import export


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        'checkpoint', help='checkpoint of a pre-training run, or an exported encoder'
    )
    parser.add_argument('out', help='file to write, .pth or .safetensors')
    parser.add_argument('--config', help='config of the run; default: the text in the checkpoint')
    parser.add_argument(
        '--grid', type=int, nargs='+', metavar='N',
        help='resample the position embedding to N x N patches, or to ROWS COLUMNS',
    )  # fmt: skip
    args = parser.parse_args(argv)
    if args.grid is not None and (len(args.grid) > 2 or min(args.grid) < 1):
        parser.error('--grid takes one or two positive numbers: N, or ROWS COLUMNS')
    if Path(args.out).suffix not in ('.pth', '.safetensors'):
        parser.error(f'{args.out}: the suffix must be .pth or .safetensors')
    return args


def extract(
    checkpoint_path: str, out: str, config_path: str | None, grid: Sequence[int] | None
) -> list[str]:
    """Write the encoder and return the lines that say what was done."""
    source = str(checkpoint_path)
    checkpoint = load_checkpoint_file(source)
    config = read_config_file(config_path).to_dict() if config_path else None
    state_dict = export.encoder_state_dict(checkpoint, source)
    backbone = record.encoder_config(checkpoint, config, source)
    export.check_architecture(state_dict, backbone, source)

    old = export.source_grid(state_dict, checkpoint, backbone, source)
    new = old if grid is None else (grid[0], grid[-1])
    state_dict = export.resample_encoder(state_dict, old, new, backbone.get('with_cls_token', True))

    # Before anything is written: both models take the tensors, or there is no file.
    plain = export.build_plain_vit(backbone, new)
    export.load_strictly(plain, state_dict, 'mmpretrain.VisionTransformer')
    export.load_strictly(export.build_mask3d_vit(backbone, new), state_dict, 'mmmask3d.Mask3DViT')
    meta = export.encoder_metadata(checkpoint, config, backbone, state_dict, new, source)
    export.write_encoder(out, state_dict, meta)
    written = export.encoder_state_dict(load_checkpoint_file(out), out)
    if export.tensors_sha256(written) != meta['tensors_sha256']:
        raise ValueError(f'{out}: reading the file back gives other tensors than were written')

    height, width = plain.img_size
    lines = [
        f'{out}: {len(state_dict)} tensors, patch grid {new[0]}x{new[1]}'
        + ('' if new == old else f' (resampled from {old[0]}x{old[1]})'),
        f'  loads into mmmask3d.Mask3DViT(img_size=({height}, {width})) and '
        f'mmpretrain.VisionTransformer(img_size=({height}, {width})): '
        'no missing and no unexpected key',
        f'  sha256 of the tensors {meta["tensors_sha256"]}',
    ]
    if new[0] != new[1]:
        lines.append(
            '  note: mmpretrain.VisionTransformer can take this grid only at that img_size; it '
            'reads any other position embedding as square. Use --grid N for a square one.'
        )
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 when the file was written and verified."""
    args = parse_args(argv)
    try:
        lines = extract(args.checkpoint, args.out, args.config, args.grid)
    except (OSError, KeyError, ValueError, CheckpointError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    print('\n'.join(lines))
    return 0


if __name__ == '__main__':
    sys.exit(main())
