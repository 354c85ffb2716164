"""Position embeddings on patch grids of any shape."""

import json
import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from mmpretrain.models.utils import build_2d_sincos_position_embedding
from torch import Tensor

GRID_KEY = 'patch_grid'
"""Name of the patch grid ``(rows, columns)`` in a checkpoint's metadata."""


def sincos_pos_embed(grid: tuple[int, int], embed_dims: int) -> Tensor:
    """Fixed 2D sine-cosine embedding (MAE), row-major: ``(1, rows * columns, embed_dims)``.

    The first half of the channels encodes the row, the second the column, as in mmpretrain's MAE.
    That builder runs over columns first, which only a square grid forgives; handing it
    the grid transposed gives rows first.
    """
    rows, columns = grid
    return build_2d_sincos_position_embedding((columns, rows), embed_dims)


def grid_from_metadata(metadata: Mapping | None) -> tuple[int, int] | None:
    """Patch grid written into a checkpoint's metadata, or None where there is none."""
    grid = (metadata or {}).get(GRID_KEY)
    if isinstance(grid, str):  # safetensors keeps metadata as text
        grid = json.loads(grid)
    return None if grid is None else (int(grid[0]), int(grid[1]))


def grid_from_checkpoint(checkpoint: Mapping, prefix: str = 'backbone.') -> tuple[int, int] | None:
    """Patch grid of the encoder in a loaded checkpoint file, or None if it is not recorded.

    Looks at ``checkpoint['meta']['patch_grid']`` (encoder-only files), then at the state dict's
    own metadata under ``prefix`` (checkpoints of whole models).
    """
    grid = grid_from_metadata(checkpoint.get('meta'))
    if grid is None:
        state_dict = checkpoint.get('state_dict', checkpoint)
        metadata = getattr(state_dict, '_metadata', None) or {}
        grid = grid_from_metadata(metadata.get(prefix.rstrip('.')))
    return grid


def infer_grid(
    num_patches: int, own_grid: Sequence[int], recorded: tuple[int, int] | None
) -> tuple[int, int]:
    """Patch grid of a position embedding that is about to be loaded.

    Without a record a square number is read as a square grid, the convention of MAE, timm and
    mmpretrain; any other number must be that of the model it is loaded into. Where both readings
    are possible (36 patches into a model of 4x9) none is taken.

    Raises:
        ValueError: if the record does not fit, or nothing tells the shape.
    """
    if recorded is not None:
        if recorded[0] * recorded[1] != num_patches:
            raise ValueError(
                f'The checkpoint says its patch grid is {recorded[0]}x{recorded[1]}, but its '
                f'position embedding has {num_patches} patches. The file is damaged or was edited.'
            )
        return recorded
    own = int(own_grid[0]), int(own_grid[1])
    side = math.isqrt(num_patches)
    candidates = {(side, side)} if side * side == num_patches else set()
    if num_patches == own[0] * own[1]:
        candidates.add(own)
    if len(candidates) == 1:
        return candidates.pop()
    found = f'which may be {side}x{side} or {own[0]}x{own[1]}' if candidates else 'no square number'
    raise ValueError(
        f'The position embedding in the checkpoint has {num_patches} patches, {found}, '
        f'and the file does not record its grid; this model has {own[0]}x{own[1]}. '
        f'Export it with mmmask3d extract, which records the grid, or build the model with the '
        f'img_size it was trained with.'
    )


def resize_to_grid(
    pos_embed: Tensor,
    source: Sequence[int],
    target: Sequence[int],
    num_extra_tokens: int = 1,
    mode: str = 'bicubic',
    offset: float = 0.0,
    antialias: bool = False,
) -> Tensor:
    """Resample ``(1, E + rows * columns, C)`` between two grids, keeping the E extra tokens.

    Args:
        pos_embed: the embedding, extra tokens first.
        source: rows and columns it is stored for.
        target: rows and columns that are wanted.
        num_extra_tokens: E.
        mode: of ``torch.nn.functional.interpolate``.
        offset: added to the target's rows and columns where the scale is computed, as Meta's
            DINOv2 does (0.1 there, ``interpolate_offset``); the positions shift a little.
        antialias: filter when the grid becomes smaller, as DINOv2 with registers does.
    """
    if tuple(source) == tuple(target):
        return pos_embed
    rows, columns = source
    extra, patches = pos_embed[:, :num_extra_tokens], pos_embed[:, num_extra_tokens:]
    grid = patches.float().reshape(1, rows, columns, -1).permute(0, 3, 1, 2)
    wanted: dict[str, Any] = dict(size=tuple(target))
    if offset:
        scale = [(new + offset) / old for new, old in zip(target, source, strict=True)]
        wanted = dict(scale_factor=scale)
    grid = F.interpolate(grid, mode=mode, align_corners=False, antialias=antialias, **wanted)
    resized = grid.flatten(2).transpose(1, 2).to(pos_embed.dtype)
    return torch.cat((extra, resized), dim=1)


@lru_cache(maxsize=32)
def _sincos_on(
    device: torch.device, dtype: torch.dtype, grid: tuple[int, int], embed_dims: int
) -> Tensor:
    # What is kept must serve training too, wherever it was first asked for.
    with torch.inference_mode(False):
        return sincos_pos_embed(grid, embed_dims).to(device, dtype)


def add_sincos(tokens: Tensor, grid: tuple[int, int], ids: Tensor | None = None) -> Tensor:
    """Add the fixed embedding to ``(B, N, C)``, or to the ``(B, K, C)`` tokens at ``ids``."""
    pos = _sincos_on(tokens.device, tokens.dtype, grid, tokens.shape[-1])
    if ids is None:
        return tokens + pos
    return tokens + torch.nn.functional.embedding(ids, pos[0])
