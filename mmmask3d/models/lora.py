"""LoRA for the encoders: low-rank matrices are trained, the weights they are added to are not.

mmpretrain's ``LoRAModel`` (Hu et al., arXiv 2106.09685) under the contract of
:class:`~.encoder.RGBEncoder`.
"""

import copy
import logging
import re
from collections.abc import Sequence
from typing import Any, get_type_hints

import torch
from mmengine.logging import print_log
from mmpretrain.models import LoRAModel
from mmpretrain.models.peft.lora import LoRALinear
from torch import Tensor, nn

from mmmask3d.models.adapter import base_sha256
from mmmask3d.models.encoder import RGBEncoder, record_grid
from mmmask3d.registry import MODELS

#: Where the metadata of a state dict keep the hash of the weights that LoRA is added to.
BASE_KEY = 'lora_base_sha256'
#: Query, key, value and the projection after them, together or one by one (timm's EVA-02).
_ATTENTION = ({'type': r'.*attn\.(qkv|[qkv]_proj|proj)'},)


@MODELS.register_module()
class LoRAEncoder(LoRAModel):
    """An encoder whose weights stay, with trained low-rank matrices in its linear layers.

    A layer computes ``W x + alpha / rank * up(down(x))``, and ``up`` starts from zero, so that the
    features are those of the encoder at first. Checkpoints hold ``down`` and ``up`` alone, with the
    hash of the encoder's weights, which come from the config of ``module`` whenever the model is
    built. ``mmmask3d extract`` adds the matrices to the weights, or writes them as an adapter.
    Layers that ``module.frozen_stages`` freezes get no matrices.

    Args:
        module: config of the encoder, with its weights: ``dict(type='TimmViT', model=...,
            pretrained=True)``, ``dict(type='Mask3DViT', ..., init_cfg=...)``.
        rank: rows of ``down``.
        alpha: scale, see above.
        drop_rate: dropout before ``down``.
        targets: which linear layers, as in mmpretrain: ``type`` is a regular expression of a whole
            name or the end of it; ``rank``, ``alpha`` and ``drop_rate`` replace those above. By
            default all of the attention.
        out_indices: those of ``module``, as a ``Mask3DPyramid`` sets them.
        pretrained: what mmseg injects; ``module`` ignores the weights of a ResNet with a warning.

    Raises:
        TypeError: ``module`` is no encoder of this package.
        ValueError: it names no weights, or no layer is a target.
    """

    def __init__(
        self,
        module: dict,
        rank: int = 8,
        alpha: float = 8,
        drop_rate: float = 0.0,
        targets: Sequence[dict] = _ATTENTION,
        out_indices: int | Sequence[int] | None = None,
        pretrained: str | None = None,
    ):
        module = {'pretrained': pretrained, **module} if pretrained else dict(module)
        if out_indices is not None:
            module['out_indices'] = out_indices
        super().__init__(
            module=dict(type=_uninitialised, config=module),
            rank=rank,
            alpha=alpha,
            drop_rate=drop_rate,
            targets=list(targets),
        )
        self.module._is_init = False
        for name in get_type_hints(RGBEncoder):
            setattr(self, name, getattr(self.module, name))
        self._base_sha256: str | None = None
        self._prefix = ''

    def init_weights(self) -> None:
        """Read the weights that stay, as the config of the encoder names them."""
        if self.module.is_init:
            return
        layers = {n: m for n, m in self.module.named_modules() if isinstance(m, _LoRALinear)}
        for name, layer in layers.items():
            _put(self.module, name, layer.original_layer)
        self.module.init_weights()
        for name, layer in layers.items():
            _put(self.module, name, layer)
        self._base_sha256 = None
        self._is_init = True

    def apply_lora(self) -> None:
        """Put the matrices into the layers that ``targets`` name and that are not frozen."""
        encoder: Any = self.module
        if not isinstance(encoder, RGBEncoder):
            raise TypeError(
                f'LoRAEncoder.module is a {type(encoder).__name__}; expected an encoder of '
                f'this package, mmmask3d.TimmViT or mmmask3d.Mask3DViT.'
            )
        if not encoder.has_weights():
            raise ValueError(
                'LoRAEncoder.module names no weights, and a checkpoint of LoRA does not hold them: '
                'nothing could read it again. Give it pretrained or init_cfg.'
            )
        linear = {n: m for n, m in self.module.named_modules() if isinstance(m, nn.Linear)}
        frozen = encoder.frozen_stages
        for target in self.targets:
            fitting = [name for name in linear if _fits(target['type'], name)]
            if not fitting:
                print_log(f'LoRA: no linear layer fits {target}.', 'current', logging.WARNING)
            for name in fitting:
                if encoder.get_layer_depth(f'{name}.weight')[0] <= frozen:
                    continue
                settings = {k: target.get(k, getattr(self, k)) for k in _SETTINGS}
                self._replace_module(name, linear.pop(name), **settings)
                self.applied = True
        if not self.applied:
            raise ValueError(
                f'LoRAEncoder.targets={self.targets}: no linear layer of '
                f'{type(encoder).__name__} with frozen_stages={frozen} is one of them. It has '
                f'{", ".join(list(linear)[:8])}, ....'
            )
        sizes = [p.numel() for n, p in self.named_parameters() if '.lora_' in n]
        print_log(
            f'LoRA: {sum(sizes):,} parameters in {len(sizes) // 2} layers are trained, those of '
            f'the encoder stay.',
            'current',
        )

    def _replace_module(
        self, module_name: str, current_module: nn.Linear, alpha: float, rank: int, drop_rate: float
    ) -> None:
        layer = _LoRALinear(current_module, alpha, rank, drop_rate)
        _put(self.module, module_name, layer)

    def _register_state_dict_hooks(self) -> None:
        # mmpretrain's own would drop and ignore keys of the whole model, past the encoder's.
        self._register_state_dict_hook(_keep_lora_alone)
        self.register_load_state_dict_post_hook(_miss_no_base)

    def _load_from_state_dict(
        self, state_dict: dict, prefix: str, local_metadata: dict, *args: Any
    ) -> None:
        self.init_weights()  # the matrices alone are loaded here, and what they are added to there
        expected = local_metadata.get(BASE_KEY)
        if expected not in (None, self.base_sha256):
            raise RuntimeError(
                f'The checkpoint holds LoRA matrices for an encoder whose weights have the sha256 '
                f'{expected}, and those named by the config of the encoder have '
                f'{self.base_sha256}. Name the weights that it was trained on, in pretrained or '
                f'init_cfg of the module.'
            )
        self._prefix = prefix
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)

    @property
    def base_sha256(self) -> str:
        """Hash of the weights that stay, see :func:`~.adapter.base_sha256`."""
        if self._base_sha256 is None:
            self._base_sha256 = base_sha256(self.module)
        return self._base_sha256

    def forward(
        self,
        x: Tensor,
        keep_ids: Tensor | None = None,
        layers: Sequence[int] | None = None,
        frozen: Tensor | None = None,
    ) -> tuple[Tensor, ...] | Tensor:
        """As the encoder; see :meth:`~.encoder.RGBEncoder.forward`."""
        return self.module(x, keep_ids, layers, frozen)

    def forward_frozen(self, x: Tensor) -> Tensor:
        """As the encoder; see :meth:`~.encoder.RGBEncoder.forward_frozen`."""
        return self.module.forward_frozen(x)

    def has_weights(self) -> bool:
        """Whether the config names weights to start from."""
        return True

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Depth of a parameter, of the matrices too, for layer-wise learning-rate decay."""
        return self.module.get_layer_depth(param_name, f'{prefix}module.')

    @torch.no_grad()
    def merged(self) -> Any:
        """A copy of the encoder with the matrices added to its weights: the same features."""
        encoder = copy.deepcopy(self.module)
        for name, layer in list(encoder.named_modules()):
            if isinstance(layer, _LoRALinear):
                layer.original_layer.weight.copy_(layer.weight)
                _put(encoder, name, layer.original_layer)
        return encoder


_SETTINGS = ('alpha', 'rank', 'drop_rate')


class _LoRALinear(LoRALinear):
    """mmpretrain's layer, also for callers that take its weight and do not call it (EVA)."""

    def __init__(self, layer: nn.Linear, alpha: float, rank: int, drop_rate: float):
        super().__init__(layer, alpha, rank, drop_rate)
        self.alpha = alpha

    @property
    def weight(self) -> Tensor:
        """The sum of the weight that stays and the product of the matrices."""
        return self.original_layer.weight + self.scaling * (
            self.lora_up.weight @ self.lora_down.weight
        )

    @property
    def bias(self) -> Tensor | None:
        """That of the layer."""
        return self.original_layer.bias


def _uninitialised(config: dict) -> Any:
    """Build an encoder whose weights are read later, which mmpretrain would do at once."""
    encoder = MODELS.build(config)
    encoder._is_init = True
    return encoder


def _fits(pattern: str, name: str) -> bool:
    return bool(re.fullmatch(pattern, name)) or name.endswith(pattern)


def _put(module: nn.Module, name: str, part: nn.Module) -> None:
    parent, _, last = name.rpartition('.')
    setattr(module.get_submodule(parent), last, part)


def _keep_lora_alone(
    module: LoRAEncoder, state_dict: dict, prefix: str, local_metadata: dict
) -> None:
    for key in [k for k in state_dict if k.startswith(prefix) and '.lora_' not in k]:
        del state_dict[key]
    # EMAHook copies a model before it is initialised, and until it begins it fills the copy with
    # what is in its state: not with what stays here, which the copy has to read by itself.
    module.init_weights()
    local_metadata[BASE_KEY] = module.base_sha256
    record_grid(module, state_dict, prefix, local_metadata)


def _miss_no_base(module: LoRAEncoder, incompatible: Any) -> None:
    incompatible.missing_keys[:] = [
        key
        for key in incompatible.missing_keys
        if not key.startswith(module._prefix) or '.lora_' in key
    ]
