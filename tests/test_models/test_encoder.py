"""The contract of an RGB encoder, tested on both kinds and on every family of timm's ViTs."""

import pytest
import timm
import torch
from torch import nn

from mmmask3d.checkpoints.download import DownloadError
from mmmask3d.models import Mask3DPyramid, Mask3DViT, TimmViT
from mmmask3d.models.encoder import RGBEncoder, layer_indices, with_normalisation

SMALL = dict(embed_dim=48, depth=2, num_heads=3)
FAMILIES = {
    'vit': 'vit_tiny_patch16_224',
    'mae': 'vit_base_patch16_224.mae',
    'deit3': 'deit3_small_patch16_224',
    'clip': 'vit_base_patch16_clip_224',
    'siglip2': 'vit_base_patch16_siglip_256.v2_webli',
    'dinov2': 'vit_small_patch14_dinov2',
    'dinov2-reg': 'vit_small_patch14_reg4_dinov2',
    'dinov3': 'vit_small_patch16_dinov3',
    'eva02': 'eva02_tiny_patch14_224',
    'rope by layer': 'vit_small_patch16_rope_mixed_224',
    'aimv2': 'aimv2_large_patch14_224',
}
PATCH, GRID = 8, (3, 5)
SIZE = (24, 40)


def shaken(model, seed=0):
    """Every parameter off its start: biases, norms, layer scales and registers count too."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=generator) * 0.1)
    return model.eval()


def make(kind, **options):
    torch.manual_seed(0)
    if kind == 'Mask3DViT':
        arch = dict(embed_dims=48, num_layers=2, num_heads=3, feedforward_channels=96)
        model = Mask3DViT(**{**dict(arch=arch, img_size=SIZE, patch_size=PATCH), **options})
        model.init_weights()
    else:
        given = dict(img_size=SIZE, patch_size=PATCH, model_args=SMALL)
        model = TimmViT(FAMILIES[kind], **{**given, **options})
    return shaken(model)


ENCODERS = ['Mask3DViT', *FAMILIES]
every_encoder = pytest.mark.parametrize('kind', ENCODERS)


@every_encoder
def test_contract(kind):
    model = make(kind, out_indices=(0, -1))
    assert isinstance(model, RGBEncoder)
    assert (model.patch_size, model.embed_dims, model.num_layers) == (8, 48, 2)
    assert (model.grid_size, model.out_indices) == (GRID, (0, 1))
    x = torch.rand(2, 3, *SIZE)
    maps = model(x)
    assert [m.shape for m in maps] == [(2, 48, 3, 5)] * 2
    # Any input size: begun patches count, and what is added is zeros at the right and bottom.
    (odd, _), padded = model(torch.ones(1, 3, 17, 33)), torch.zeros(1, 3, 24, 40)
    padded[..., :17, :33] = 1
    torch.testing.assert_close(odd, model(padded)[0])
    # Named layers stand in for out_indices.
    torch.testing.assert_close(model(x, layers=[-1])[0], maps[1])


@every_encoder
def test_all_patches_kept_in_any_order_are_the_full_features(kind):
    model, x = make(kind), torch.rand(2, 3, *SIZE)
    order = torch.stack(
        [torch.randperm(15, generator=torch.Generator().manual_seed(i)) for i in (1, 2)]
    )
    tokens = model(x, order)
    assert tokens.shape == (2, model.num_extra_tokens + 15, 48)
    patches = tokens[:, model.num_extra_tokens :]
    sorted_back = torch.gather(patches, 1, order.argsort(1)[..., None].expand_as(patches))
    full = model(x)[-1].flatten(2).transpose(1, 2)
    torch.testing.assert_close(sorted_back, full, rtol=1e-4, atol=1e-5)
    first, last = model(x, order, layers=(0, -1))
    torch.testing.assert_close(last, tokens)
    assert not torch.allclose(first, last)


@every_encoder
def test_kept_features_are_those_of_attention_restricted_to_the_kept(kind):
    """One layer: tokens of removed patches are masked out as keys, positions stay."""
    one = dict(arch=dict(embed_dims=48, num_layers=1, num_heads=3, feedforward_channels=96))
    model = make(kind, **(one if kind == 'Mask3DViT' else dict(model_args={**SMALL, 'depth': 1})))
    x, ids = torch.rand(2, 3, *SIZE), torch.tensor([[1, 4, 7, 14], [0, 2, 3, 9]])
    kept = model(x, ids)
    extra = model.num_extra_tokens
    visible = torch.zeros(2, extra + 15, dtype=torch.bool)
    visible[:, :extra] = True
    visible.scatter_(1, ids + extra, True)
    attend = torch.nn.functional.scaled_dot_product_attention

    def restricted(q, k, v, attn_mask=None, **kwargs):
        return attend(q, k, v, attn_mask=visible[:, None, None], **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.functional, 'scaled_dot_product_attention', restricted)
        if kind == 'Mask3DViT':
            patch.setattr(model.layers[0].attn, 'scaled_dot_product_attention', restricted)
        full = model(x)[-1].flatten(2).transpose(1, 2)
    expected = full.gather(1, ids[..., None].expand(-1, -1, 48))
    torch.testing.assert_close(kept[:, extra:], expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(expected, model(x)[-1].flatten(2).transpose(1, 2)[:, :4])


@every_encoder
def test_removed_patches_have_no_influence(kind):
    model, x = make(kind), torch.rand(1, 3, *SIZE)
    ids = torch.tensor([[0, 6, 12]])
    changed = x.clone()
    changed[..., 8:16, 0:8] = 5  # patch 5
    torch.testing.assert_close(model(x, ids), model(changed, ids))


@every_encoder
@pytest.mark.parametrize('stages', [0, 1])
def test_the_layers_after_the_frozen_ones(kind, stages):
    """Whole images give the same maps; removed patches are removed there, not before."""
    model, x = make(kind, frozen_stages=stages), torch.rand(2, 3, *SIZE)
    ids = torch.tensor([[1, 4, 7, 14], [0, 2, 3, 9]])
    frozen = model.forward_frozen(x)
    assert not frozen.requires_grad
    torch.testing.assert_close(model(x, frozen=frozen), model(x))
    kept = model(x, ids, frozen=frozen)
    if stages == 0:
        torch.testing.assert_close(kept, model(x, ids))
        return
    # Other pixels of removed patches reach the kept ones through the frozen layer, and so do
    # those of frozen tokens not: what is removed is removed before the next layer.
    changed = x.clone()
    changed[:, :, 8:16, 0:8] = 5  # patch 5
    assert not torch.allclose(kept, model(changed, ids, frozen=model.forward_frozen(changed)))
    other = frozen.clone()
    other[:, model.num_extra_tokens + 5] = 5
    torch.testing.assert_close(kept, model(x, ids, frozen=other))
    with pytest.raises(ValueError, match='stand after the frozen stages'):
        model(x, layers=(0,), frozen=frozen)


@every_encoder
@pytest.mark.parametrize('stages', [0, 1, 2])
def test_frozen_stages(kind, stages):
    model = make(kind, frozen_stages=stages)
    model.train()
    out = model(torch.rand(1, 3, *SIZE))[-1].square().mean()
    if stages < 2:
        out.backward()
    for name, p in model.named_parameters():
        depth, depths = model.get_layer_depth(name)
        frozen = depth <= stages or stages == 2
        assert p.requires_grad != frozen, name
        assert depths == 4
    reached = {n for n, p in model.named_parameters() if p.grad is not None}
    assert reached == {n for n, p in model.named_parameters() if p.requires_grad}


@every_encoder
def test_layer_depth(kind):
    model = make(kind)
    for name, _ in model.named_parameters():
        depth, _ = model.get_layer_depth('backbone.' + name, 'backbone.')
        layer = [int(part) for part in name.split('.') if part.isdigit()]
        if 'layers.' in name or 'blocks.' in name:
            assert depth == layer[0] + 1
        else:
            assert depth == (3 if name.startswith(('trunk.norm.', 'ln1.')) else 0), name


@every_encoder
def test_recomputed_layers_give_the_same_gradients(kind):
    grads = []
    for with_cp in (False, True):
        model = make(kind, with_cp=with_cp).train()
        model(
            torch.rand(1, 3, *SIZE, generator=torch.Generator().manual_seed(1)),
            torch.tensor([[1, 5, 8]]),
        ).square().mean().backward()
        grads.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    assert grads[0].keys() == grads[1].keys()
    for name in grads[0]:
        torch.testing.assert_close(grads[0][name], grads[1][name], rtol=1e-4, atol=1e-6)


@every_encoder
def test_pyramid_over_either(kind):
    encoder = dict(
        type='mmmask3d.Mask3DViT',
        arch=dict(embed_dims=48, num_layers=2, num_heads=3, feedforward_channels=96),
    )
    if kind != 'Mask3DViT':
        encoder = dict(type='mmmask3d.TimmViT', model=FAMILIES[kind], model_args=SMALL)
    pyramid = Mask3DPyramid(
        encoder={**encoder, 'img_size': (48, 64), 'patch_size': 16}, out_channels=(8, 16, 24, 32)
    ).eval()
    shapes = [m.shape[1:] for m in pyramid(torch.rand(1, 3, 50, 70))]
    assert shapes == [(8, 13, 18), (16, 7, 9), (24, 4, 5), (32, 2, 3)]
    assert pyramid.get_layer_depth('backbone.pyramid.x', 'backbone.')[0] == 3


@pytest.mark.parametrize('kind', list(FAMILIES))
@pytest.mark.parametrize('size', [(24, 40), (32, 32)])
def test_features_are_those_of_timm(kind, size):
    """Of the same weights and size, position tables resampled by timm where the size differs."""
    ours = make(kind)
    options = dict(num_classes=0, img_size=SIZE, patch_size=PATCH, dynamic_img_size=True, **SMALL)
    theirs = timm.create_model(FAMILIES[kind], **options).eval()
    missing, unexpected = theirs.load_state_dict(ours.trunk.state_dict(), strict=False)
    assert not unexpected
    assert all(name.split('.')[0] in ('attn_pool', 'fc_norm') for name in missing)
    x = torch.rand(2, 3, *size)
    expected = theirs.forward_features(x)[:, theirs.num_prefix_tokens :]
    torch.testing.assert_close(
        ours(x)[-1].flatten(2).transpose(1, 2), expected, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize('kind', ['vit', 'deit3', 'dinov2-reg', 'siglip2'])
def test_windows_are_masked_attention(kind):
    """As of Mask3DViT: a patch sees its window and the extra tokens, which see everything."""
    windowed = make(kind, window_size=2, global_attn_indexes=(1,))
    full = make(kind)
    full.load_state_dict(windowed.state_dict())
    extra = full.num_extra_tokens
    rows, columns = torch.meshgrid(torch.arange(3) // 2, torch.arange(5) // 2, indexing='ij')
    window = (rows * 10 + columns).flatten()
    allowed = torch.ones(extra + 15, extra + 15, dtype=torch.bool)
    allowed[extra:, extra:] = window[:, None] == window[None]
    block = full.trunk.blocks[0]
    plain = block.forward
    block.forward = lambda x: plain(x, attn_mask=allowed)
    x = torch.rand(2, 3, *SIZE)
    torch.testing.assert_close(windowed(x)[-1], full(x)[-1], rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match='window_size=0'):
        windowed(x, torch.tensor([[1], [2]]))


def test_windows_with_rotary_positions_are_refused():
    with pytest.raises(ValueError, match='rotary'):
        make('dinov3', window_size=2)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(model='vit_tiny_patch16_dinov9'), 'no model of timm.*vit'),
        (dict(model='resnet18'), 'plain vision transformer'),
        (dict(model='swin_tiny_patch4_window7_224'), 'plain vision transformer'),
        (dict(model='vit_tiny_patch16_224', out_indices=12), '12 layers'),
        (dict(model='vit_tiny_patch16_224', frozen_stages=13), 'frozen_stages=13'),
        (
            dict(
                model='vit_tiny_patch16_224',
                pretrained=True,
                init_cfg=dict(type='Pretrained', checkpoint='x'),
            ),
            'keep one',
        ),
    ],
)
def test_what_is_refused(options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        TimmViT(**options)


def test_without_timm_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'timm', None)
    with pytest.raises(ImportError, match=r'mmmask3d\[timm\]'):
        TimmViT('vit_tiny_patch16_224')


def test_the_name_of_a_resnet_that_mmseg_injects_is_ignored():
    with pytest.warns(UserWarning, match='ignored'):
        model = TimmViT(FAMILIES['vit'], pretrained='open-mmlab://resnet50_v1c', model_args=SMALL)
    assert not model.has_weights()


# ------------------------------------------------------------------------------------------ files


@pytest.mark.parametrize('kind', list(FAMILIES))
@pytest.mark.parametrize('wrapped', [False, True])
def test_files_fill_the_encoder_or_are_refused(kind, wrapped, tmp_path):
    model = make(kind)
    path = str(tmp_path / 'weights.pth')
    state = model.state_dict() if wrapped else model.trunk.state_dict()
    prefix = 'backbone.' if wrapped else ''
    head = {} if wrapped else {'head.weight': torch.zeros(5, 48), 'head.bias': torch.zeros(5)}
    torch.save(dict(state_dict={**{prefix + k: v for k, v in state.items()}, **head}), path)
    other = TimmViT(FAMILIES[kind], path, img_size=SIZE, patch_size=PATCH, model_args=SMALL).eval()
    assert other.has_weights()
    other.init_weights()
    x = torch.rand(1, 3, *SIZE)
    torch.testing.assert_close(other(x)[-1], model(x)[-1])
    deeper = dict(SMALL, depth=3)
    other = TimmViT(FAMILIES[kind], path, img_size=SIZE, patch_size=PATCH, model_args=deeper)
    with pytest.raises(RuntimeError, match=r'does not fill.*\n.*blocks\.2'):
        other.init_weights()


def test_a_grid_that_is_no_square_is_resampled_as_one(tmp_path):
    """24x40 gives 3x5 patches; a 6x10 grid is that table resampled, by timm's own function."""
    from mmengine.runner import save_checkpoint
    from timm.layers import resample_abs_pos_embed

    model = make('dinov2')
    path = str(tmp_path / 'run.pth')
    holder = nn.Module()
    holder.backbone = model
    save_checkpoint(dict(state_dict=holder.state_dict()), path)
    finer = TimmViT(FAMILIES['dinov2'], path, img_size=(48, 80), patch_size=PATCH, model_args=SMALL)
    finer.init_weights()
    expected = resample_abs_pos_embed(model.trunk.pos_embed, [6, 10], [3, 5], num_prefix_tokens=1)
    torch.testing.assert_close(finer.trunk.pos_embed, expected)


def test_patch_size_resamples_the_embedding():
    from timm.layers import resample_patch_embed

    model = make('vit')
    finer = TimmViT(FAMILIES['vit'], img_size=(48, 80), patch_size=16, model_args=SMALL)
    finer.fill(dict(model.trunk.state_dict()), 'test')
    weight = model.trunk.patch_embed.proj.weight
    torch.testing.assert_close(
        finer.trunk.patch_embed.proj.weight, resample_patch_embed(weight, [16, 16])
    )


def test_weights_of_timm_come_as_safetensors_or_the_error_names_the_file(monkeypatch, tmp_path):
    import huggingface_hub
    from safetensors.torch import save_file

    asked = []

    def download(repo, filename, revision):
        asked.append((repo, filename))
        if filename == 'config.json':  # some repositories have none
            raise huggingface_hub.errors.EntryNotFoundError(filename)
        save_file(
            {k: v.contiguous() for k, v in made.trunk.state_dict().items()}, tmp_path / filename
        )
        return str(tmp_path / filename)

    made = make('vit')
    name, options = (
        'vit_tiny_patch16_224.augreg_in21k_ft_in1k',
        dict(img_size=SIZE, patch_size=8, model_args=SMALL),
    )
    monkeypatch.setattr(huggingface_hub, 'hf_hub_download', download)
    model = TimmViT(name, pretrained=True, **options)
    assert asked == []  # weights are read in init_weights
    model.init_weights()
    assert asked[0] == ('timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k', 'model.safetensors')
    torch.testing.assert_close(model.trunk.state_dict(), made.trunk.state_dict())

    def fails(*args, **kwargs):
        raise OSError('no network')

    monkeypatch.setattr(huggingface_hub, 'hf_hub_download', fails)
    with pytest.raises(
        DownloadError, match=r'hf://timm/vit_tiny.*:model\.safetensors.*no network.*local file'
    ):
        TimmViT(name, pretrained=True, **options).init_weights()


# ---------------------------------------------------------------------------------- normalisation


def test_normalisation_belongs_to_the_weights():
    clip = make('clip')
    assert clip.normalisation['mean'] == pytest.approx((122.771, 116.746, 104.094), abs=1e-3)
    cfg = with_normalisation(dict(type='x'), clip)
    assert cfg['std'] == pytest.approx((68.501, 66.632, 70.323), abs=1e-3)
    imagenet = dict(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))
    assert with_normalisation(imagenet, clip) == {**imagenet}  # random weights take any
    clip.init_cfg = dict(type='Pretrained', checkpoint='x')
    with pytest.raises(ValueError, match=r'68\.5.*57\.12'):
        with_normalisation(imagenet, clip)
    assert with_normalisation(imagenet, make('Mask3DViT')) == imagenet


@pytest.mark.parametrize('layers', [(), (2,), (-3,)])
def test_layers_that_do_not_exist(layers):
    with pytest.raises(ValueError, match='2 layers'):
        layer_indices(layers, 2)
