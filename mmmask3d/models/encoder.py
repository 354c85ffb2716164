"""What every RGB encoder of this project gives: the contract of ``Mask3DViT`` and ``TimmViT``."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from mmengine.model.weight_init import PretrainedInit
from torch import Tensor, nn

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

    A subclass says in :meth:`_frozen` what belongs to its frozen stages.
    """

    frozen_stages: int

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

    def _check_no_windows(self: Any) -> None:
        if self.window_size:
            raise ValueError(
                f'Masked pre-training attends globally, as kept patches fill no windows, and '
                f'window_size={self.window_size} is set. Pre-train with window_size=0 and set it '
                f'for the dense task: the weights are the same.'
            )


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


def check_frozen_tokens(layers: Sequence[int], frozen_stages: int) -> None:
    """Refuse layers that :meth:`RGBEncoder.forward_frozen` has passed already.

    Raises:
        ValueError: nothing is frozen, or a wanted layer is.
    """
    if frozen_stages < 0 or min(layers) < frozen_stages:
        raise ValueError(
            f'Layers {tuple(layers)} are wanted from tokens that stand after the frozen stages, '
            f'frozen_stages={frozen_stages}; expected 0 or more of them, and later layers.'
        )
