"""Which settings of the backbone an encoder needs: read from its weights, or timm's by name."""

from collections.abc import Mapping
from typing import Any

import torch
from mmpretrain.models import VisionTransformer

from mmmask3d.checkpoints.locations import read_checkpoint
from mmmask3d.models import TimmViT
from mmmask3d.models.adapter import is_adapter
from mmmask3d.models.encoder_names import WeightFormatError
from mmmask3d.models.encoder_record import arch_settings, as_pair, encoder_config
from mmmask3d.swap.backbone import SwapError
from mmmask3d.weights.adapters import merged
from mmmask3d.weights.export import (
    described,
    encoder_state_dict,
    source_grid,
)
from mmmask3d.weights.formats import convert

# Settings of a pre-training that mean nothing, or something else, to the dense task.
_NOT_KEPT = {
    'type',
    'img_size',
    'out_indices',
    'out_type',
    'frozen_stages',
    'init_cfg',
    'pretrained',
    'with_cp',
    'drop_rate',
    'drop_path_rate',
    'window_size',
    'global_attn_indexes',
    'norm_cfg',  # of the transformer; that of Mask3DPyramid is its pyramid's
}
_NORM = dict(type='LN', eps=1e-6)
#: How an encoder of timm is named in place of a file: ``timm:vit_small_patch16_dinov3.lvd1689m``.
TIMM = 'timm:'


def check_arch(arch: str | dict | None) -> None:
    """Refuse a name that is none.

    Raises:
        SwapError: the message lists the known names.
    """
    if isinstance(arch, str) and arch not in VisionTransformer.arch_zoo:
        raise SwapError(
            f'arch {arch!r} is unknown; expected one of '
            f'{", ".join(sorted(VisionTransformer.arch_zoo))}.'
        )


def encoder_settings(checkpoint: str, arch: str | dict | None = None) -> dict[str, Any]:
    """``arch``, ``patch_size``, ``img_size`` and what else the encoder in a file needs.

    From the settings recorded in the file (exports and training checkpoints of this project), else
    from the shapes of its tensors. ``img_size`` is the size of the pre-training, so that the
    position embedding is kept as it was learned and resampled once, for the image at hand.

    Args:
        checkpoint: path or URL, read without unpickling code; or ``timm:NAME`` for timm's weights.
        arch: the architecture that is wanted; None takes the file's.

    Returns:
        Arguments of ``Mask3DViT``; or, with ``type`` and weights, those of a ``TimmViT``.

    Raises:
        SwapError: ``arch`` is no name, or not that of the file; the shapes do not tell enough, or
            the file has norm layers that the new backbone cannot have.
        ValueError: the file holds no vision transformer.
    """
    check_arch(arch)
    if checkpoint.startswith(TIMM):
        return _timm_settings(dict(model=checkpoint.removeprefix(TIMM), pretrained=True), arch)
    loaded: Mapping = read_checkpoint(checkpoint)
    if is_adapter(loaded):
        loaded = merged(loaded, None, checkpoint)
    state = encoder_state_dict(loaded, checkpoint)
    if 'patch_embed.proj.weight' in state:
        recorded = described(encoder_config(loaded, None, checkpoint))
        kept = {k: recorded[k] for k in ('model', 'model_args') if recorded.get(k)}
        grid = source_grid(state, loaded, recorded, checkpoint)
        return _timm_settings(
            {**kept, 'pretrained': checkpoint}, arch, grid, recorded['patch_size']
        )
    try:
        recorded = encoder_config(loaded, None, checkpoint)
    except ValueError:  # no record: files of other projects, which the shapes describe
        recorded, grid = _settings_by_shape(state, checkpoint)
    else:
        grid = source_grid(state, loaded, recorded, checkpoint)
    if arch is not None and arch_settings(dict(arch=arch)) != arch_settings(recorded):
        raise SwapError(
            f'{checkpoint}: its encoder is {recorded.get("arch", "base")!r}, and {arch!r} was '
            f'asked for. Leave --arch out to take that of the file.'
        )
    norm = recorded.get('norm_cfg')
    if norm not in (None, _NORM):
        raise SwapError(
            f'{checkpoint}: its encoder has the norm layers {norm}; Mask3DPyramid has {_NORM} in '
            f'its transformer, and would compute something else.'
        )
    rows, columns = as_pair(recorded.get('patch_size', 16))
    return {
        **{k: v for k, v in recorded.items() if k not in _NOT_KEPT},
        'patch_size': rows,
        'img_size': (grid[0] * rows, grid[1] * columns),
    }


def _settings_by_shape(state: Mapping, source: str) -> tuple[dict, tuple[int, int]]:
    """Arguments of ``Mask3DViT``, and the patch grid."""
    try:
        found = convert({'state_dict': state}, source, 'mmpretrain')
    except WeightFormatError as error:
        raise SwapError(
            f'{error} mmmask3d convert-weights takes these options and records them in the file '
            f'that it writes.'
        ) from error
    return found.backbone, found.grid


def _timm_settings(
    settings: dict,
    arch: str | dict | None,
    grid: tuple[int, int] | None = None,
    patch_size: int | None = None,
) -> dict[str, Any]:
    """Arguments of a ``TimmViT`` on the grid of its weights; timm's own where nothing is given."""
    name = f'{TIMM}{settings["model"]}'
    if arch is not None:
        raise SwapError(f'{name}: its name says the architecture; leave --arch out.')
    try:
        with torch.device('meta'):
            built = TimmViT(**{k: v for k, v in settings.items() if k != 'pretrained'})
    except (ImportError, ValueError) as error:
        raise SwapError(str(error)) from error
    patch = patch_size or built.patch_size
    if grid is None:
        height, width = built.trained_size
        grid = (height // patch, width // patch)
    return dict(
        type='mmmask3d.TimmViT',
        **settings,
        img_size=(grid[0] * patch, grid[1] * patch),
        patch_size=patch,
    )
