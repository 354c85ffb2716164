"""Layer-wise learning-rate decay for any model with a backbone that knows the depth of its layers.

Fine-tuning a pre-trained transformer works best when early layers move little (BEiT, Bao et al.,
ICLR 2022; MAE, He et al., CVPR 2022, appendix A.2). The constructors of mmpretrain, mmseg and
mmdet each know their own models only; this one asks ``get_layer_depth`` of every backbone in the
model and serves pre-training models, classifiers, ``EncoderDecoder`` and detectors alike, also
where the backbone sits deeper (``model.detector.backbone``).
"""

from typing import Any

from mmengine.logging import print_log
from mmengine.optim import DefaultOptimWrapperConstructor
from torch import Tensor, nn

from mmmask3d.registry import OPTIM_WRAPPER_CONSTRUCTORS

# Tokens and tables that are offsets rather than weights; vectors (biases, the scales of norms and
# of LayerScale) are recognised by their shape.
_TOKENS = ('cls_token', 'dist_token', 'reg_token', 'mask_token')
_NEVER_DECAYED = (*_TOKENS, 'pos_embed', 'bias_table', 'rope.freqs')


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Give each layer of the backbone its own learning rate, and weight decay to matrices only.

    Backbones are the modules with ``backbone`` in their name (``img_backbone`` too), at any depth,
    that have ``get_layer_depth``. With
    ``depth, num_layers = backbone.get_layer_depth(name, prefix)`` the learning rate of a
    parameter is ``lr * layer_decay_rate ** (num_layers - 1 - depth)``. Whatever is outside (necks,
    decoders, heads, backbones of other kinds) has the full rate. Vectors (biases, norms), position
    embeddings and learned tokens have no weight decay. Frozen parameters are left out.

    Args:
        optim_wrapper_cfg: Config of the wrapper, with ``optimizer.lr``.
        paramwise_cfg: ``layer_decay_rate`` in (0, 1], required; 1 means no decay. And
            ``custom_keys``, optional: settings ``lr_mult`` (on top of the layer's rate) and
            ``decay_mult`` (in place of the rule above) by part of a parameter's name; the longest
            part that fits counts.

    Raises:
        ValueError: A setting is missing, unknown or out of range, or nothing is left to train.
        TypeError: The model has no backbone with ``get_layer_depth`` anywhere.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None) -> None:
        super().__init__(optim_wrapper_cfg, paramwise_cfg)
        rate = self.paramwise_cfg.get('layer_decay_rate')
        self.custom_keys: dict[str, dict[str, float]] = self.paramwise_cfg.get('custom_keys') or {}
        unknown = set(self.paramwise_cfg) - {'layer_decay_rate', 'custom_keys'}
        unknown |= {k for s in self.custom_keys.values() for k in s} - {'lr_mult', 'decay_mult'}
        if unknown or not isinstance(rate, int | float) or not 0 < rate <= 1:
            raise ValueError(
                f'{type(self).__name__}: paramwise_cfg={self.paramwise_cfg}; expected '
                'layer_decay_rate in (0, 1], 1 for equal rates, and, if wanted, custom_keys with '
                'lr_mult and decay_mult. (Biases, norms, position embeddings and tokens never have '
                'weight decay here.)'
            )
        if self.base_lr is None:
            raise ValueError(f'{type(self).__name__}: optimizer.lr is not set.')
        self.rate = float(rate)
        self._unused_keys = set(self.custom_keys)

    def add_params(self, params: list[dict[str, Any]], module: nn.Module, **kwargs: Any) -> None:
        """Append one group for each pair of learning rate and weight decay.

        Args:
            params: Groups for the optimizer, changed in place.
            module: The whole model.
            **kwargs: Not used; the signature is mmengine's.
        """
        backbones = _find_backbones(module)
        if not backbones:
            raise TypeError(
                f'{type(self).__name__}: expected a backbone in {type(module).__name__} with a '
                f'method `get_layer_depth(param_name, prefix)`, as mmmask3d.Mask3DViT, '
                f'mmmask3d.Mask3DPyramid and the transformers of mmpretrain have it. Use another '
                'backbone, or take `constructor` and `paramwise_cfg.layer_decay_rate` out of '
                'optim_wrapper.'
            )
        groups: dict[tuple[float, float | None], list[Tensor]] = {}
        for name, param in module.named_parameters():
            if param.requires_grad:
                setting = self._lr_scale(name, backbones), self._weight_decay(name, param)
                groups.setdefault(setting, []).append(param)
        if self._unused_keys:
            raise ValueError(
                f'{type(self).__name__}: custom_keys {sorted(self._unused_keys)} fit no trainable '
                'parameter of the model.'
            )
        if not groups:
            raise ValueError(
                f'{type(self).__name__}: every parameter of {type(module).__name__} is frozen.'
            )
        # Low rates first; the optimizer's own weight decay, which is not known here, last.
        for scale, decay in sorted(groups, key=lambda s: (s[0], s[1] is None, s[1])):
            group: dict[str, Any] = {'params': groups[scale, decay], 'lr': self.base_lr * scale}
            if decay is not None:
                group['weight_decay'] = decay
            params.append(group)
            print_log(
                f'Layer decay: {len(group["params"])} tensors with lr {group["lr"]:.3g}, weight '
                f'decay {decay}',
                logger='current',
            )

    def _custom(self, name: str) -> dict[str, float]:
        fitting = [key for key in self.custom_keys if key in name]
        self._unused_keys -= set(fitting)
        return self.custom_keys[max(fitting, key=lambda key: (len(key), key))] if fitting else {}

    def _lr_scale(self, name: str, backbones: dict[str, Any]) -> float:
        scale = self._custom(name).get('lr_mult', 1.0)
        for prefix, backbone in backbones.items():
            if name.startswith(prefix):
                depth, num_layers = backbone.get_layer_depth(name, prefix)
                return scale * self.rate ** (num_layers - 1 - depth)
        return scale

    def _weight_decay(self, name: str, param: Tensor) -> float | None:
        """Return the weight decay; None for the optimizer's own."""
        multiple = self._custom(name).get('decay_mult')
        if multiple is not None:
            return self.base_wd * multiple  # that base_wd is set was checked by the parent
        plain = param.ndim <= 1 or name.endswith(_NEVER_DECAYED)
        return 0.0 if plain else self.base_wd


def _find_backbones(model: nn.Module) -> dict[str, nn.Module]:
    """Backbones that know their layers' depths, by prefix of their parameters' names.

    The name is asked for, too: whole models of mmpretrain have a method ``get_layer_depth``.
    Outer modules come first in ``named_modules``, and what is inside one found is its own affair.
    """
    found: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        outermost = not any(name.startswith(prefix) for prefix in found)
        # Of the class: mmpretrain's LoRAModel hands on the method of a module of another prefix.
        knows = hasattr(type(module), 'get_layer_depth')
        if outermost and 'backbone' in name.rsplit('.', 1)[-1] and knows:
            found[name + '.'] = module
    return found
