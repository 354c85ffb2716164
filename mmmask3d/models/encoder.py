"""What every RGB encoder of this project gives: the contract of ``Mask3DViT`` and ``TimmViT``."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from mmengine.model.weight_init import PretrainedInit
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmmask3d.models.pos_embed import GRID_KEY


@runtime_checkable
class RGBEncoder(Protocol):
    """An image encoder that serves masked pre-training and dense tasks.

    The pre-trainer, the pyramid, layer decay, the probes and the inferencer use these members and
    no others. ``forward(images)`` gives feature maps, ``forward(images, keep_ids)`` the tokens of
    the kept patches, as if the other patches did not exist. Images have any size in the first case,
    and sides that are multiples of the patch in the second.
    """

    patch_size: int
    """Side of a patch in pixels."""
    embed_dims: int
    """Channels of a token."""
    num_layers: int
    """Number of transformer layers."""
    num_extra_tokens: int
    """Class and register tokens, which stand before the patches."""
    grid_size: tuple[int, int]
    """Patch grid ``(rows, columns)`` that positions are stored for."""
    out_indices: tuple[int, ...]
    """Layers whose maps are returned, counted from 0."""
    frozen_stages: int
    """-1: nothing is frozen; 0: what precedes the layers; n: also the first n layers."""
    window_size: int
    """Side of attention windows in patches, 0 for global attention."""
    normalisation: dict[str, tuple[float, ...]] | None
    """``mean`` and ``std`` (RGB, 0 to 255) that belong to the weights; None where unknown."""

    def forward(
        self,
        x: Tensor,
        keep_ids: Tensor | None = None,
        layers: Sequence[int] | None = None,
        frozen: Tensor | None = None,
    ) -> tuple[Tensor, ...] | Tensor:
        """Maps ``(B, C, h, w)`` of ``out_indices``; with ``keep_ids`` tokens ``(B, E + K, C)``.

        ``layers`` stand in for ``out_indices``, and give a tuple of tokens with ``keep_ids`` too.
        ``frozen`` are the tokens of :meth:`forward_frozen`: only the layers after those run, and
        patches are removed there.
        """

    def forward_frozen(self, x: Tensor) -> Tensor:
        """Tokens ``(B, E + N, C)`` of whole images after the frozen stages, without gradient."""

    def has_weights(self) -> bool:
        """Whether the config names weights to start from."""

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Depth of a parameter and number of depths, for layer-wise learning-rate decay."""


def layer_indices(
    layers: int | Sequence[int], num_layers: int, name: str = 'layers'
) -> tuple[int, ...]:
    """Layers counted from 0, of which negative ones are counted from the end.

    Raises:
        ValueError: no layer, or one that does not exist.
    """
    chosen = [layers] if isinstance(layers, int) else list(layers)
    if not chosen or not all(-num_layers <= i < num_layers for i in chosen):
        raise ValueError(
            f'{name}={layers!r}: this encoder has {num_layers} layers, numbered from 0 to '
            f'{num_layers - 1}.'
        )
    return tuple(i % num_layers for i in chosen)


class EncoderParts:
    """What the encoders have in common, whoever computes the features; named first among the bases.

    A subclass says what precedes its layers (:meth:`_start`), what a layer and the norm after the
    last one are, how tokens become maps, and what belongs to its frozen stages. A context that
    :meth:`_start` gives goes along to the layers and the maps.
    """

    frozen_stages: int

    def forward(
        self: Any,
        x: Tensor,
        keep_ids: Tensor | None = None,
        layers: Sequence[int] | None = None,
        frozen: Tensor | None = None,
    ) -> tuple[Tensor, ...] | Tensor:
        """Encode an image, all of it or its kept patches.

        Args:
            x: images ``(B, 3, H, W)``, normalised.
            keep_ids: row-major indices of the kept patches ``(B, K)`` int64.
            layers: layers whose output is returned, in this order, in place of ``out_indices``;
                negative ones are counted from the end.
            frozen: tokens of :meth:`forward_frozen`, to run the layers after them alone.

        Returns:
            Without ``keep_ids``: a tuple with the output of each layer in ``out_indices``,
            ``(B, C, ceil(H / p), ceil(W / p))``, that of the last layer after its norm. With them:
            the tokens ``(B, E + K, C)`` after the last layer and its norm, E extra tokens first; a
            tuple of such tokens where ``layers`` are named.

        Raises:
            ValueError: with ``keep_ids``: windowed attention, sides that are no multiple of the
                patch, or a patch embedding that cannot be applied patch by patch; with ``frozen``:
                nothing is frozen, or a wanted layer is.
        """
        wanted = sorted(set(self.out_indices))
        if layers is not None:
            wanted = list(layer_indices(layers, self.num_layers))
        if keep_ids is not None:
            if self.window_size:
                raise ValueError(
                    f'Masked pre-training attends globally, as kept patches fill no windows, and '
                    f'window_size={self.window_size} is set. Pre-train with window_size=0 and set '
                    f'it for the dense task: the weights are the same.'
                )
            wanted = [self.num_layers - 1] if layers is None else wanted
        first = 0 if frozen is None else self.frozen_stages
        if not 0 <= first <= min(wanted):
            raise ValueError(
                f'Layers {tuple(wanted)} are wanted from tokens that stand after the frozen '
                f'stages, frozen_stages={first}; expected 0 or more of them, and later layers.'
            )
        tokens, context = self._start(x, keep_ids, frozen)
        outs = {}
        for i in range(first, max(wanted) + 1):
            tokens = self._run_layer(i, tokens, context)
            if i == self.num_layers - 1:
                tokens = self._last_norm(tokens)
            if i in wanted:
                outs[i] = tokens if keep_ids is not None else self._to_map(tokens, context)
        found = tuple(outs[i] for i in wanted)
        return found[0] if keep_ids is not None and layers is None else found

    @torch.no_grad()
    def forward_frozen(self: Any, x: Tensor) -> Tensor:
        """Tokens ``(B, E + N, C)`` of whole images after the frozen stages, without gradient."""
        tokens, context = self._start(x)
        for i in range(self.frozen_stages):
            tokens = self._run_layer(i, tokens, context)
        return tokens

    def _run_layer(self: Any, index: int, x: Tensor, context: Any) -> Tensor:
        if self.with_cp and self.training and torch.is_grad_enabled():
            return checkpoint(self._layer, index, x, context, use_reentrant=False)
        return self._layer(index, x, context)

    def has_weights(self) -> bool:
        """Whether the config names weights to start from."""
        return self._pretrained() is not None

    def _pretrained(self: Any) -> dict[str, Any] | None:
        """Arguments of ``init_cfg=dict(type='Pretrained', ...)``; None without one."""
        configs = self.init_cfg if isinstance(self.init_cfg, list | tuple) else [self.init_cfg]
        for cfg in filter(None, configs):
            if cfg['type'] in ('Pretrained', PretrainedInit):
                return {k: v for k, v in cfg.items() if k != 'type'}
        return None

    def train(self: Any, mode: bool = True) -> Any:
        """Switch mode, but for what is frozen; return self (mmpretrain's backbones return None)."""
        nn.Module.train(self, mode)
        if self.frozen_stages >= 0:
            for module in self._frozen()[0]:
                module.eval()  # no dropout and no drop path
        return self

    def _freeze(self, frozen_stages: int, num_layers: int) -> None:
        if not -1 <= frozen_stages <= num_layers:
            raise ValueError(
                f'frozen_stages={frozen_stages}: expected -1 (nothing is frozen) to '
                f'{num_layers} (everything).'
            )
        self.frozen_stages = frozen_stages
        if frozen_stages >= 0:
            modules, tokens = self._frozen()
            for module in modules:
                module.eval()
                module.requires_grad_(False)
            for token in tokens:
                if token is not None:
                    token.requires_grad_(False)

    def _frozen(self) -> tuple[list[nn.Module], list[nn.Parameter | None]]:
        """Modules and tokens of the frozen stages, of which there is at least stage 0."""
        raise NotImplementedError

    def _grid_of(self: Any, images: Tensor) -> tuple[int, int]:
        """Patch rows and columns, those that reach beyond the image included."""
        rows, columns = (-(-side // self.patch_size) for side in images.shape[-2:])
        return rows, columns


def record_grid(module: RGBEncoder, state_dict: dict, prefix: str, local_metadata: dict) -> None:
    """State-dict hook that writes the patch grid into the metadata kept for an encoder.

    ``local_metadata`` is the dict that torch stores in ``state_dict._metadata`` and hands to the
    load hooks; mmengine's checkpoints preserve it.
    """
    local_metadata[GRID_KEY] = module.grid_size


def with_normalisation(preprocessor: dict[str, Any], encoder: RGBEncoder) -> dict[str, Any]:
    """A data preprocessor's config with the ``mean`` and ``std`` that the encoder's weights want.

    Raises:
        ValueError: the config says otherwise, and the encoder starts from weights.
    """
    wanted = encoder.normalisation
    if wanted is None:
        return preprocessor
    given = {key: preprocessor.get(key) or value for key, value in wanted.items()}
    differing = [k for k, v in wanted.items() if not np.allclose(given[k], v, atol=0.05)]
    if differing and encoder.has_weights():
        raise ValueError(
            f'The weights of {type(encoder).__name__} were trained on images normalised with '
            f'{wanted}, and the data preprocessor has '
            f'{ {k: tuple(given[k]) for k in differing} }. Leave mean and std out of it to take '
            f"the encoder's."
        )
    return {**preprocessor, **given}
