"""Two processes with half the batch each give the gradients of one with the whole batch."""

import multiprocessing

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from mmmask3d.registry import MODELS

FRAMES, SIZE, PATCH = 4, (32, 48), 8
# Valid pixels by frame. The halves of the batch differ by a factor; `EMPTY`: one half has none.
UNEVEN = (1.0, 0.9, 0.2, 0.1)
EMPTY = (0.9, 0.5, 0.0, 0.0)

DEPTH_LOSSES = {
    'l2': dict(type='DepthL2Loss'),
    'l1': dict(type='DepthL1Loss'),
    'berhu': dict(type='DepthBerHuLoss'),
    'gradient': dict(type='DepthGradientLoss'),
    'silog': dict(type='DepthSILogLoss'),
}
TARGETS = {'silog': dict(mode='metric')}
CASES = {name: dict(depth=dict(type='DepthHead', loss=loss)) for name, loss in DEPTH_LOSSES.items()}
CASES |= {
    'two_losses': dict(
        depth=dict(type='DepthHead', loss=[DEPTH_LOSSES['l1'], DEPTH_LOSSES['gradient']])
    ),
    'all_pixels': dict(depth=dict(type='DepthHead', loss_on='all')),
    'rgb': dict(rgb=dict(type='RGBHead')),
    'normal': dict(normal=dict(type='NormalHead')),
    'rgb_and_depth': dict(rgb=dict(type='RGBHead'), depth=dict(type='DepthHead')),
}


def build(case):
    model = MODELS.build(
        dict(
            type='mmmask3d.MaskedRGBD',
            data_preprocessor=dict(
                type='RGBDDataPreprocessor', depth_target=TARGETS.get(case, dict())
            ),
            backbone=dict(
                type='Mask3DViT',
                arch=dict(embed_dims=24, num_layers=1, num_heads=2, feedforward_channels=48),
                img_size=SIZE,
                patch_size=PATCH,
            ),
            depth_encoder=dict(type='DepthEncoder', embed_dims=24, num_layers=1, num_heads=2),
            fusion=dict(type='AddFusion', embed_dims=24),
            decoders={
                name: dict(type='DepthDecoder', num_layers=1, num_heads=2) for name in CASES[case]
            },
            heads=CASES[case],
        )
    )
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for p in model.parameters():  # the same everywhere, and nothing at zero
            p.copy_(torch.randn(p.shape, generator=generator) * 0.2)
    return model


def batch(valid_shares):
    generator = torch.Generator().manual_seed(7)
    patches = (SIZE[0] // PATCH) * (SIZE[1] // PATCH)

    def mask():
        return torch.rand(FRAMES, patches, generator=generator).argsort(1) < patches // 2

    shares = torch.tensor(valid_shares).view(-1, 1, 1, 1)
    return dict(
        img=torch.randint(0, 256, (FRAMES, 3, *SIZE), generator=generator, dtype=torch.uint8),
        # nearly planes, other ones in each frame: normals are those of planes that fit
        depth=1
        + torch.rand(FRAMES, 1, 1, 1, generator=generator) * (1 + torch.arange(SIZE[1]) / SIZE[1])
        + 0.01 * torch.rand(FRAMES, 1, *SIZE, generator=generator),
        # columns, so that normals and differences of neighbours exist
        valid=(torch.arange(SIZE[1]) < shares * SIZE[1]).expand(FRAMES, 1, *SIZE),
        rgb_mask=mask(),
        depth_mask=mask(),
    )


def gradients(model, frames, valid_shares, wrap=lambda model: model):
    """Loss and gradients by name on some of the frames."""
    inputs = {k: v[frames] for k, v in batch(valid_shares).items()}
    inputs = model.data_preprocessor(dict(inputs=inputs))['inputs']
    wrapped = wrap(model)  # a name of its own: DDP must live until the backward pass is over
    loss = sum(wrapped(inputs, None, mode='loss').values())
    loss.backward()
    return loss.detach(), {name: p.grad for name, p in model.named_parameters()}


def run_rank(rank, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{folder}/rendezvous', rank=rank, world_size=2
    )
    results = {}
    for case in CASES:
        for shares in (UNEVEN, EMPTY):
            half = slice(0, 2) if rank == 0 else slice(2, 4)
            results[case, shares] = gradients(build(case), half, shares, DistributedDataParallel)
    torch.save(results, f'{folder}/rank_{rank}.pt')
    torch.distributed.destroy_process_group()


@pytest.fixture(scope='module')
def of_ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp('ranks')
    fork = multiprocessing.get_context('fork')
    processes = [fork.Process(target=run_rank, args=(rank, folder)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=500)
        process.kill()
    assert [process.exitcode for process in processes] == [0, 0]
    return [torch.load(folder / f'rank_{rank}.pt') for rank in range(2)]


@pytest.mark.parametrize('shares', [UNEVEN, EMPTY], ids=['uneven', 'one_half_empty'])
@pytest.mark.parametrize('case', CASES)
def test_gradients_are_those_of_one_process(of_ranks, case, shares):
    loss, expected = gradients(build(case), slice(None), shares)
    found = [rank[case, shares] for rank in of_ranks]
    assert loss > 0
    # each rank's own share of the loss; their mean is the loss over the whole batch
    torch.testing.assert_close((found[0][0] + found[1][0]) / 2, loss)
    for _, grads in found:
        for name, grad in expected.items():
            close = {'rtol': 1e-4, 'atol': 1e-5 * grad.abs().max().item()}
            torch.testing.assert_close(
                grads[name], grad, **close, msg=lambda m, n=name: f'{n}: {m}'
            )
    assert sum(grad.abs().sum() > 0 for grad in expected.values()) > len(expected) / 2


def test_the_mean_of_the_halves_own_gradients_would_be_wrong():
    """Control: without sharing the count of pixels the gradients differ, so the test can fail."""
    _, expected = gradients(build('l2'), slice(None), UNEVEN)
    halves = [gradients(build('l2'), half, UNEVEN)[1] for half in (slice(0, 2), slice(2, 4))]
    name = 'heads.depth.proj.bias'
    mean = (halves[0][name] + halves[1][name]) / 2
    assert not torch.allclose(mean, expected[name], rtol=1e-2)
