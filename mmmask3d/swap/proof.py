"""Runs a model whose backbone was swapped, on random data: one prediction, one training step."""

import copy
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.device import get_device
from mmengine.logging import MessageHub
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from mmmask3d.checkpoints.locations import install_strict_loaders
from mmmask3d.models.mask3d_pyramid import Mask3DPyramid
from mmmask3d.swap.backbone import SwapError, probe_backbone
from mmmask3d.swap.random_batch import random_batch


@dataclass
class Proof:
    """What was seen.

    Attributes:
        shapes: for each size (H, W) of the images that reached the backbone, the shapes
            ``(C, h, w)`` of its maps, found equal to those of the old backbone.
        losses: each loss of the training step; empty where the config trains nothing.
        unused: parameters of the backbone that the losses do not depend on.
        grad_norm: of the gradient in the first layer of the transformer; None without training.
        parameters: names of all parameters of the model that are trained.
        model: what was run.
    """

    shapes: dict[tuple[int, int], list[tuple[int, ...]]] = field(default_factory=dict)
    losses: dict[str, float] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)
    grad_norm: float | None = None
    parameters: list[str] = field(default_factory=list)
    model: nn.Module | None = field(default=None, repr=False)


def prove_swap(
    cfg: Config,
    old_backbone: Mapping,
    path: str = 'model.backbone',
    size: Sequence[int] = (128, 160),
    predict: bool = True,
) -> Proof:
    """Build the model of a swapped config, predict once, and make one training step's gradients.

    The weights that the new backbone names are loaded; those of other parts of the model are not,
    as they would be downloaded. Synchronised batch norms, which need several processes on GPUs,
    become ordinary ones; images are not padded to the size of the config.

    Args:
        cfg: the swapped config.
        old_backbone: settings of the backbone it replaced.
        path: where the backbone stands.
        size: height and width of the images.
        predict: False leaves the prediction out, where only it needs an operator without a CPU
            kernel.

    Raises:
        SwapError: the backbone refuses its settings or weights, a map has another shape than the
            old backbone's, the losses are not finite, or no gradient reaches the transformer's
            first layer.
        Exception: whatever else the model raises.
    """
    torch.manual_seed(0)
    try:
        model = build_alone(cfg, path)
    except (ValueError, RuntimeError) as error:  # the weights do not fill the encoder, ...
        raise SwapError(f'{path}: {error}') from error
    backbones = _backbones_at(model, path)
    trained = [n for n, p in model.named_parameters() if p.requires_grad]
    proof = Proof(parameters=trained, model=model)
    handles = [
        module.register_forward_hook(_compare(old_backbone, path, proof))
        for module in backbones.values()
    ]
    try:
        if predict:
            predict_once(model, cfg, size)
        if is_trained(cfg):
            proof.losses = backward_once(model, cfg, size)
            _look_at_gradients(backbones, proof)
    finally:
        for handle in handles:
            handle.remove()
    if not proof.shapes:
        raise SwapError(f'{type(model).__name__} made a prediction without asking its backbone.')
    return proof


def _backbones_at(model: nn.Module, path: str) -> dict[str, nn.Module]:
    """The new backbone, by its name in the model; others that were swapped before are not it.

    A model may keep its backbone under another name than its config does, or several of them; then
    all are taken.
    """
    found: dict[str, nn.Module] = {
        n: m for n, m in model.named_modules() if isinstance(m, Mask3DPyramid)
    }
    if not found:
        raise SwapError(
            f'{type(model).__name__} shows no Mask3DPyramid among its modules, though {path} is '
            f'one: it hides it, as distilling detectors hide their teacher, so the swap cannot be '
            f'tried out. Write the config with --skip-run.'
        )
    name = path.removeprefix('model.')
    return {name: found[name]} if name in found else found


def check_optimiser(cfg: Config, model: nn.Module) -> None:
    """Build the optimiser of a swapped config for its model, as the start of a training would.

    Raises:
        SwapError: its constructor refuses the model or the settings.
    """
    wrapper = copy.deepcopy(cfg.optim_wrapper)
    # A wrapper for mixed precision wants a GPU.
    settings = {k: v for k, v in wrapper.items() if k not in ('loss_scale', 'dtype', 'use_fsdp')}
    try:
        build_optim_wrapper(model, ConfigDict({**settings, 'type': 'OptimWrapper'}))
    except (TypeError, ValueError, KeyError) as error:
        raise SwapError(f'optim_wrapper does not suit the model: {error}') from error


def is_trained(cfg: Config) -> bool:
    """Whether the config trains anything (trackers often only combine trained parts)."""
    return bool(cfg.get('optim_wrapper') and cfg.get('train_cfg'))


def predict_once(model: Any, cfg: Config, size: Sequence[int]) -> Any:
    """One prediction of a random image or video."""
    model.eval()
    with torch.no_grad():
        return model.test_step(random_batch(model, cfg, size, training=False))


def backward_once(model: Any, cfg: Config, size: Sequence[int]) -> dict[str, float]:
    """Losses of a random batch, and their gradients in the model.

    Raises:
        SwapError: the losses are not finite.
    """
    _play_runner()
    model.train()
    batch = model.data_preprocessor(random_batch(model, cfg, size), True)
    total, named = model.parse_losses(model(**batch, mode='loss'))
    losses = {key: float(value.detach()) for key, value in named.items()}
    if not total.isfinite():
        raise SwapError(f'the loss of a random batch is not finite: {losses}.')
    total.backward()
    return losses


def build_alone(cfg: Config, path: str | None = None) -> nn.Module:
    """Build and initialise the model in one process, on the GPU if there is one.

    Without the weights its config names, but for those of the backbone at ``path``.
    """
    scope = cfg.get('default_scope') or 'mmengine'
    install_strict_loaders()
    init_default_scope(scope)
    if scope in ('mmseg', 'mmdet', 'mmpretrain'):
        importlib.import_module(f'{scope}.datasets')  # holds preprocessors that models name
    settings = copy.deepcopy(cfg.model)
    if 'data_preprocessor' not in settings and cfg.get('data_preprocessor'):
        settings.data_preprocessor = copy.deepcopy(cfg.data_preprocessor)
    _fit_to_one_process(settings, path.removeprefix('model.').split('.') if path else None)
    model = revert_sync_batchnorm(MODELS.build(settings))
    if hasattr(model, 'init_weights'):
        model.init_weights()
    return model.to(get_device())


def _fit_to_one_process(value: Any, kept: Sequence[str] | None) -> None:
    """Change settings in place: no downloads, no processes, no large images.

    ``kept`` is the path of the new backbone, whose weights stay, as keys from here.
    """
    if isinstance(value, list | tuple):
        for entry in value:
            _fit_to_one_process(entry, None)
        return
    if not isinstance(value, dict) or kept == []:
        return
    init = value.get('init_cfg')
    if isinstance(init, Mapping) and init.get('type') == 'Pretrained':
        value.pop('init_cfg')
    for key in ('pretrained', 'teacher_ckpt', 'checkpoint'):
        if isinstance(value.get(key), str):
            value[key] = None
    kind = str(value.get('type'))
    if kind == 'MMSyncBN':  # asks for its process group when it is built
        value['type'] = 'BN'
    if kind.lower().endswith('datapreprocessor'):
        value.pop('batch_augments', None)
        if value.pop('size', None) is not None:
            value['size_divisor'] = 32
    for key, entry in value.items():
        _fit_to_one_process(entry, kept[1:] if kept and key == kept[0] else None)


def _play_runner() -> None:
    """Tell the message hub what a runner would in its first step; some losses ask."""
    hub = MessageHub.get_current_instance()
    for key, start in (('epoch', 0), ('iter', 0), ('max_epochs', 1), ('max_iters', 1)):
        if hub.get_info(key) is None:
            hub.update_info(key, start)


def _compare(old_backbone: Mapping, path: str, proof: Proof) -> Any:
    def hook(_: nn.Module, inputs: tuple, outputs: Sequence[torch.Tensor]) -> None:
        size = tuple(inputs[0].shape[-2:])
        found = [tuple(x.shape[1:]) for x in outputs]
        if size not in proof.shapes:
            expected = [shape[1:] for shape in probe_backbone(old_backbone, size)[1]]
            if found != expected:
                raise SwapError(
                    f'{path}: for an image of {size[0]}x{size[1]} the maps are {found}; those of '
                    f'{old_backbone["type"]} are {expected}.'
                )
            proof.shapes[size] = found

    return hook


def _look_at_gradients(backbones: Mapping[str, Any], proof: Proof) -> None:
    norms = []
    for prefix, module in backbones.items():
        named = [(n, p) for n, p in module.named_parameters(prefix) if p.requires_grad]
        proof.unused += [n for n, p in named if p.grad is None]
        for name, p in module.vit.named_parameters():
            if p.requires_grad and p.ndim == 2 and module.vit.get_layer_depth(name)[0] == 1:
                norms.append(0.0 if p.grad is None else float(p.grad.norm()))
    if norms:
        proof.grad_norm = min(norms)
        if not 0 < proof.grad_norm < float('inf'):
            raise SwapError(
                f'the gradient in the first layer of the transformer is {proof.grad_norm}; '
                f'expected a positive number: the losses do not reach the backbone.'
            )
