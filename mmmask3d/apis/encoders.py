"""Encoders to compare, built from what names them on a command line."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from mmmask3d.checkpoints.locations import read_checkpoint
from mmmask3d.config_files import read_config_file
from mmmask3d.evaluation.frozen_features import image_normaliser, whole_patches
from mmmask3d.models.encoder import RGBEncoder, with_normalisation
from mmmask3d.models.encoder_record import encoder_config
from mmmask3d.registry import MODELS
from mmmask3d.swap.encoder_file import encoder_settings
from mmmask3d.weights.zoo import init_quietly

_TIMM = 'timm:'
_RANDOM = 'random:'
_ONLY_FOR_TRAINING = ('init_cfg', 'pretrained', 'frozen_stages', 'with_cp', 'drop_path_rate')


@dataclass
class Encoder:
    """An encoder that is ready to run.

    Attributes:
        name: as it is shown.
        source: what named it.
        module: gives a tuple of maps.
        normalise: from BGR images, 0 to 255, to what it wants.
        size: ``(height, width)`` of its input: the nearest that its patches fill.
        checkpoint: file or URL of its weights; None where timm or a config names them, or none.
    """

    name: str
    source: str
    module: nn.Module
    normalise: Callable[[Tensor], Tensor]
    size: tuple[int, int]
    checkpoint: str | None = None

    @property
    def parameters(self) -> int:
        """Number of parameters."""
        return sum(p.numel() for p in self.module.parameters())


def build_encoder(name: str, source: str, size: tuple[int, int], seed: int = 0) -> Encoder:
    """Build an encoder with its weights.

    Args:
        name: as it is shown.
        source: One of

            - a file or URL: an encoder exported by this project, a training checkpoint of it, or
              an encoder with mmpretrain's names;
            - ``timm:NAME``: timm's weights of that name (:class:`~mmmask3d.models.TimmViT`);
            - a config (``.py``): its ``model.backbone`` with the weights that its ``init_cfg``
              names, and the normalisation of its ``data_preprocessor``;
            - ``random:`` and one of these: its architecture with random weights.

            ``@HEIGHTxWIDTH`` at the end sets another input size for this encoder.
        size: ``(height, width)`` of the input, rounded to whole patches.
        seed: of random weights.

    Raises:
        ValueError: the backbone cannot be told, has no weights, or its config normalises images
            in another way than the weights want.
    """
    given, wanted = _input_size(source)
    random = given.startswith(_RANDOM)
    backbone, preprocessor = _settings(given.removeprefix(_RANDOM), random)
    if random:
        backbone = _without_weights(backbone)
    torch.manual_seed(seed)
    with DefaultScope.overwrite_default_scope(preprocessor.pop('scope', None)):
        module = MODELS.build(backbone)
        init_quietly(module)
    encoder = getattr(module, 'vit', module)  # of a pyramid
    if isinstance(encoder, RGBEncoder):
        preprocessor = with_normalisation(preprocessor, encoder)
    module.requires_grad_(False)
    return Encoder(
        name,
        source,
        module,
        image_normaliser(preprocessor),
        whole_patches(module, wanted or size),
        None if given.startswith((_RANDOM, _TIMM)) or given.endswith('.py') else given,
    )


def _input_size(source: str) -> tuple[str, tuple[int, int] | None]:
    given, at, size = source.rpartition('@')
    height, times, width = size.partition('x')
    if not (at and times and height.isdigit() and width.isdigit()):
        return source, None
    return given, (int(height), int(width))


def _settings(source: str, random: bool) -> tuple[dict, dict]:
    """Config of the backbone with its weights, and of its preprocessor, {} for the model's."""
    if source.startswith(_TIMM):
        model = source.removeprefix(_TIMM)
        return dict(type='mmmask3d.TimmViT', model=model, pretrained=True), {}
    if source.endswith('.py'):
        return _of_config(source, random)
    loaded = read_checkpoint(source)
    try:
        backbone = encoder_config(loaded, None, source)
    except ValueError:  # no record: files of other projects, which the shapes describe
        backbone = encoder_settings(source)
    kind = str(backbone.get('type', 'Mask3DViT')).rpartition('.')[2]
    weights = dict(type='Pretrained', checkpoint=source)
    return {**_without_weights(backbone), 'type': f'mmmask3d.{kind}', 'init_cfg': weights}, {}


def _without_weights(backbone: Mapping) -> dict:
    """Without what serves the training alone, too."""
    return {k: v for k, v in backbone.items() if k not in _ONLY_FOR_TRAINING}


def _of_config(source: str, random: bool) -> tuple[dict, dict]:
    cfg: Config = read_config_file(source)
    if 'backbone' not in (cfg.get('model') or {}):
        raise ValueError(f'{source}: expected model.backbone in it, found no such key.')
    backbone = dict(cfg.model.backbone)
    if cfg.model.get('pretrained') and not backbone.get('init_cfg'):
        backbone['init_cfg'] = dict(type='Pretrained', checkpoint=cfg.model.pretrained)
    if not random and not (backbone.get('init_cfg') or backbone.get('pretrained')):
        raise ValueError(
            f'{source}: model.backbone names no weights. Set its init_cfg=dict(type="Pretrained", '
            f'checkpoint=...), or give {_RANDOM}{source} for random ones.'
        )
    preprocessor = dict(cfg.model.get('data_preprocessor') or {})
    return backbone, {**preprocessor, 'scope': cfg.get('default_scope', 'mmmask3d')}
