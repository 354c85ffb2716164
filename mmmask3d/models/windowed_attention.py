"""Attention inside windows of the patch grid (ViTDet), on the weights of a global attention."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn


def quarter_ends(num_layers: int) -> tuple[int, ...]:
    """Last layer of each quarter of a transformer, where ViTDet attends globally.

    ViTDet (Li et al., ECCV 2022, arXiv 2203.16527, section 3): 2, 5, 8, 11 of 12 layers.
    """
    return tuple(sorted({-(-num_layers * i // 4) - 1 for i in range(1, 5)}))


def global_layers(
    window_size: int, global_attn_indexes: Sequence[int] | None, num_layers: int
) -> tuple[int, ...]:
    """Layers that attend globally, counted from 0.

    Args:
        window_size: side of the windows of the others; 0 for none.
        global_attn_indexes: what the user chose, negative ones counted from the end; None for
            :func:`quarter_ends`.
        num_layers: of the transformer.

    Raises:
        ValueError: a setting has no effect, or an index is out of range.
    """
    if window_size < 0:
        raise ValueError(f'window_size={window_size}: expected a number of patches, or 0.')
    if not window_size:
        if global_attn_indexes is not None:
            raise ValueError(
                f'global_attn_indexes={tuple(global_attn_indexes)} says which layers are not '
                f'windowed, and window_size=0 windows none. Set window_size (ViTDet: 14), or '
                f'leave global_attn_indexes out.'
            )
        return tuple(range(num_layers))
    if global_attn_indexes is None:
        global_attn_indexes = quarter_ends(num_layers)
    out_of_range = [i for i in global_attn_indexes if not -num_layers <= i < num_layers]
    if out_of_range:
        raise ValueError(
            f'global_attn_indexes: {out_of_range} out of range; this encoder has '
            f'{num_layers} layers.'
        )
    chosen = {i % num_layers for i in global_attn_indexes}
    if len(chosen) == num_layers:
        raise ValueError(
            f'window_size={window_size} has no effect: each of the {num_layers} layers '
            f'attends globally. Give global_attn_indexes with fewer entries, or window_size=0.'
        )
    return tuple(sorted(chosen))


class WindowedAttention(nn.Module):
    """Scaled dot-product attention in which a patch sees its window and the extra tokens.

    Stands where mmpretrain's ``MultiheadAttention`` holds the function that it calls with query,
    key and value. Projections, dropouts and drop path stay the layer's own and see whole images:
    drop path around windows would drop single windows.

    Windows of ``window_size`` x ``window_size`` patches are laid from the top left; those at the
    right and bottom edge are smaller where the grid is no multiple. This is attention under the
    mask "same window, or one of the two is an extra token", so a window that covers the grid is
    global attention. (ViTDet fills the edge windows with zeros, to which its patches then attend.)

    Args:
        attend: function of query, key, value and ``dropout_p`` that is applied to each group of
            windows of one size; there are at most four.
        window_size: side of a window in patches.
        num_extra_tokens: tokens before the patches.
    """

    def __init__(self, attend: Callable[..., Tensor], window_size: int, num_extra_tokens: int):
        super().__init__()
        self.attend = attend
        self.window_size = window_size
        self.num_extra_tokens = num_extra_tokens
        self.grid: tuple[int, int] | None = None

    def extra_repr(self) -> str:
        """What ``print(model)`` shows."""
        return f'window_size={self.window_size}, num_extra_tokens={self.num_extra_tokens}'

    def forward(self, query: Tensor, key: Tensor, value: Tensor, dropout_p: float = 0.0) -> Tensor:
        """Attend; each tensor is ``(B, heads, E + rows * columns, C)``, E extra tokens first.

        Raises:
            RuntimeError: ``grid`` was not set; the layer was called past :func:`run_layer`.
        """
        if self.grid is None:
            raise RuntimeError('WindowedAttention needs the patch grid; call it through run_layer.')
        rows, columns = self.grid
        if rows <= self.window_size and columns <= self.window_size:
            return self.attend(query, key, value, dropout_p=dropout_p)
        extra = self.num_extra_tokens
        maps = [t[:, :, extra:].unflatten(2, (rows, columns)) for t in (query, key, value)]
        strips = []
        for band in _bands(rows, self.window_size):
            blocks = []
            for other in _bands(columns, self.window_size):
                q, k, v = (_cut(m, band, other) for m in maps)
                if extra:
                    k = _prepend(key[:, :, :extra], k)
                    v = _prepend(value[:, :, :extra], v)
                blocks.append(_join(self.attend(q, k, v, dropout_p=dropout_p), band, other))
            strips.append(torch.cat(blocks, dim=3))
        out = torch.cat(strips, dim=2).flatten(2, 3)
        if extra:
            seen_by_all = self.attend(query[:, :, :extra], key, value, dropout_p=dropout_p)
            out = torch.cat((seen_by_all, out), dim=2)
        return out


def window_layer(layer: nn.Module, window_size: int, num_extra_tokens: int) -> None:
    """Turn the attention of a ``TransformerEncoderLayer`` into a windowed one, in place."""
    attention: Any = layer.attn
    attend = attention.scaled_dot_product_attention
    del attention.scaled_dot_product_attention  # a plain attribute, which would hide a submodule
    attention.scaled_dot_product_attention = WindowedAttention(
        attend, window_size, num_extra_tokens
    )


def run_layer(layer: nn.Module, x: Tensor, grid: tuple[int, int]) -> Tensor:
    """Run a layer of mmpretrain or timm on ``(B, E + rows * columns, C)``, windowed or not.

    The grid is set for this one call: recomputation in the backward pass (``with_cp``) comes
    through here again, and may follow a forward pass on images of another size.
    """
    attention: Any = layer.attn
    windows = [m for m in attention.children() if isinstance(m, WindowedAttention)]
    for window in windows:
        window.grid = grid
    x = layer(x)
    for window in windows:
        window.grid = None
    return x


def _bands(length: int, window: int) -> list[tuple[int, int, int]]:
    """Windows along one side as (first patch, number of windows, their size)."""
    whole, rest = length // window, length % window  # divmod breaks torch.compile's graph
    bands = [(0, whole, window)] if whole else []
    return bands + [(whole * window, 1, rest)] if rest else bands


def _cut(tokens: Tensor, band: tuple[int, int, int], other: tuple[int, int, int]) -> Tensor:
    """``(B, heads, rows, columns, C)`` to the windows ``(B * n * m, heads, h * w, C)``."""
    (top, n, h), (left, m, w) = band, other
    x = tokens[:, :, top : top + n * h, left : left + m * w]
    x = x.unflatten(3, (m, w)).unflatten(2, (n, h))  # (B, heads, n, h, m, w, C)
    return x.permute(0, 2, 4, 1, 3, 5, 6).flatten(0, 2).flatten(2, 3)


def _join(windows: Tensor, band: tuple[int, int, int], other: tuple[int, int, int]) -> Tensor:
    """Inverse of :func:`_cut`: ``(B, heads, n * h, m * w, C)``."""
    (_, n, h), (_, m, w) = band, other
    x = windows.unflatten(2, (h, w)).unflatten(0, (-1, n, m))  # (B, n, m, heads, h, w, C)
    return x.permute(0, 3, 1, 4, 2, 5, 6).flatten(4, 5).flatten(2, 3)


def _prepend(extra: Tensor, windows: Tensor) -> Tensor:
    """Put the extra tokens ``(B, heads, E, C)`` before those of each of an image's windows."""
    count = windows.shape[0] // extra.shape[0]
    return torch.cat((extra.repeat_interleave(count, dim=0), windows), dim=2)
