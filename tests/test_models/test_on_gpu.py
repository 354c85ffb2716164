"""What only a GPU can show, and what both can: `make test-gpu` runs the part marked `cuda`."""

import copy
from pathlib import Path

import pytest
import torch
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from torch.nn.parallel import DistributedDataParallel

from mmmask3d.engine import Bfloat16OptimWrapper
from mmmask3d.engine.run_config import load_config
from mmmask3d.registry import MODELS
from mmmask3d.swap.random_batch import random_batch

ROOT = Path(__file__).parents[2]
CUDA = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason='torch finds no CUDA GPU here'),
]
DEVICES = ['cpu', pytest.param('cuda', marks=CUDA)]
ON_GPU = [pytest.param('cuda', marks=CUDA)]

CROSS = dict(decoders=dict(depth=dict(type='CrossAttentionDecoder', share=0.5)))


@pytest.fixture
def anchored(model_cfg, tmp_path):
    """Function that builds the tiny model with weights and an anchor to them, LoRA if wanted."""

    def build(lora=False, **changes):
        cfg = model_cfg(anchor=dict(type='FeatureAnchor'), **changes)
        torch.manual_seed(0)
        encoder = MODELS.build(cfg['backbone'])
        encoder.init_weights()
        torch.save(dict(state_dict=encoder.state_dict(), meta={}), tmp_path / 'encoder.pth')
        init = dict(type='Pretrained', checkpoint=str(tmp_path / 'encoder.pth'))
        cfg['backbone']['init_cfg'] = init
        if lora:
            cfg['backbone'] = dict(type='LoRAEncoder', module=cfg['backbone'])
        model = MODELS.build(cfg)
        model.init_weights()
        return model

    return build


def steps(model, data, device, bf16, count=6):
    """Losses of some training steps on one batch, each a dict, as a Runner makes them."""
    model = copy.deepcopy(model).to(device)
    kind = Bfloat16OptimWrapper if bf16 else OptimWrapper
    wrapper = kind(torch.optim.AdamW(model.parameters(), lr=1e-3))
    torch.manual_seed(0)
    history = []
    for _ in range(count):
        logged = model.train_step(copy.deepcopy(data), wrapper)
        history.append({k: v.item() for k, v in logged.items()})
    return model, history


@pytest.mark.parametrize('lora', [False, True], ids=['all layers', 'lora'])
@pytest.mark.parametrize('device', DEVICES)
def test_steps_in_bf16_follow_those_in_fp32(device, lora, anchored, make_data):
    model, data = anchored(lora, **CROSS), make_data(batch=4)
    trained, exact = steps(model, data, device, bf16=False)
    _, rough = steps(model, data, device, bf16=True)
    assert exact[-1]['loss'] < 0.95 * exact[0]['loss']
    for one, other in zip(exact, rough, strict=True):
        assert one.keys() == other.keys() == {'loss', 'loss_depth', 'loss_anchor'}
        assert other == pytest.approx(one, rel=0.05)
        assert other != one  # bf16 was used indeed
    assert all(p.dtype == torch.float32 for p in trained.parameters())
    assert {p.device.type for p in trained.anchor.teacher.parameters()} == {device}


@pytest.mark.parametrize('device', ON_GPU)
def test_losses_on_a_gpu_are_those_on_the_cpu(device, anchored, make_data):
    """Of a decoder of all patches, for which nothing is drawn."""
    model, data = anchored(), make_data(batch=4)
    _, here = steps(model, data, 'cpu', bf16=False)
    _, there = steps(model, data, device, bf16=False)
    for one, other in zip(here, there, strict=True):
        assert other == pytest.approx(one, rel=1e-3)


@pytest.mark.parametrize('device', ON_GPU)
def test_a_compiled_model_takes_the_same_steps(device, build_model, make_data):
    """By inductor; tests of the CPU look at the graph."""
    model, data = build_model(), make_data(batch=4)
    _, plain = steps(model, data, device, bf16=False)
    compiled = copy.deepcopy(model)
    compiled.forward = torch.compile(compiled.forward)
    _, found = steps(compiled, data, device, bf16=False)
    for one, other in zip(plain, found, strict=True):
        assert other == pytest.approx(one, rel=1e-3)


def peak_memory(model, data, device):
    """Bytes that one forward and backward pass takes beyond the model, at its peak."""
    model.to(device).train()
    batch = model.data_preprocessor(copy.deepcopy(data), True)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    sum(model(**batch, mode='loss').values()).backward()
    return torch.cuda.max_memory_allocated(device) - before


@pytest.mark.parametrize('device', ON_GPU)
def test_masks_checkpointing_and_a_share_save_memory(device, build_model, make_data):
    size = (192, 320)  # 960 patches
    arch = dict(embed_dims=192, num_layers=6, num_heads=3, feedforward_channels=768)

    def peak(keep=192, share=None, **backbone):
        decoder = dict(type='CrossAttentionDecoder', share=share) if share else {}
        model = build_model(
            backbone=dict(arch=arch, img_size=size, **backbone), decoders=dict(depth=decoder)
        )
        return peak_memory(model, make_data(8, size, rgb_keep=keep, depth_keep=keep), device)

    usual = peak()
    assert usual < 0.5 * peak(keep=960 - 1)
    assert peak(with_cp=True) < 0.8 * usual
    assert peak(share=0.25) < peak(share=1.0)


@pytest.mark.parametrize('device', DEVICES)
def test_one_process_of_ddp_takes_the_same_gradients(
    device, build_model, make_data, loss_and_gradients, tmp_path
):
    """By NCCL on a GPU, by gloo here."""
    model = build_model(**CROSS).to(device)
    losses, grads = loss_and_gradients(model, make_data())
    batch = model.data_preprocessor(make_data(), True)
    torch.distributed.init_process_group(
        'gloo' if device == 'cpu' else 'nccl',
        init_method=f'file://{tmp_path}/rendezvous', rank=0, world_size=1,
    )  # fmt: skip
    try:
        model.zero_grad()
        wrapped = DistributedDataParallel(model)  # complains of parameters without a gradient
        torch.manual_seed(0)
        found = wrapped(**batch, mode='loss')
        sum(found.values()).backward()
    finally:
        torch.distributed.destroy_process_group()
    torch.testing.assert_close(found['loss_depth'].detach(), losses['loss_depth'])
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.grad, grads[name], msg=name)


@pytest.mark.parametrize('device', ON_GPU)
def test_a_detector_trains_in_fp16(device):
    pytest.importorskip('mmcv._ext', reason='mmcv is installed without its compiled ops')
    from mmcv.ops import get_compiling_cuda_version

    if get_compiling_cuda_version() == 'not available':
        pytest.skip('the compiled ops of mmcv hold no GPU code here (docs/installation.md)')
    cfg = load_config(ROOT / 'configs/detection/mask3d-tiny_mask-rcnn_rooms-240x320.py')
    model = MODELS.build(cfg.model).to(device)
    model.init_weights()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    wrapper = AmpOptimWrapper(dtype='float16', loss_scale='dynamic', optimizer=optimizer)
    batch = random_batch(model, cfg)
    history = [model.train_step(copy.deepcopy(batch), wrapper)['loss'].item() for _ in range(20)]
    assert history[-1] < 0.9 * history[0]
