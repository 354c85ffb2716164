"""A tiny Mask3D and random RGB-D frames: 24x40 pixels, patches of 8, that is a 3x5 grid."""

import copy

import pytest
import torch
from mmpretrain.structures import DataSample

from mmmask3d.registry import MODELS

PATCH = 8
SIZE = (24, 40)
ARCH = dict(embed_dims=48, num_layers=2, num_heads=3, feedforward_channels=96)


def _merge(base: dict, changes: dict) -> dict:
    out = dict(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(out.get(key), dict)
        out[key] = _merge(out[key], value) if both else value
    return out


@pytest.fixture
def model_cfg():
    """Config of the tiny model, changed by nested keywords."""

    def config(**changes):
        base = dict(
            type='MaskedRGBD',
            backbone=dict(type='Mask3DViT', arch=ARCH, img_size=SIZE, patch_size=PATCH),
            depth_encoder=dict(type='DepthEncoder', embed_dims=24, num_layers=1, num_heads=2),
            fusion=dict(type='AddFusion', embed_dims=32),
            decoders=dict(depth=dict(type='DepthDecoder', num_layers=1, num_heads=2)),
            heads=dict(depth=dict(type='DepthHead', loss=dict(type='DepthL2Loss'))),
        )
        return copy.deepcopy(_merge(base, changes))

    return config


@pytest.fixture
def build_model(model_cfg):
    """Initialised tiny model; the seed makes two of one config equal."""

    def build(seed=0, **changes):
        torch.manual_seed(seed)
        model = MODELS.build(model_cfg(**changes))
        model.init_weights()
        return model

    return build


@pytest.fixture
def make_data():
    """What a collated loader hands to the preprocessor; frames like rooms, with holes."""

    def make(batch=2, size=SIZE, rgb_keep=4, depth_keep=5, seed=0, invalid=0.2, patch=PATCH):
        g = torch.Generator().manual_seed(seed)
        h, w = size
        n = (h // patch) * (w // patch)
        inputs = dict(img=[], depth=[], valid=[], rgb_mask=[], depth_mask=[])
        for _ in range(batch):
            slope = torch.rand(2, generator=g) * 2
            plane = 1 + slope[0] * torch.arange(h)[:, None] / h + slope[1] * torch.arange(w) / w
            depth = plane + 0.2 * torch.rand(h, w, generator=g)
            valid = torch.rand(h, w, generator=g) >= invalid
            inputs['img'].append(torch.randint(0, 256, (3, h, w), generator=g, dtype=torch.uint8))
            inputs['depth'].append(torch.where(valid, depth, 0)[None])
            inputs['valid'].append(valid[None])
            for name, keep in (('rgb_mask', rgb_keep), ('depth_mask', depth_keep)):
                mask = torch.ones(n, dtype=torch.bool)
                mask[torch.randperm(n, generator=g)[:keep]] = False
                inputs[name].append(mask)
        samples = [DataSample(metainfo=dict(depth_kind='metric')) for _ in range(batch)]
        return dict(inputs=inputs, data_samples=samples)

    return make


@pytest.fixture
def loss_and_gradients():
    """Run a model once over raw data: losses by name and gradients by parameter."""

    def run(model, data):
        model.zero_grad(set_to_none=True)
        batch = model.data_preprocessor(copy.deepcopy(data), True)
        torch.manual_seed(0)  # of what is drawn, as patches to decode
        losses = model(**batch, mode='loss')
        sum(losses.values()).backward()
        grads = {k: None if p.grad is None else p.grad.clone() for k, p in model.named_parameters()}
        return {k: v.detach() for k, v in losses.items()}, grads

    return run
