"""Draw which RGB and which depth patches the network does not see.

Everywhere in this package: True (1) is **removed**, False (0) is kept; patches are numbered row by
row over the grid.
"""

from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform

from mmmask3d.registry import TRANSFORMS

MASKING_OPTIONS = ('rgb_ratio', 'depth_ratio', 'strategy')
"""What a config's top-level ``masking`` may say."""

# arXiv 2408.02245 finds 80 % of both best for Mask3D.
_UNLESS_SAID = dict(patch_size=None, rgb_ratio=0.8, depth_ratio=0.8, strategy='random')

# Blocks as in BEiT (arXiv 2106.08254, algorithm 1): aspect between 0.3 and 1 / 0.3. The area is
# relative to the grid, because grids here go from 6x8 to 40x40.
_BLOCK_LOG_ASPECT = np.log(0.3), np.log(1 / 0.3)
_BLOCK_AREA = 0.05, 0.25


@TRANSFORMS.register_module()
class DepthAwareMasking(BaseTransform):
    """Draw an RGB mask and, independently, a depth mask.

    Of N patches exactly ``round(N * ratio)`` are removed in every frame, so the kept tokens of a
    batch can be stacked. For depth, patches without a single reading are removed first: a kept
    depth patch has readings unless the frame has fewer patches with readings than are to be kept.

    Strategies:

    - 'random': uniformly, as MAE (arXiv 2111.06377) and Mask3D (arXiv 2302.14746).
    - 'block': removes rectangles around random patches until the count is reached, after BEiT
      (arXiv 2106.08254); what is hidden is then harder to fill in from neighbours.

    Draws from numpy's global generator, which :class:`~mmmask3d.datasets.RGBDDataset` seeds.

    Required keys: ``valid``, (H, W) bool. Added keys: ``rgb_mask``, ``depth_mask``: (N,) bool,
    True = removed; ``grid``: (rows, columns) of patches.

    Args:
        patch_size: Side of a patch in pixels.
        rgb_ratio: Share of RGB patches removed, 0 to 1.
        depth_ratio: Share of depth patches removed, 0 to 1. 1 means no depth input.
        strategy: 'random' or 'block'.
        defaults: What holds for arguments that are None: those of a config's top-level ``masking``
            and the encoder's patch size, which :mod:`mmmask3d.datasets.masking_config` hands over;
            else 0.8, 0.8 and 'random'.

    Raises:
        ValueError: An argument is out of range, a frame's height or width is not a multiple
            of ``patch_size``, or nothing gave a patch size before the first frame.
    """

    def __init__(
        self,
        patch_size: int | None = None,
        rgb_ratio: float | None = None,
        depth_ratio: float | None = None,
        strategy: str | None = None,
        defaults: Mapping[str, Any] | None = None,
    ) -> None:
        said = dict(
            patch_size=patch_size, rgb_ratio=rgb_ratio, depth_ratio=depth_ratio, strategy=strategy
        )
        #: What this step says itself.
        self.own: dict[str, Any] = {k: v for k, v in said.items() if v is not None}
        self.inherit(defaults or {})

    def inherit(self, defaults: Mapping[str, Any]) -> None:
        """Replace what holds for arguments that were not given.

        Args:
            defaults: Any of ``patch_size``, ``rgb_ratio``, ``depth_ratio``, ``strategy``.

        Raises:
            ValueError: One of them is unknown or out of range.
        """
        unknown = sorted(defaults.keys() - _UNLESS_SAID.keys())
        if unknown:
            raise ValueError(
                f'DepthAwareMasking: defaults has {unknown}; expected some of '
                f'{", ".join(_UNLESS_SAID)}.'
            )
        values = {**_UNLESS_SAID, **defaults, **self.own}
        _check(**values)
        self.patch_size: int | None = values['patch_size']
        self.rgb_ratio: float = values['rgb_ratio']
        self.depth_ratio: float = values['depth_ratio']
        self.strategy: str = values['strategy']

    def transform(self, results: dict) -> dict:
        """Draw the masks of one frame."""
        patch = self.patch_size
        if patch is None:
            raise ValueError(
                'DepthAwareMasking: the patch size is not known. It comes from '
                'model.backbone.patch_size when a config is read with '
                'mmmask3d.engine.run_config.load_config, or run with '
                "default_hooks=dict(masking=dict(type='mmmask3d.MaskingHook')). Elsewhere call "
                'mmmask3d.datasets.resolve_masking(cfg) before building from the config, or give '
                'patch_size.'
            )
        height, width = results['valid'].shape
        if height % patch or width % patch:
            raise ValueError(
                f"DepthAwareMasking: frame '{results.get('frame')}' is {height}x{width} (height x "
                f'width), not a multiple of patch_size {patch}. Let RGBDRandomResizedCrop or '
                f'RGBDResize give a size that is, e.g. scale='
                f'({max(1, width // patch) * patch}, {max(1, height // patch) * patch}).'
            )
        grid = height // patch, width // patch
        has_readings = patches_with_readings(results['valid'], patch)
        num_patches = has_readings.size
        results['rgb_mask'] = self._draw(np.arange(num_patches), grid, self.rgb_ratio)
        results['depth_mask'] = self._draw(np.flatnonzero(has_readings), grid, self.depth_ratio)
        results['grid'] = grid
        return results

    def _draw(self, readings: np.ndarray, grid: tuple[int, int], ratio: float) -> np.ndarray:
        """Remove ``round(N * ratio)`` patches, those without readings first.

        Args:
            readings: Numbers of the patches with readings, ascending.
            grid: (rows, columns).
            ratio: Share to remove.

        Returns:
            (N,) bool, True = removed.
        """
        select = _select_random if self.strategy == 'random' else _select_blocks
        total = grid[0] * grid[1]
        num_remove = round(total * ratio)
        num_empty = total - len(readings)
        removed = np.ones(total, dtype=bool)
        removed[readings] = False  # those without readings are left
        if num_empty == 0 or num_empty < num_remove:
            removed[select(readings, num_remove - num_empty, grid)] = True
            return removed
        chosen = select(np.flatnonzero(removed), num_remove, grid)
        removed[:] = False
        removed[chosen] = True
        return removed

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(patch_size={self.patch_size}, rgb_ratio={self.rgb_ratio}, '
            f'depth_ratio={self.depth_ratio}, strategy={self.strategy!r})'
        )


def _check(patch_size: Any, rgb_ratio: Any, depth_ratio: Any, strategy: Any) -> None:
    if patch_size is not None and (not isinstance(patch_size, int) or patch_size < 1):
        raise ValueError(f'DepthAwareMasking: patch_size must be an int > 0, got {patch_size}.')
    for name, ratio in (('rgb_ratio', rgb_ratio), ('depth_ratio', depth_ratio)):
        if not isinstance(ratio, Real) or not 0 <= float(ratio) <= 1:
            raise ValueError(
                f'DepthAwareMasking: {name} is the share of patches removed and must lie in '
                f'[0, 1], got {ratio!r}.'
            )
    if strategy not in ('random', 'block'):
        raise ValueError(
            f"DepthAwareMasking: strategy must be 'random' or 'block', got {strategy!r}."
        )


def patches_with_readings(valid: np.ndarray, patch_size: int) -> np.ndarray:
    """Which patches of a validity map (H, W), a multiple of the patch, hold a reading: bool."""
    height, width = valid.shape
    rows, columns = height // patch_size, width // patch_size
    # Rows first, then columns: both reductions then run over contiguous memory.
    found = np.any(valid.reshape(rows, patch_size, width), axis=1)
    return np.asarray(np.any(found.reshape(rows, columns, patch_size), axis=2))


def _select_random(candidates: np.ndarray, count: int, grid: tuple[int, int]) -> np.ndarray:
    """Select ``count`` of some patches uniformly; numbers of patches in and out."""
    return np.random.permutation(candidates)[:count]


def _select_blocks(candidates: np.ndarray, count: int, grid: tuple[int, int]) -> np.ndarray:
    """Select ``count`` of some patches in rectangles; numbers of patches in and out.

    Each rectangle is centred on a cell that is still free, so every one makes progress and
    the loop ends. The last one is cut row by row to meet the count exactly.
    """
    rows, columns = grid
    left = np.zeros(grid, dtype=bool)
    left.reshape(-1)[candidates] = True
    selected = []
    while count > 0:
        centre = np.random.choice(np.flatnonzero(left))
        area = np.random.uniform(*_BLOCK_AREA) * left.size
        aspect = np.exp(np.random.uniform(*_BLOCK_LOG_ASPECT))
        height = min(rows, max(1, round(np.sqrt(area * aspect))))
        width = min(columns, max(1, round(np.sqrt(area / aspect))))
        top = min(max(centre // columns - height // 2, 0), rows - height)
        start = min(max(centre % columns - width // 2, 0), columns - width)
        inside = np.zeros_like(left)
        inside[top : top + height, start : start + width] = True
        hit = np.flatnonzero(inside & left)[:count]
        left.reshape(-1)[hit] = False
        selected.append(hit)
        count -= len(hit)
    return np.concatenate(selected) if selected else candidates[:0]
