"""The encoder of a pre-training checkpoint as a separate file that is proved to load."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from mmmask3d.checkpoints.files import load_checkpoint_file
from mmmask3d.config_files import read_config_file
from mmmask3d.models import encoder_record as record
from mmmask3d.weights import adapters, export


def extract(
    checkpoint_path: str,
    out: str,
    config_path: str | None,
    grid: Sequence[int] | None,
    adapter: bool = False,
    base: str | None = None,
) -> list[str]:
    """Write the encoder and return the lines that say what was done.

    LoRA is added to the weights it was trained on; ``adapter`` writes it alone. ``base`` is where
    these weights are, if not where the config or the adapter says.
    """
    source = str(checkpoint_path)
    checkpoint: Mapping = load_checkpoint_file(source)
    config = read_config_file(config_path).to_dict() if config_path else None
    if adapter:
        return adapters.write_adapter(checkpoint, config, source, out, base)
    checkpoint = adapters.merged(checkpoint, config, source, base)
    state_dict = export.encoder_state_dict(checkpoint, source)
    backbone = export.described(record.encoder_config(checkpoint, config, source))

    old = export.source_grid(state_dict, checkpoint, backbone, source)
    new = old if grid is None else (grid[0], grid[-1])
    if record.is_timm(backbone):
        encoder: Any = export.build_encoder(backbone, new)
        encoder.fill(state_dict, source, old)  # positions by timm's own resampling
        state_dict = OrderedDict(encoder.trunk.state_dict())
    else:
        state_dict = export.resample_encoder(
            state_dict,
            old,
            new,
            backbone.get('with_cls_token', True),
            backbone.get('pos_embed_resize'),
        )
    # Before anything is written: every model takes the tensors, or there is no file.
    takers = export.load_everywhere(state_dict, backbone, new)
    meta = export.encoder_metadata(checkpoint, config, backbone, state_dict, new, source)
    export.write_encoder(out, state_dict, meta)

    patch = record.as_pair(backbone.get('patch_size', 16))
    size = (new[0] * patch[0], new[1] * patch[1])
    lines = [
        f'{out}: {len(state_dict)} tensors, patch grid {new[0]}x{new[1]}'
        + ('' if new == old else f' (resampled from {old[0]}x{old[1]})'),
        f'  loads into {" and ".join(f"{name}(img_size={size})" for name in takers)}: '
        'no missing and no unexpected key'
        + (f', with the names of {backbone["model"]} in timm' if record.is_timm(backbone) else ''),
        f'  sha256 of the tensors {meta["tensors_sha256"]}',
    ]
    if new[0] != new[1] and len(takers) > 1:
        lines.append(
            '  note: mmpretrain.VisionTransformer can take this grid only at that img_size; it '
            'reads any other position embedding as square. Use --grid N for a square one.'
        )
    return lines
