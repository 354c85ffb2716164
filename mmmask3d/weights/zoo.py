"""Builds models by name or config and fills them with weights."""

import copy
import logging
import os
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger, print_log
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn

from mmmask3d.checkpoints.locations import install_strict_loaders, read_checkpoint
from mmmask3d.engine.run_config import check_libraries, load_config
from mmmask3d.models.adapter import is_adapter
from mmmask3d.models.encoder_loading import check_settings, check_tensors
from mmmask3d.models.encoder_record import parse_config_text, read_meta
from mmmask3d.models.pos_embed import GRID_KEY
from mmmask3d.weights.export import plain_values, without_anchor
from mmmask3d.weights.index import SCHEME, ZooError, find_entry, weights_file

# Settings of a model that change what it computes and no shape.
_TELLING = ('num_heads', 'depth_target')


def build_model(model: Mapping, scope: str) -> nn.Module:
    """Build a model from its config, with the components of ``scope`` at hand."""
    with DefaultScope.overwrite_default_scope(scope):
        return MODELS.build(Config(dict(model=copy.deepcopy(model))).model)


def config_of(model: str | os.PathLike | Config | Mapping) -> tuple[Config, str | None]:
    """Config of a model, and its name where it was given by one.

    Args:
        model: Name in the zoo, path of a config file, or a config (a dict too), which is copied.

    Raises:
        ZooError: No such model.
        FileNotFoundError: No such config file.
    """
    if isinstance(model, Config):
        return copy.deepcopy(model), None
    if isinstance(model, Mapping):
        return Config(copy.deepcopy(dict(model))), None
    if os.fspath(model).endswith('.py'):
        return load_config(model), None
    entry = find_entry(os.fspath(model))
    return load_config(entry.config), entry.name


def get_model(
    model: str | os.PathLike | Config | Mapping,
    pretrained: bool | str | os.PathLike = False,
    device: str | torch.device | None = None,
    **kwargs: Any,
) -> nn.Module:
    """Build a model of the zoo or of a config, in evaluation mode.

    A pre-trainer is built without its anchor, which serves training alone.

    Args:
        model: Name in the zoo, path of a config file, or a config (a dict too).
        pretrained: True for the published weights; a path or URL for others, which must fill the
            whole model, but for an adapter, which goes into the encoder with the weights it belongs
            to; False for the initialisation that the config asks for.
        device: Where the model goes.
        **kwargs: Overrides of the model's config, such as ``backbone=dict(out_indices=(2, 5))``.

    Returns:
        The model. ``model.cfg`` is its config; a pre-trainer's encoder is ``model.backbone``.

    Raises:
        ZooError: No such model, or it has no published weights.
        RuntimeError: The weights do not fill the model, or belong to another number of attention
            heads or another target; lists the keys.
    """
    cfg, name = config_of(model)
    check_libraries(cfg)
    install_strict_loaders()  # for what init_cfg names
    if pretrained is True:
        if name is None:
            raise ZooError('pretrained=True needs the name of a model in the zoo; give a file.')
        pretrained = f'{SCHEME}{name}'
        weights_file(pretrained)  # before anything is built
    weights = os.fspath(pretrained) if pretrained else None
    if kwargs:
        cfg.merge_from_dict({'model': kwargs})
    if weights and is_adapter(read_checkpoint(weights)):
        _start_from(cfg.model, weights)
        weights = None
    cfg.model = without_anchor(cfg.model, {})[0]
    if cfg.get('data_preprocessor') is not None:
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    built = build_model(cfg.model, cfg.get('default_scope') or 'mmmask3d')
    if weights:
        meta = fill(built, weights, cfg.model)
        if meta.get('dataset_meta'):
            built.dataset_meta = meta['dataset_meta']
    else:
        init_quietly(built)
    built.cfg = cfg
    if device is not None:
        built.to(device)
    built.eval()
    return built


def _start_from(model: Config, adapter: str) -> None:
    """Name an adapter as the weights of the encoder in a model's config."""
    encoder = model.get('backbone', model)
    if encoder is not model:
        print_log(
            f'{adapter}: an adapter, which fills the encoder. The other parts of this '
            f'{model["type"]} start as its config says.',
            'current',
            logging.WARNING,
        )
    encoder = encoder.get('encoder') or encoder  # of a pyramid
    encoder = encoder.get('module') or encoder  # of a LoRAEncoder
    encoder.pop('pretrained', None)
    encoder.init_cfg = dict(type='Pretrained', checkpoint=adapter)


def init_quietly(model: Any) -> None:
    """Initialise a model without the three lines that mmengine prints for every tensor."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        model.init_weights()
    finally:
        logger.setLevel(level)


def fill(model: nn.Module, location: str, config: Mapping | None = None) -> dict:
    """Load weights of a whole model, strictly, and keep later initialisers off; returns the meta.

    Args:
        model: Changed in place.
        location: Path, URL or ``mmmask3d://NAME``.
        config: What the model was built from; None leaves out what only this tells.

    Raises:
        RuntimeError: A tensor is missing, left over or of another shape (the message lists them);
            or the file was trained with settings that change the result and no shape.
    """
    checkpoint = read_checkpoint(location)
    given = checkpoint.get('state_dict', checkpoint)
    metadata = getattr(given, '_metadata', None) or OrderedDict()
    state: Any = OrderedDict(
        (k.removeprefix('module.'), v) for k, v in given.items() if isinstance(v, Tensor)
    )
    meta = read_meta(checkpoint)
    if GRID_KEY in meta:  # safetensors keeps it here only
        metadata = OrderedDict({'backbone': {'version': 1, GRID_KEY: meta[GRID_KEY]}})
    if getattr(model, 'anchor', True) is None:
        _, state = without_anchor({}, state)
    state._metadata = metadata
    hint = (
        'Give the weights of this very model.'
        if any(k.startswith('backbone.') for k in state)
        else 'It looks like an encoder: give it to the backbone instead, '
        "backbone=dict(init_cfg=dict(type='Pretrained', checkpoint=...))."
    )
    positions = [k for k in state if k.endswith('pos_embed')]
    check_tensors(model, state, location, hint, resampled=positions)
    backbone = getattr(model, 'backbone', None)
    check_settings(getattr(backbone, 'vit', backbone) or model, checkpoint, location)
    if config is not None:
        _check_trained_settings(config, _trained_config(meta), location)
    model.load_state_dict(state, strict=True)
    modules: Iterable[Any] = model.modules()
    for module in modules:
        if hasattr(module, '_is_init'):
            module._is_init = True  # or a Runner would initialise it again
    return meta


def _trained_config(meta: Mapping) -> Mapping:
    """The config of the model that a file was trained as; empty where it is not recorded."""
    if meta.get('model'):
        return meta['model']
    try:
        return parse_config_text(meta['cfg'])['model'] if meta.get('cfg') else {}
    except ValueError:  # holds more than plain values, and nothing of it is run
        return {}


def _check_trained_settings(ours: Any, theirs: Any, location: str, path: str = 'model') -> None:
    for key in ours.keys() & theirs.keys():
        mine, trained, where = ours[key], theirs[key], f'{path}.{key}'
        if key in _TELLING and plain_values(mine) != plain_values(trained):
            raise RuntimeError(
                f'{location}: was trained with {where} = {plain_values(trained)!r}, this model has '
                f'{plain_values(mine)!r}. All shapes fit, but the results would be others.'
            )
        if isinstance(mine, Mapping) and isinstance(trained, Mapping):
            _check_trained_settings(mine, trained, location, where)
