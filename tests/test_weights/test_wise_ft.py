"""Weights between two encoders: their values, the files that are taken, what is refused."""

import json

import pytest
import torch

from mmmask3d.checkpoints.files import load_checkpoint_file
from mmmask3d.models import TimmViT
from mmmask3d.registry import MODELS
from mmmask3d.weights import export

SIZE = (24, 40)
ARCH = dict(embed_dims=48, num_layers=2, num_heads=3, feedforward_channels=96)
SMALL = dict(embed_dim=48, depth=2, num_heads=3)
KINDS = {
    'mask3d': dict(type='mmmask3d.Mask3DViT', arch=ARCH, patch_size=8),
    'dinov2': dict(
        type='mmmask3d.TimmViT', model='vit_small_patch14_dinov2', model_args=SMALL, patch_size=8
    ),
}


@pytest.fixture
def exported(tmp_path):
    """Function that writes an encoder of random weights as the exporter does."""

    def write(kind, seed, **options):
        backbone = {**KINDS[kind], 'img_size': SIZE, **options}
        torch.manual_seed(seed)
        encoder = MODELS.build(backbone)
        encoder.init_weights()
        with torch.no_grad():
            for p in encoder.parameters():
                p.add_(torch.randn_like(p))
        state = getattr(encoder, 'trunk', encoder).state_dict()
        path = str(tmp_path / f'{kind}-{seed}.safetensors')
        meta = {
            'format': export.FORMAT,
            'backbone': backbone,
            'patch_size': encoder.patch_size,
            'patch_grid': encoder.grid_size,
            'epoch': 10 * seed,
            'data': [{'data_root': f'frames {seed}'}],
            'initialised_from': ['dinov2.pth'],
            'init_license': f'license {seed}',
        }
        export.write_encoder(path, state, meta)
        return path

    return write


@pytest.fixture
def interpolate(load_tool, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tool = load_tool('model_converters/interpolate_weights.py')
    return lambda *arguments: tool.main([str(a) for a in arguments])


@pytest.mark.parametrize('kind', KINDS)
def test_each_weight_lies_between_the_two(kind, exported, interpolate, tmp_path):
    paths = [exported(kind, seed) for seed in (1, 2)]
    first, second = (load_checkpoint_file(path)['state_dict'] for path in paths)
    assert interpolate(*paths, '--share', 0, 0.25, 1, '--out', 'mix-{share}.pth') == 0
    for share in (0, 0.25, 1):
        found = load_checkpoint_file(tmp_path / f'mix-{share}.pth')
        assert found['state_dict'].keys() == first.keys()
        for name, value in found['state_dict'].items():
            expected = (1 - share) * first[name] + share * second[name]
            torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-6)
        said = found['meta']['interpolated']
        assert said['share_of_the_second'] == share
        assert said['files'] == [f'{kind}-1.safetensors', f'{kind}-2.safetensors']
        assert (found['meta']['epoch'], found['meta']['patch_grid']) == (20, [3, 5])
        # The terms of both bind the result: publish reads them here.
        assert found['meta']['data'] == [{'data_root': 'frames 2'}, {'data_root': 'frames 1'}]
        assert found['meta']['initialised_from'] == ['dinov2.pth', f'{kind}-1.safetensors']
        assert found['meta']['init_license'] == 'license 2; license 1'
    ours = MODELS.build(
        {**KINDS[kind], 'img_size': SIZE, 'init_cfg': dict(
            type='Pretrained', checkpoint=str(tmp_path / 'mix-0.25.pth'))}
    )  # fmt: skip
    ours.init_weights()


def test_half_by_default_and_public_weights_at_their_own_size(exported, interpolate, tmp_path):
    """The second was trained on other patches: the first is resampled as it was then."""
    torch.manual_seed(3)
    public = TimmViT('vit_small_patch14_dinov2', img_size=56, model_args=SMALL)
    torch.save(public.trunk.state_dict(), tmp_path / 'public.pth')
    after = exported('dinov2', 2)
    assert interpolate('public.pth', after) == 0
    found = load_checkpoint_file(tmp_path / 'dinov2-2_share-0.5.safetensors')
    before = TimmViT('vit_small_patch14_dinov2', pretrained='public.pth', img_size=SIZE,
                     patch_size=8, model_args=SMALL)  # fmt: skip
    before.init_weights()
    other = load_checkpoint_file(after)['state_dict']
    for name, value in before.trunk.state_dict().items():
        torch.testing.assert_close(found['state_dict'][name], (value + other[name]) / 2)
    assert json.loads(found['meta']['patch_grid']) == [3, 5]


def test_what_is_refused(exported, interpolate, tmp_path, capsys):
    one, two = exported('mask3d', 1), exported('mask3d', 2)
    (tmp_path / 'folder').mkdir()
    before = set(tmp_path.iterdir())

    def refused(message, *arguments):
        assert interpolate(*arguments) == 1
        assert message in capsys.readouterr().err
        assert set(tmp_path.iterdir()) == before

    refused('expected 0 (all of A) to 1', one, two, '--share', 1.5)
    refused('one file for 2 shares', one, two, '--share', 0.2, 0.4, '--out', 'x.pth')
    refused('hold the same weights', one, one)
    refused('checkpoint not found', one, 'missing.pth')
    torch.save(load_checkpoint_file(one)['state_dict'], tmp_path / 'bare1.pth')
    torch.save(load_checkpoint_file(two)['state_dict'], tmp_path / 'bare2.pth')
    other = exported('dinov2', 3)
    wide = exported('mask3d', 4, arch={**ARCH, 'num_heads': 4})
    deep = exported('mask3d', 5, arch={**ARCH, 'num_layers': 3})
    before = set(tmp_path.iterdir())
    refused('neither records its architecture', 'bare1.pth', 'bare2.pth')
    refused("Build mmmask3d.TimmViT(model='vit_small_patch14_dinov2'", other, two)
    refused('3 attention heads', one, wide)
    refused('does not fill this Mask3DViT', one, deep)
