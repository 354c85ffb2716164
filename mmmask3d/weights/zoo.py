"""Models by name: what is listed in the metafiles, built, and filled with published weights.

The names and weights stand in ``configs/**/metafile.yml``, which an installation keeps in
``mmmask3d/.mim``. ``mmmask3d://NAME`` stands for the published weights of a model wherever mmengine
takes a checkpoint, also in ``init_cfg`` and ``load_from``.
"""

import copy
import difflib
import fnmatch
import logging
import os
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import mmengine
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor, nn

from mmmask3d.checkpoints.download import download, split_sha256
from mmmask3d.checkpoints.files import CheckpointError, install_strict_loaders, with_sha256
from mmmask3d.engine.run_config import check_libraries, load_config
from mmmask3d.models.encoder_loading import check_settings
from mmmask3d.models.encoder_record import parse_config_text, read_meta
from mmmask3d.models.pos_embed import GRID_KEY
from mmmask3d.weights.export import plain_values

SCHEME = 'mmmask3d://'
# Settings of a model that change what it computes and no shape.
_TELLING = ('num_heads', 'depth_target')
_PACKAGE = Path(__file__).resolve().parents[1]
#: Weights that are shipped with the package, with their model cards.
SHIPPED = Path(__file__).resolve().parent / 'shipped'


class ZooError(ValueError):
    """No such model, or none with weights; the message says what there is."""


@dataclass(frozen=True)
class ZooEntry:
    """A model as its metafile describes it.

    Attributes:
        name: Name, that of the config.
        config: Path of the config.
        collection: Name of the collection it belongs to.
        weights: Where its weights are, or None.
        metadata: Data, length, batch size and so on.
        results: Figures by task and data set.
    """

    name: str
    config: Path
    collection: str
    weights: str | None = None
    metadata: Mapping = field(default_factory=dict)
    results: Sequence[Mapping] = ()


@lru_cache(maxsize=4)
def read_zoo(root: Path = _PACKAGE / '.mim') -> dict[str, ZooEntry]:
    """Read the model index of an installation.

    Raises:
        ZooError: There is none, or a metafile names a model twice.
    """
    index = root / 'model-index.yml'
    if not index.is_file():
        raise ZooError(
            f'{index} is missing: the package is not installed. In a checkout: pip install -e .'
        )
    zoo: dict[str, ZooEntry] = {}
    for name in mmengine.load(index)['Import'] or []:
        for model in mmengine.load(root / name).get('Models') or []:
            if model['Name'] in zoo:
                raise ZooError(f'{root / name}: the name {model["Name"]} is taken already.')
            results = model.get('Results') or []
            zoo[model['Name']] = ZooEntry(
                name=model['Name'],
                config=root / model['Config'],
                collection=model['In Collection'],
                weights=model.get('Weights'),
                metadata=model.get('Metadata') or {},
                results=results if isinstance(results, list) else [results],
            )
    return zoo


def list_models(
    pattern: str | None = None,
    exclude_patterns: str | Sequence[str] | None = None,
    task: str | None = None,
    pretrained: bool | None = None,
) -> list[str]:
    """Names of the models in the zoo.

    Args:
        pattern: Wildcards as in a shell; anything may follow, as in mmpretrain.
        exclude_patterns: The same, one or several, for names to leave out.
        task: Only models with results of this task.
        pretrained: Only models with weights (True) or without (False).
    """
    names = set(read_zoo())
    if pattern is not None:
        names = set(fnmatch.filter(names, f'{pattern}*'))
    if isinstance(exclude_patterns, str):
        exclude_patterns = [exclude_patterns]
    for excluded in exclude_patterns or ():
        names -= set(fnmatch.filter(names, f'{excluded}*'))
    zoo = read_zoo()
    if task is not None:
        names = {n for n in names if any(r.get('Task') == task for r in zoo[n].results)}
    if pretrained is not None:
        names = {n for n in names if (zoo[n].weights is not None) == pretrained}
    return sorted(names)


def find_entry(name: str) -> ZooEntry:
    """Look a model up by name.

    Raises:
        ZooError: There is none; names similar ones.
    """
    zoo = read_zoo()
    if name not in zoo:
        close = difflib.get_close_matches(name, zoo, n=3, cutoff=0.4)
        hint = f' Did you mean {", ".join(close)}?' if close else ''
        if name.endswith(('.pth', '.safetensors')):
            hint = ' It looks like a file of weights: give the config or name of its model too.'
        raise ZooError(f'{name!r} is none of the {len(zoo)} models of the zoo.{hint}')
    return zoo[name]


def weights_file(location: str) -> Path:
    """Local file behind ``mmmask3d://NAME``, shipped or downloaded, its hash verified.

    Args:
        location: The name with the scheme, and ``#sha256=...`` to ask for one version.

    Raises:
        ZooError: No such model, or it has no weights.
        CheckpointError: The file has another hash than it should have.
    """
    asked, wanted = split_sha256(location)
    entry = find_entry(asked.removeprefix(SCHEME))
    if entry.weights is None:
        raise ZooError(
            f'{entry.name} has no published weights. Those with weights: '
            f'{", ".join(list_models(pretrained=True)) or "none"}. Train it with tools/train.py '
            f'{entry.config}, and give the checkpoint.'
        )
    address, digits = split_sha256(entry.weights)
    if not address.startswith(SCHEME):
        return download(entry.weights, sha256=wanted)
    files = [*SHIPPED.glob(f'{entry.name}-????????.safetensors')]
    if len(files) != 1:
        raise ZooError(
            f'{SHIPPED} holds {len(files)} files of {entry.name}, expected one: the installation '
            'is incomplete.'
        )
    for expected in filter(None, (digits, wanted)):
        with_sha256(str(files[0]), expected)
    return files[0]


def build_model(model: Mapping, scope: str) -> nn.Module:
    """Build a model from its config, with the components of ``scope`` at hand."""
    with DefaultScope.overwrite_default_scope(scope):
        return MODELS.build(Config(dict(model=copy.deepcopy(model))).model)


def get_model(
    model: str | os.PathLike | Config | Mapping,
    pretrained: bool | str | os.PathLike = False,
    device: str | torch.device | None = None,
    **kwargs: Any,
) -> nn.Module:
    """Build a model of the zoo or of a config, in evaluation mode.

    Args:
        model: Name in the zoo, path of a config file, or a config (a dict too).
        pretrained: True for the published weights; a path or URL for others, which must fill the
            whole model; False for the initialisation that the config asks for.
        device: Where the model goes.
        **kwargs: Overrides of the model's config, such as ``backbone=dict(out_indices=(2, 5))``.

    Returns:
        The model. ``model.cfg`` is its config; a pre-trainer's encoder is ``model.backbone``.

    Raises:
        ZooError: No such model, or it has no published weights.
        RuntimeError: The weights do not fill the model, or belong to another number of attention
            heads or another target; lists the keys.
    """
    entry = None
    if isinstance(model, Config):
        cfg = copy.deepcopy(model)
    elif isinstance(model, Mapping):
        cfg = Config(copy.deepcopy(dict(model)))
    elif os.fspath(model).endswith('.py'):
        cfg = load_config(model)
    else:
        entry = find_entry(os.fspath(model))
        cfg = load_config(entry.config)
    check_libraries(cfg)
    if pretrained is True:
        if entry is None:
            raise ZooError('pretrained=True needs the name of a model in the zoo; give a file.')
        pretrained = f'{SCHEME}{entry.name}'
        weights_file(pretrained)  # before anything is built
    if kwargs:
        cfg.merge_from_dict({'model': kwargs})
    if cfg.get('data_preprocessor') is not None:
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    built = build_model(cfg.model, cfg.get('default_scope') or 'mmmask3d')
    if pretrained:
        meta = fill(built, os.fspath(pretrained), cfg.model)
        if meta.get('dataset_meta'):
            built.dataset_meta = meta['dataset_meta']
    else:
        init_quietly(built)
    built.cfg = cfg
    if device is not None:
        built.to(device)
    built.eval()
    return built


def init_quietly(model: nn.Module) -> None:
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
    install_strict_loaders()
    checkpoint = CheckpointLoader.load_checkpoint(location, map_location='cpu')
    given = checkpoint.get('state_dict', checkpoint)
    metadata = getattr(given, '_metadata', None) or OrderedDict()
    state = OrderedDict(
        (k.removeprefix('module.'), v) for k, v in given.items() if isinstance(v, Tensor)
    )
    meta = read_meta(checkpoint)
    if GRID_KEY in meta:  # safetensors keeps it here only
        metadata = OrderedDict({'backbone': {'version': 1, GRID_KEY: meta[GRID_KEY]}})
    state._metadata = metadata
    own = model.state_dict()
    missing, unknown = [k for k in own if k not in state], [k for k in state if k not in own]
    if missing or unknown:
        encoder = not any(k.startswith('backbone.') for k in state)
        hint = (
            ' It looks like an encoder: give it to the backbone instead, '
            "backbone=dict(init_cfg=dict(type='Pretrained', checkpoint=...))."
            if encoder
            else ' Give the weights of this very model.'
        )
        raise RuntimeError(
            f'{location} does not fill this {type(model).__name__}: {len(missing)} tensors are '
            f'missing ({_some(missing)}), {len(unknown)} are unknown here ({_some(unknown)}).{hint}'
        )
    backbone = getattr(model, 'backbone', None)
    check_settings(getattr(backbone, 'vit', backbone) or model, checkpoint, location)
    if config is not None:
        _check_trained_settings(config, _trained_config(meta), location)
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise CheckpointError(f'{location} does not fit: {error}') from error
    for module in model.modules():
        if hasattr(module, '_is_init'):
            module._is_init = True  # or a Runner would initialise it anew
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


def _some(names: Sequence[str], most: int = 6) -> str:
    more = f', ... ({len(names) - most} more)' if len(names) > most else ''
    return (', '.join(names[:most]) + more) or 'none'
