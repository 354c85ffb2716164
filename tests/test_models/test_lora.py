"""LoRA in every kind of encoder: what it computes, what trains, what a checkpoint holds."""

import copy
from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import EMAHook
from mmengine.optim import build_optim_wrapper
from mmengine.runner.checkpoint import get_state_dict, load_state_dict
from torch import nn

from mmmask3d.models import LoRAEncoder
from mmmask3d.models.adapter import base_sha256
from mmmask3d.models.encoder import RGBEncoder
from mmmask3d.registry import MODELS

SIZE, PATCH = (24, 40), 8
ARCH = dict(embed_dims=48, num_layers=2, num_heads=3, feedforward_channels=96)
SMALL = dict(embed_dim=48, depth=2, num_heads=3)
KINDS = {
    'mask3d': dict(type='Mask3DViT', arch=ARCH),
    'dinov2': dict(type='TimmViT', model='vit_small_patch14_reg4_dinov2', model_args=SMALL),
    'dinov3': dict(type='TimmViT', model='vit_small_patch16_dinov3', model_args=SMALL),
    # query and value with a bias of their own: the layer's weight is taken, it is not called
    'eva': dict(type='TimmViT', model='eva_giant_patch14_224', model_args=SMALL),
    # query, key and value are three layers
    'eva02': dict(type='TimmViT', model='eva02_base_patch14_224', model_args=SMALL),
}
every_kind = pytest.mark.parametrize('kind', KINDS)


@pytest.fixture
def encoder_of(tmp_path):
    """Function that gives the config of an encoder with weights in a file."""

    def make(kind, name='base', **options):
        bare = dict(KINDS[kind], img_size=SIZE, patch_size=PATCH)
        path = tmp_path / f'{kind}-{name}.pth'
        if not path.exists():
            torch.manual_seed(len(name))
            encoder = MODELS.build(bare)
            encoder.init_weights()
            with torch.no_grad():
                for p in encoder.parameters():
                    p.add_(torch.randn_like(p) * 0.1)
            torch.save(dict(state_dict=encoder.state_dict(), meta={}), path)
        return {**bare, 'init_cfg': dict(type='Pretrained', checkpoint=str(path)), **options}

    return make


def plain(config):
    encoder = MODELS.build(config)
    encoder.init_weights()
    return encoder.eval()


def lora_of(config, **options):
    return plain(dict(type='LoRAEncoder', module=config, **options))


def move(module, std=0.1):
    """Take the matrices off their start."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, p in module.named_parameters():
            if '.lora_' in name:
                p.copy_(std * torch.randn(p.shape, generator=generator))
    return module


def outputs(encoder):
    x = torch.rand(2, 3, *SIZE, generator=torch.Generator().manual_seed(1))
    ids = torch.tensor([[0, 4, 13], [2, 7, 14]])
    with torch.no_grad():
        return [*encoder(x, layers=(0, 1)), encoder(x, ids), *encoder(x, ids, (0,))]


@every_kind
def test_at_the_start_it_is_the_encoder(kind, encoder_of):
    encoder = plain(encoder_of(kind))
    lora = lora_of(encoder_of(kind))
    for found, expected in zip(outputs(lora), outputs(encoder), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert isinstance(lora, RGBEncoder)
    for name in RGBEncoder.__annotations__:
        assert getattr(lora, name) == getattr(encoder, name)


@every_kind
def test_afterwards_each_weight_is_the_old_one_and_a_product(kind, encoder_of):
    lora = move(lora_of(encoder_of(kind), rank=4, alpha=6))
    encoder = plain(encoder_of(kind))
    layers = {
        n.removesuffix('.lora_up'): m.weight
        for n, m in lora.module.named_modules()
        if n.endswith('lora_up')
    }
    assert len(layers) == (8 if kind == 'eva02' else 4)
    with torch.no_grad():
        for name, up in layers.items():
            down = lora.module.get_submodule(name).lora_down.weight
            assert down.shape[0] == 4
            encoder.get_submodule(name).weight.add_(6 / 4 * up @ down)
    for found, merged, expected in zip(
        outputs(lora), outputs(lora.merged()), outputs(encoder), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(merged, expected, rtol=1e-5, atol=1e-5)
    assert lora.merged().state_dict().keys() == encoder.state_dict().keys()


@pytest.mark.parametrize('kind', ['mask3d', 'dinov3'])
def test_only_the_matrices_of_layers_that_are_not_frozen_and_the_heads_train(
    kind, encoder_of, model_cfg, make_data, loss_and_gradients
):
    cfg = model_cfg(anchor=dict(type='FeatureAnchor'))
    inner = encoder_of(kind, frozen_stages=1, drop_path_rate=0.2)
    cfg['backbone'] = dict(type='LoRAEncoder', module=inner)
    model = MODELS.build(cfg)
    model.init_weights()
    move(model.backbone)
    model.train()
    before = {k: v.detach().clone() for k, v in model.named_parameters()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.5)
    losses, _ = loss_and_gradients(model, make_data(size=SIZE))
    assert float(losses['loss_anchor']) > 0
    optimizer.step()
    changed = {k for k, v in model.named_parameters() if not torch.equal(v, before[k])}
    inside = {k for k in changed if k.startswith('backbone.')}
    layer = 'backbone.module.' + ('layers.1' if kind == 'mask3d' else 'trunk.blocks.1')
    assert inside == {
        f'{layer}.attn.{name}.lora_{part}.weight' for name in ('qkv', 'proj') for part in _PARTS
    }
    assert {'heads.depth.proj.weight', 'fusion.rgb_proj.weight'} <= changed
    first = model.backbone.module.layers[0] if kind == 'mask3d' else None
    if first is not None:
        assert not first.training
    teacher = model.anchor.teacher
    for found, expected in zip(outputs(teacher), outputs(plain(inner)), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


_PARTS = ('down', 'up')


def test_autocast_is_near_float32(encoder_of):
    lora = move(lora_of(encoder_of('dinov2')))
    exact = outputs(lora)
    with torch.autocast('cpu', torch.bfloat16):
        rounded = outputs(lora)
    for one, other in zip(rounded, exact, strict=True):
        assert (one.float() - other).norm() < 0.03 * other.norm()


class Whole(nn.Module):
    """A model with something of its own before the backbone."""

    def __init__(self, backbone):
        super().__init__()
        self.before = nn.Linear(2, 2)
        self.backbone = backbone


@every_kind
@pytest.mark.parametrize('tools', ['torch', 'mmengine'])
def test_a_checkpoint_holds_the_matrices_and_gives_them_back(kind, tools, encoder_of):
    """And nothing happens to the rest of the model, as it does with mmpretrain's own hooks."""
    model = Whole(move(lora_of(encoder_of(kind))))
    state = model.state_dict() if tools == 'torch' else get_state_dict(model)
    assert {k for k in state if '.lora_' not in k} == {'before.weight', 'before.bias'}
    assert len(state) == 2 + 2 * (8 if kind == 'eva02' else 4)
    meta = state._metadata['backbone']
    assert meta['patch_grid'] == (3, 5)
    assert meta['lora_base_sha256'] == base_sha256(plain(encoder_of(kind)))

    def load(model, state):
        if tools == 'torch':
            model.load_state_dict(state, strict=True)
        else:
            load_state_dict(model, state, strict=True)

    # As for a test or a prediction, which call no init_weights.
    other = Whole(LoRAEncoder(encoder_of(kind)).eval())
    load(other, state)
    for found, expected in zip(outputs(other.backbone), outputs(model.backbone), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
    for key in ('before.bias', next(k for k in state if '.lora_up' in k)):
        part = copy.copy(state)
        del part[key]
        with pytest.raises(RuntimeError, match=key.replace('.', r'\.')):
            load(other, part)
    state['backbone.left_over'] = torch.zeros(1)
    with pytest.raises(RuntimeError, match='left_over'):
        load(other, state)


def test_before_its_average_begins_ema_validates_the_encoder_that_trains(encoder_of):
    """Runner's order: EMAHook copies the model, then weights are read."""
    model = MODELS.build(dict(type='LoRAEncoder', module=encoder_of('mask3d')))
    hook, runner = EMAHook(begin_iter=100), SimpleNamespace(model=model, iter=0)
    hook.before_run(runner)
    model.init_weights()
    move(model.eval())
    expected = outputs(model)
    hook.after_train_iter(runner, 0)
    hook.before_val_epoch(runner)
    torch.testing.assert_close(outputs(model), expected)


def test_matrices_for_other_weights_are_refused_also_where_mm_only_warns(encoder_of):
    state = lora_of(encoder_of('mask3d')).state_dict()
    other = LoRAEncoder(encoder_of('mask3d', 'others'))
    with pytest.raises(RuntimeError, match=r'have the sha256.*Name the weights'):
        load_state_dict(other, state, strict=False)


def test_layer_decay_knows_the_layer_of_each_matrix(encoder_of, model_cfg):
    cfg = model_cfg()
    cfg['backbone'] = dict(type='LoRAEncoder', module=encoder_of('dinov2'))
    model = MODELS.build(cfg)
    settings = dict(
        type='OptimWrapper',
        constructor='mmmask3d.LayerDecayOptimWrapperConstructor',
        optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.05),
        paramwise_cfg=dict(layer_decay_rate=0.5),
    )
    wrapper = build_optim_wrapper(model, settings)
    names = {id(p): n for n, p in model.named_parameters()}
    found = {
        names[id(p)]: (g['lr'], g['weight_decay'])
        for g in wrapper.optimizer.param_groups
        for p in g['params']
    }
    blocks = 'backbone.module.trunk.blocks'
    assert found[f'{blocks}.0.attn.qkv.lora_up.weight'] == (0.25, 0.05)
    assert found[f'{blocks}.1.attn.proj.lora_down.weight'] == (0.5, 0.05)
    assert found['heads.depth.proj.weight'] == (1.0, 0.05)
    assert not [n for n in found if n.startswith('backbone') and '.lora_' not in n]
    # mmpretrain's own class would ask the encoder with names it does not know.
    cfg['backbone'].update(type='mmpretrain.LoRAModel', rank=2, targets=[dict(type='qkv')])
    cfg['backbone']['module']['type'] = 'mmmask3d.TimmViT'
    with pytest.raises(TypeError, match='expected a backbone in MaskedRGBD'):
        build_optim_wrapper(MODELS.build(cfg), settings)


def test_targets_by_suffix_with_settings_of_their_own(encoder_of):
    targets = [dict(type='qkv', rank=2), dict(type='ffn.layers.1', alpha=4)]
    lora = LoRAEncoder(encoder_of('mask3d'), rank=3, alpha=1, targets=targets)
    layer = lora.module.layers[0]
    assert (layer.attn.qkv.lora_down.weight.shape[0], layer.attn.qkv.scaling) == (2, 1 / 2)
    last = layer.ffn.layers[1]
    assert (last.lora_down.weight.shape[0], last.scaling) == (3, 4 / 3)
    assert isinstance(layer.attn.proj, nn.Linear)


def test_what_is_refused(encoder_of):
    bare = dict(KINDS['mask3d'], img_size=SIZE, patch_size=PATCH)
    with pytest.raises(ValueError, match='names no weights'):
        LoRAEncoder(bare)
    with pytest.raises(ValueError, match=r'no linear layer of Mask3DViT.*layers\.0\.attn\.qkv'):
        LoRAEncoder(encoder_of('mask3d'), targets=[dict(type='query')])
    with pytest.raises(ValueError, match='frozen_stages=2'):
        LoRAEncoder(encoder_of('mask3d', frozen_stages=2))
    with pytest.raises(TypeError, match='ResNet; expected an encoder of this package'):
        LoRAEncoder(dict(type='mmpretrain.ResNet', depth=18))
