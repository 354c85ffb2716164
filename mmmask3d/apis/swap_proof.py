"""Runs a model whose backbone was swapped, on random data: one prediction, one training step."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from mmmask3d.models.mask3d_pyramid import Mask3DPyramid

from .random_batch import random_batch
from .replaced_backbone import SwapError, probe_backbone


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
    """

    shapes: dict[tuple[int, int], list[tuple[int, ...]]] = field(default_factory=dict)
    losses: dict[str, float] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)
    grad_norm: float | None = None
    parameters: list[str] = field(default_factory=list)


def prove_swap(
    cfg: Config,
    old_backbone: Mapping,
    path: str = 'model.backbone',
    size: Sequence[int] = (128, 160),
    seed: int = 0,
) -> Proof:
    """Build the model of a swapped config, predict once, and train one step's gradients.

    The weights that the new backbone names are loaded; those of other parts of the model are not,
    as they would be downloaded. Synchronised batch norms, which need several processes on GPUs,
    become ordinary ones; images are not padded to the size of the config.

    Raises:
        SwapError: a map has another shape than the old backbone's, the losses are not finite, or no
            gradient reaches the transformer's first layer.
        Exception: whatever else the model raises.
    """
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    torch.manual_seed(seed)
    model = build_for_cpu(cfg, path)
    name = path.removeprefix('model.').rsplit('.', 1)[-1]
    backbones = {n: m for n, m in model.named_modules() if isinstance(m, Mask3DPyramid)}
    if not backbones:
        raise SwapError(
            f'{type(model).__name__} was built without a Mask3DPyramid, though {path} is one.'
        )
    proof = Proof(parameters=[n for n, p in model.named_parameters() if p.requires_grad])
    handles = [
        module.register_forward_hook(_compare(old_backbone, name, proof))
        for module in backbones.values()
    ]
    try:
        model.eval()
        with torch.no_grad():
            model.test_step(random_batch(model, cfg, size, training=False, seed=seed))
        if cfg.get('optim_wrapper') and cfg.get('train_cfg'):
            _train(model, cfg, backbones, size, seed, proof)
    finally:
        for handle in handles:
            handle.remove()
    if not proof.shapes:
        raise SwapError(f'{type(model).__name__} made a prediction without asking its backbone.')
    return proof


def build_for_cpu(cfg: Config, path: str) -> nn.Module:
    """Build and initialise the model, with no other weights than the new backbone's."""
    settings = copy.deepcopy(cfg.model)
    if 'data_preprocessor' not in settings and cfg.get('data_preprocessor'):
        settings.data_preprocessor = copy.deepcopy(cfg.data_preprocessor)
    _strip_weights(settings, path.removeprefix('model.').split('.'))
    model = revert_sync_batchnorm(MODELS.build(settings))
    if hasattr(model, 'init_weights'):
        model.init_weights()
    return model


def _strip_weights(value: Any, kept: Sequence[str] | None) -> None:
    """Remove ``Pretrained`` everywhere but at the path ``kept``, and padding to a fixed size."""
    if isinstance(value, list | tuple):
        for entry in value:
            _strip_weights(entry, None)
        return
    if not isinstance(value, Mapping) or kept == []:
        return
    init = value.get('init_cfg')
    if isinstance(init, Mapping) and init.get('type') == 'Pretrained':
        value.pop('init_cfg')
    if isinstance(value.get('pretrained'), str):
        value['pretrained'] = None
    if str(value.get('type')).endswith(('DataPreprocessor', 'DataPreProcessor')):
        value.pop('batch_augments', None)
        if value.pop('size', None) is not None:
            value['size_divisor'] = 32
    for key, entry in value.items():
        _strip_weights(entry, kept[1:] if kept and key == kept[0] else None)


def _compare(old_backbone: Mapping, name: str, proof: Proof) -> Any:
    def hook(_: nn.Module, inputs: tuple, outputs: Sequence[torch.Tensor]) -> None:
        size = tuple(inputs[0].shape[-2:])
        found = [tuple(x.shape[1:]) for x in outputs]
        if size not in proof.shapes:
            expected = [shape[1:] for shape in probe_backbone(old_backbone, size)[1]]
            if found != expected:
                raise SwapError(
                    f'{name}: for an image of {size[0]}x{size[1]} the maps are {found}; those of '
                    f'{old_backbone["type"]} are {expected}.'
                )
            proof.shapes[size] = found

    return hook


def _train(
    model: nn.Module,
    cfg: Config,
    backbones: Mapping[str, nn.Module],
    size: Sequence[int],
    seed: int,
    proof: Proof,
) -> None:
    model.train()
    batch = model.data_preprocessor(random_batch(model, cfg, size, seed=seed), True)
    total, losses = model.parse_losses(model(**batch, mode='loss'))
    proof.losses = {key: float(value) for key, value in losses.items()}
    if not total.isfinite():
        raise SwapError(f'the loss of a random batch is not finite: {proof.losses}.')
    total.backward()
    trained = {n: m for n, m in backbones.items() if any(p.requires_grad for p in m.parameters())}
    norms = []
    for prefix, module in trained.items():
        named = list(module.named_parameters(prefix))
        proof.unused += [n for n, p in named if p.requires_grad and p.grad is None]
        first = module.vit.layers[0].attn.qkv.weight
        if first.requires_grad:
            norms.append(0.0 if first.grad is None else float(first.grad.norm()))
    if norms:
        proof.grad_norm = min(norms)
        if not 0 < proof.grad_norm < float('inf'):
            raise SwapError(
                f'the gradient in the first layer of the transformer is {proof.grad_norm}; expected '
                f'a positive number: the losses do not reach the backbone.'
            )
