"""Finds the backbone of an mm config and measures which maps it gives."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import Tensor, nn

# A size that any backbone can halve six times, and whose sides tell rows from columns.
_PROBE_SIZE = (256, 320)


class SwapError(ValueError):
    """A config whose backbone cannot be swapped; the message says what was found and what to do."""


@dataclass(frozen=True)
class Levels:
    """The maps a backbone gives.

    Attributes:
        strides: pixels of the image per cell, for each stage.
        channels: channels of each stage.
        indices: the stages that are returned, ascending.
    """

    strides: tuple[int, ...]
    channels: tuple[int, ...]
    indices: tuple[int, ...]

    def __str__(self) -> str:
        return (
            f'strides {", ".join(map(str, self.strides))}, channels '
            f'{", ".join(map(str, self.channels))}, returned {", ".join(map(str, self.indices))}'
        )


def nested_backbones(value: Any, path: str = 'model') -> Iterator[tuple[str, Mapping]]:
    """Path and settings of every dict with a type whose key speaks of a backbone."""
    if isinstance(value, Mapping):
        for key, entry in value.items():
            where = f'{path}.{key}'
            if 'backbone' in str(key) and isinstance(entry, Mapping) and 'type' in entry:
                yield where, entry
            yield from nested_backbones(entry, where)


def find_backbone(cfg: Config, path: str = 'model.backbone') -> dict:
    """The settings of the backbone at ``path``, as plain containers.

    Raises:
        SwapError: there is none, or it only wraps the backbone that should be swapped; the message
            lists what there is.
    """
    if not isinstance(cfg.get('model'), Mapping):
        raise SwapError(
            f'{cfg.filename}: expected a config with a model; found the entries '
            f'{", ".join(map(str, cfg)) or "none"}.'
        )
    found = dict(nested_backbones(cfg.model))
    listed = ', '.join(f'{where} ({entry["type"]})' for where, entry in found.items())
    if path not in found:
        raise SwapError(
            f'{cfg.filename}: there is no backbone at {path}. Found: {listed or "none at all"}.'
            + (' Name one with --path.' if found else '')
        )
    inner = [where for where in found if where.startswith(path + '.')]
    if inner:
        raise SwapError(
            f'{cfg.filename}: {path} ({found[path]["type"]}) has a backbone of its own at '
            f'{inner[0]} ({found[inner[0]]["type"]}). Swap that one: --path {inner[0]}.'
        )
    return Config({'backbone': found[path]}).backbone.to_dict()


def bare(settings: Mapping) -> dict:
    """The settings without the weights they name, which a measurement would download."""
    return {k: copy.deepcopy(v) for k, v in settings.items() if k not in ('init_cfg', 'pretrained')}


def probe_backbone(settings: Mapping, size: Sequence[int]) -> tuple[nn.Module, list[tuple]]:
    """Build a backbone without weights, and give it an image of ``size`` (H, W).

    On the meta device, where nothing is computed; on the CPU where an operator or an initialiser
    does not know it (mmcv's deformable convolutions, mmpretrain's weights).

    Returns:
        The module in evaluation mode, and the shapes ``(1, C, h, w)`` of its maps.

    Raises:
        SwapError: it cannot be built or run, or gives something other than a sequence of maps.
    """
    try:
        try:
            module, outputs = _run(settings, size, 'meta')
        except (NotImplementedError, RuntimeError):  # if it was not the device, it fails again
            module, outputs = _run(settings, size, 'cpu')
    except Exception as error:  # of any kind: the backbone is not ours
        raise SwapError(
            f'the old backbone {settings["type"]} cannot be built and given an RGB image, so its '
            f'maps cannot be measured: {type(error).__name__}: {error}. It has to work before it '
            f'can be replaced.'
        ) from error
    maps = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    if not maps or any(not isinstance(x, Tensor) or x.ndim != 4 for x in maps):
        kinds = [tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__ for x in maps]
        raise SwapError(
            f'{settings["type"]} gives {kinds or "nothing"}; expected maps (batch, channels, rows, '
            f'columns). Only backbones that give such maps can be swapped.'
        )
    return module, [tuple(x.shape) for x in maps]


def _run(settings: Mapping, size: Sequence[int], device: str) -> tuple[nn.Module, Any]:
    with torch.device(device):
        module = MODELS.build(bare(settings))
    module.to(device)
    module.eval()  # returns None in some
    with torch.no_grad():
        return module, module(torch.zeros(1, 3, *size, device=device))


def measure_levels(settings: Mapping, scope: str | None = None) -> Levels:
    """Strides, channels and indices of a backbone, from the shapes of its maps.

    Where ``out_indices`` counts stages, as in a ResNet, all stages are measured and the indices
    are its own; otherwise (HRNet, transformers) the returned maps are the stages.

    Raises:
        SwapError: it gives no maps, maps without a whole-numbered stride, or more than its stages.
    """
    if scope is not None:
        init_default_scope(scope)
    module, given = probe_backbone(settings, _PROBE_SIZE)
    shapes, indices = given, tuple(range(len(given)))
    stages, chosen = getattr(module, 'num_stages', None), getattr(module, 'out_indices', None)
    if isinstance(stages, int) and isinstance(chosen, Sequence):
        if len(given) != len(chosen):
            raise SwapError(
                f'{settings["type"]} gives {len(given)} outputs for out_indices={tuple(chosen)}: '
                f'{given}. The model expects more of it than the maps of its stages (the RFP of '
                f'DetectoRS wants the image back), which no other backbone gives.'
            )
        everything = {**settings, 'out_indices': tuple(range(stages))}
        shapes = probe_backbone(everything, _PROBE_SIZE)[1]
        indices = tuple(sorted(chosen))
    strides = []
    for shape in shapes:
        stride = _PROBE_SIZE[0] // shape[2]
        if any(side != stride * cells for side, cells in zip(_PROBE_SIZE, shape[2:], strict=True)):
            raise SwapError(
                f'{settings["type"]} makes {shape[2]}x{shape[3]} cells of '
                f'{_PROBE_SIZE[0]}x{_PROBE_SIZE[1]} pixels; expected a whole number of pixels per '
                f'cell.'
            )
        strides.append(stride)
    return Levels(tuple(strides), tuple(shape[1] for shape in shapes), indices)
