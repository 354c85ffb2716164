"""Maps to patch tokens and back, and the gathers and scatters of masked modelling.

Patches are numbered row-major over the grid ``(H / p, W / p)``. In every mask 1 (True) means
*removed*, as in MAE.
"""

import torch
from torch import Tensor


def grid_of(height: int, width: int, patch_size: int) -> tuple[int, int]:
    """Patch grid ``(rows, columns)`` of a map, which must be a multiple of the patch.

    Raises:
        ValueError: if height or width is not a multiple of ``patch_size``.
    """
    if height % patch_size or width % patch_size:
        raise ValueError(
            f'Masked pre-training needs an input whose sides are multiples of the patch: found '
            f'{height}x{width} (height x width) with patch_size={patch_size}. Crop or resize to '
            f'{max(height // patch_size, 1) * patch_size}x'
            f'{max(width // patch_size, 1) * patch_size}, or change patch_size.'
        )
    return height // patch_size, width // patch_size


def patchify(maps: Tensor, patch_size: int) -> Tensor:
    """Cut maps ``(B, C, H, W)`` into patches ``(B, N, C * p * p)``, channel-major in a patch.

    The order inside a patch is that of a convolution kernel ``(C, p, p)``, so a patch embedding is
    ``linear(patchify(x), conv.weight.flatten(1))``.
    """
    b, c, h, w = maps.shape
    gh, gw = grid_of(h, w, patch_size)
    x = maps.reshape(b, c, gh, patch_size, gw, patch_size)
    return x.permute(0, 2, 4, 1, 3, 5).reshape(b, gh * gw, c * patch_size**2)


def unpatchify(patches: Tensor, patch_size: int, grid: tuple[int, int]) -> Tensor:
    """Inverse of :func:`patchify`: ``(B, N, C * p * p)`` to ``(B, C, H, W)``."""
    b = patches.shape[0]
    gh, gw = grid
    x = patches.reshape(b, gh, gw, -1, patch_size, patch_size)
    return x.permute(0, 3, 1, 4, 2, 5).reshape(b, -1, gh * patch_size, gw * patch_size)


def patch_mask_to_pixels(mask: Tensor, patch_size: int, grid: tuple[int, int]) -> Tensor:
    """Spread a patch mask ``(B, N)`` over its pixels: ``(B, 1, H, W)``, same dtype."""
    m = mask.reshape(mask.shape[0], 1, *grid)
    return m.repeat_interleave(patch_size, dim=2).repeat_interleave(patch_size, dim=3)


def keep_ids_from_mask(mask: Tensor, name: str = 'mask') -> Tensor:
    """Indices of the kept patches, ascending: ``(B, N)`` bool to ``(B, N_keep)`` int64.

    Meant for CPU masks (``nonzero`` synchronises on an accelerator).

    Raises:
        ValueError: if the samples of the batch keep different numbers of patches.
    """
    counts = (~mask).sum(dim=1)
    if counts.numel() and (counts != counts[0]).any():
        raise ValueError(
            f'All samples of a batch must keep the same number of patches; {name} keeps '
            f'{sorted(set(counts.tolist()))}. Use one mask ratio and one input size per batch.'
        )
    return torch.nonzero(~mask)[:, 1].reshape(mask.shape[0], -1)


def gather_tokens(tokens: Tensor, ids: Tensor) -> Tensor:
    """Select ``(B, K, C)`` of ``(B, N, C)`` by ids ``(B, K)``."""
    return tokens.gather(1, ids.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


def keep_tokens(tokens: Tensor, ids: Tensor, num_extra_tokens: int) -> Tensor:
    """Extra tokens and some patches of ``(B, E + N, C)``, by ids ``(B, K)``: ``(B, E + K, C)``."""
    extra, patches = tokens[:, :num_extra_tokens], tokens[:, num_extra_tokens:]
    return torch.cat((extra, gather_tokens(patches, ids)), dim=1)


def scatter_tokens(tokens: Tensor, ids: Tensor, filler: Tensor, num_patches: int) -> Tensor:
    """Put ``tokens`` ``(B, K, C)`` at ``ids`` ``(B, K)`` of ``(B, num_patches, C)``.

    ``filler`` ``(1, 1, C)``, the learned mask token, stands everywhere else.
    """
    b, _, c = tokens.shape
    dense = filler.to(tokens.dtype).expand(b, num_patches, c)
    return dense.scatter(1, ids.unsqueeze(-1).expand(-1, -1, c), tokens)


def resample_patch_embed(weight: Tensor, patch_size: int) -> Tensor:
    """Weights ``(C, 3, p, p)`` of a patch embedding for patches of another size.

    They give an image that was enlarged by the same factor the features of before: the kernel is
    multiplied by the pseudo-inverse of the resize (FlexiViT, arXiv 2212.08013, section 3.4), which
    is exact when patches grow.

    Raises:
        ImportError: timm, which computes it, is not installed.
    """
    try:
        from timm.layers import resample_patch_embed as resample
    except ImportError as error:
        raise ImportError(
            f'Patches of {weight.shape[-1]} pixels become patches of {patch_size}, which needs '
            'timm: pip install "mmmask3d[timm]".'
        ) from error
    return resample(weight, [patch_size, patch_size])
