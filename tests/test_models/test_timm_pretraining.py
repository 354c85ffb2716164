"""Masked pre-training with a transformer of timm as the RGB encoder."""

import pytest
import torch
from mmengine.optim import OptimWrapper, build_optim_wrapper

KINDS = {
    'dinov3': 'vit_small_patch16_dinov3',
    'dinov2-reg': 'vit_small_patch14_reg4_dinov2',
    'clip': 'vit_base_patch16_clip_224',
}
MAE = dict(
    depth_encoder=None,
    decoders=dict(depth=None, rgb=dict(type='RGBDecoder', num_layers=1, num_heads=2)),
    heads=dict(depth=None, rgb=dict(type='RGBHead')),
)
every_kind = pytest.mark.parametrize('kind', KINDS)


@pytest.fixture
def build(model_cfg):
    from mmmask3d.registry import MODELS

    def make(kind, **changes):
        cfg = model_cfg(**changes)
        size = {key: cfg['backbone'][key] for key in ('img_size', 'patch_size')}
        small = dict(embed_dim=48, depth=2, num_heads=3)
        cfg['backbone'] = dict(type='TimmViT', model=KINDS[kind], model_args=small, **size)
        torch.manual_seed(0)
        model = MODELS.build(cfg)
        model.init_weights()
        return model

    return make


@every_kind
@pytest.mark.parametrize('fusion', ['AddFusion', 'mae'])
def test_mask3d_and_mae_learn(kind, fusion, build, make_data):
    """One batch is learned, in bf16 autocast too, and the whole encoder takes part."""
    changes = MAE if fusion == 'mae' else dict(fusion=dict(type=fusion))
    model, data = build(kind, **changes), make_data(depth_keep=0 if fusion == 'mae' else 5)
    wrapper = OptimWrapper(torch.optim.AdamW(model.parameters(), lr=3e-3))
    before = {k: v.clone() for k, v in model.backbone.named_parameters()}
    history = [model.train_step(data, wrapper)['loss'].item() for _ in range(12)]
    assert history[-1] < 0.97 * history[0]
    assert [k for k, v in model.backbone.named_parameters() if torch.equal(v, before[k])] == []
    model.eval()
    batch = model.data_preprocessor(data, False)
    with torch.no_grad():
        exact = model(**batch, mode='loss')
        with torch.autocast('cpu', torch.bfloat16):
            rough = model(**batch, mode='loss')
    for name, value in exact.items():
        assert rough[name] != value  # bf16 was used indeed
        torch.testing.assert_close(rough[name], value, rtol=0.05, atol=0)


@every_kind
def test_images_are_normalised_as_the_model_was_trained(kind, build, make_data):
    model, data = build(kind), make_data()
    mean, std = (
        torch.tensor(model.backbone.normalisation[key]).view(-1, 1, 1) for key in ('mean', 'std')
    )
    rgb = torch.stack(data['inputs']['img']).flip(1).float()
    batch = model.data_preprocessor(data, False)['inputs']
    torch.testing.assert_close(batch['img'], (rgb - mean) / std)


def test_a_compiled_model_gives_the_same_losses_and_gradients(build, make_data, loss_and_gradients):
    losses, grads = loss_and_gradients(build('dinov3'), make_data())
    torch._dynamo.reset()
    compiled = build('dinov3')
    compiled.forward = torch.compile(compiled.forward, backend='aot_eager')
    other_losses, other_grads = loss_and_gradients(compiled, make_data())
    for name, value in losses.items():
        torch.testing.assert_close(other_losses[name], value, rtol=1e-4, atol=1e-6)
    for name, grad in grads.items():
        torch.testing.assert_close(other_grads[name], grad, rtol=1e-3, atol=1e-6, msg=name)


def test_layer_decay_of_registers_and_rotary_layers(build):
    """Two layers: stem 0.5^3, layers 0.5^2 and 0.5^1, the norm after them and the rest 1."""
    from mmmask3d.engine import LayerDecayOptimWrapperConstructor  # noqa: F401

    model = build('dinov3')
    wrapper = build_optim_wrapper(
        model,
        dict(
            type='OptimWrapper',
            constructor='mmmask3d.LayerDecayOptimWrapperConstructor',
            optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.05),
            paramwise_cfg=dict(layer_decay_rate=0.5),
        ),
    )
    names = {id(p): name for name, p in model.named_parameters()}
    found = {
        names[id(p)]: (group['lr'], group['weight_decay'])
        for group in wrapper.optimizer.param_groups
        for p in group['params']
    }
    assert found.keys() == dict(model.named_parameters()).keys()
    trunk = 'backbone.trunk.'
    assert found[trunk + 'reg_token'] == found[trunk + 'cls_token'] == (0.125, 0.0)
    assert found[trunk + 'patch_embed.proj.weight'] == (0.125, 0.05)
    assert found[trunk + 'blocks.0.attn.qkv.weight'] == (0.25, 0.05)
    assert found[trunk + 'blocks.1.gamma_1'] == (0.5, 0.0)
    assert found[trunk + 'norm.weight'] == (1.0, 0.0)
    assert found['heads.depth.proj.weight'] == (1.0, 0.05)
