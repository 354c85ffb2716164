import io
from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F
from mmengine.runner.checkpoint import (
    get_state_dict,
    load_checkpoint,
    save_checkpoint,
    weights_to_cpu,
)
from mmpretrain.models import VisionTransformer
from torch import nn

from mmmask3d.models import Mask3DViT
from mmmask3d.models.pos_embed import resize_to_grid, sincos_pos_embed

ARCH = dict(embed_dims=48, num_layers=3, num_heads=3, feedforward_channels=96)


def make(seed=0, random=True, **kwargs):
    torch.manual_seed(seed)
    model = Mask3DViT(**{**dict(arch=ARCH, img_size=(32, 72), patch_size=8), **kwargs})
    model.init_weights()
    if random:  # biases and norms too, which start at 0 and 1
        with torch.no_grad():
            for p in model.parameters():
                p.add_(torch.randn_like(p) * 0.1)
    return model.eval()


def plain(**kwargs):
    cfg = dict(arch=ARCH, img_size=(32, 72), patch_size=8, out_type='featmap')
    return VisionTransformer(**{**cfg, **kwargs})


def keep(*rows):
    return torch.tensor(rows)


# ---------------------------------------------------------------- the same network as mmpretrain's


@pytest.mark.parametrize(
    'options',
    [
        dict(),
        dict(with_cls_token=False),
        dict(final_norm=False),
        dict(pre_norm=True),
        dict(layer_scale_init_value=0.1),
        dict(out_indices=[0, 2]),
        dict(out_indices=[1]),
        dict(out_indices=[0, 1, 2], final_norm=False),
        dict(out_type='raw'),
        dict(out_type='avg_featmap'),
        dict(out_type='cls_token'),
    ],
    ids=str,
)
def test_state_dict_and_features_are_those_of_the_plain_vit(options):
    ours = make(**options)
    theirs = plain(**options)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict(), strict=True)
    theirs.eval()
    x = torch.rand(2, 3, 32, 72)
    for a, b in zip(ours(x), theirs(x), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize('size', [(64, 72), (32, 40), (16, 16), (30, 70)])
def test_other_input_sizes_give_the_features_of_the_plain_vit(size):
    ours, theirs = make(), plain()
    theirs.load_state_dict(ours.state_dict())
    theirs.eval()
    x = torch.rand(1, 3, *size)  # 30x70 is padded to whole patches when there is no mask
    torch.testing.assert_close(ours(x)[0], theirs(x)[0])


def test_layers_above_the_last_map_are_not_run():
    model, run = make(out_indices=[0, 1]), []
    for i, layer in enumerate(model.layers):
        layer.register_forward_pre_hook(lambda m, args, i=i: run.append(i))
    model(torch.rand(1, 3, 32, 72))
    assert run == [0, 1]


@pytest.mark.parametrize('indices', [3, (0, 3)])
def test_layer_that_does_not_exist_is_refused(indices):
    with pytest.raises(ValueError, match='3 layers, numbered from 0 to 2'):
        make(out_indices=indices)


# ---------------------------------------------------------------- kept patches only


def by_hand(model, x, ids):
    """Embed everything, pick the kept tokens, run the same blocks one frame at a time."""
    p = model.patch_size
    grid = (x.shape[-2] // p, x.shape[-1] // p)
    extra = model.num_extra_tokens
    everything = model.patch_embed.projection(x).flatten(2).transpose(1, 2)
    pos = resize_to_grid(model.pos_embed, model.grid_size, grid, extra)
    outs = []
    for b in range(len(x)):
        tokens = everything[b, ids[b]] + pos[0, extra:][ids[b]]
        if extra:
            tokens = torch.cat((model.cls_token[0] + pos[0, :1], tokens))
        tokens = tokens[None]
        for layer in model.layers:
            tokens = layer(tokens)
        outs.append(model.ln1(tokens))
    return torch.cat(outs)


@pytest.mark.parametrize('cls', [True, False])
@pytest.mark.parametrize('size', [(32, 72), (48, 40), (32, 32)])
def test_kept_patches_give_what_a_computation_by_hand_gives(cls, size):
    model = make(with_cls_token=cls)
    x = torch.rand(2, 3, *size)
    ids = keep([0, 3, 7, 15], [2, 5, 11, 12])
    out = model(x, ids)
    assert out.shape == (2, 4 + cls, 48)
    torch.testing.assert_close(out, by_hand(model, x, ids))


def test_tokens_that_enter_the_blocks_are_the_kept_ones():
    model, seen = make(), []
    for layer in model.layers:
        layer.register_forward_pre_hook(lambda m, args: seen.append(tuple(args[0].shape)))
    model(torch.rand(2, 3, 32, 72), keep([1, 2], [3, 4]))
    assert seen == [(2, 3, 48)] * 3
    model(torch.rand(2, 3, 32, 72), torch.empty(2, 0, dtype=torch.int64))
    assert seen[3:] == [(2, 1, 48)] * 3
    seen.clear()
    model(torch.rand(2, 3, 32, 72))
    assert seen == [(2, 37, 48)] * 3


def test_removed_pixels_are_never_read():
    model = make()
    x = torch.rand(1, 3, 32, 72)
    dirty = x.clone()
    dirty[..., 8:] = float('nan')
    ids = keep([0, 9])  # the first column of a grid nine wide
    assert torch.equal(model(x, ids), model(dirty, ids))


def test_masked_input_must_consist_of_whole_patches():
    with pytest.raises(ValueError, match=r'30x72.*patch_size=8.*24x72'):
        make()(torch.rand(1, 3, 30, 72), keep([0]))


def test_patch_embedding_that_cannot_be_cut_is_refused():
    model = make(random=False, patch_cfg=dict(kernel_size=16, stride=8, padding=4))
    with pytest.raises(ValueError, match='plain patch embedding'):
        model(torch.rand(1, 3, 32, 72), keep([0]))


# ---------------------------------------------------------------- initialisation


def test_positions_start_from_sine_and_cosine_on_the_grid_at_hand():
    model = make(random=False)
    assert model.grid_size == (4, 9)
    assert torch.equal(model.pos_embed[:, 1:], sincos_pos_embed((4, 9), 48))
    assert not model.pos_embed[:, 0].any()
    assert model.cls_token.any()
    weight = model.patch_embed.projection.weight
    bound = (6 / (48 + 3 * 64)) ** 0.5  # Xavier, of the layer as a linear one
    assert 0.9 * bound < weight.abs().max() <= bound


def test_initialising_twice_changes_nothing():
    model = make(random=False)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    model.init_weights()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_out_indices_may_be_a_tuple_with_negatives():
    indices = (0, -1)
    model = make(out_indices=indices)
    assert indices == (0, -1)
    assert [o.shape for o in model(torch.rand(1, 3, 32, 72))] == [(1, 48, 4, 9)] * 2
    assert make(out_indices=[-3, 1]).out_indices == (0, 1)


# ---------------------------------------------------------------- freezing


def frozen_parts(model):
    parts = {}
    for name, p in model.named_parameters():
        part = '.'.join(name.split('.')[: 2 if name.startswith('layers') else 1])
        parts.setdefault(part, set()).add(not p.requires_grad)
    assert all(len(states) == 1 for states in parts.values())
    return {part for part, states in parts.items() if states == {True}}


STEM = {'cls_token', 'pos_embed', 'patch_embed', 'pre_norm'}


@pytest.mark.parametrize(
    ('stages', 'expected'),
    [
        (-1, set()),
        (0, STEM),
        (2, STEM | {'layers.0', 'layers.1'}),
        (3, STEM | {'layers.0', 'layers.1', 'layers.2', 'ln1'}),
    ],
)
def test_frozen_stages(stages, expected):
    model = make(frozen_stages=stages, pre_norm=True, drop_path_rate=0.5, drop_rate=0.5)
    assert frozen_parts(model) == expected
    for mode in (True, False, True):
        assert model.train(mode) is model
        assert model.training == mode
        # not again in training mode after a validation, as mmpretrain's
        for i, layer in enumerate(model.layers):
            assert {m.training for m in layer.modules()} == {mode and i >= stages}
        assert model.drop_after_pos.training == (mode and stages < 0)
    if stages == 3:
        x = torch.rand(2, 3, 32, 72)
        assert torch.equal(model(x)[0], model(x)[0])  # nothing is dropped
        assert not model(x)[0].requires_grad
    else:
        model(torch.rand(2, 3, 32, 72))[0].sum().backward()
        assert all((p.grad is None) == (not p.requires_grad) for p in model.parameters())


def test_frozen_stages_without_class_token_and_out_of_range():
    assert frozen_parts(make(frozen_stages=0, with_cls_token=False)) == {'pos_embed', 'patch_embed'}
    for stages in (-2, 4):
        with pytest.raises(ValueError, match=rf'frozen_stages={stages}: expected -1 .* to 3'):
            make(frozen_stages=stages)


# ---------------------------------------------------------------- weights that mm injects


@pytest.mark.parametrize(
    'name',
    [
        'torchvision://resnet50',
        'open-mmlab://detectron2/resnet50_caffe',
    ],
)
def test_name_of_a_replaced_backbones_weights_is_ignored_aloud(name, tmp_path):
    with pytest.warns(UserWarning, match=rf'{name}.*is ignored'):
        model = make(pretrained=name, random=False)
    assert torch.equal(model.pos_embed[:, 1:], sincos_pos_embed((4, 9), 48))

    source, path = make(seed=3), str(tmp_path / 'encoder.pth')
    torch.save(source.state_dict(), path)
    with pytest.warns(UserWarning, match='is ignored'):
        model = make(
            pretrained=name, random=False, init_cfg=dict(type='Pretrained', checkpoint=path)
        )
    for key, value in source.state_dict().items():
        assert torch.equal(model.state_dict()[key], value)


def test_zoo_name_in_init_cfg_is_an_error_before_any_download():
    init = dict(type='Pretrained', checkpoint='torchvision://resnet50')
    for cfg in (init, [dict(type='Constant', layer='Linear', val=0.0), init]):
        with pytest.raises(ValueError, match=r'torchvision://resnet50.*_delete_=True'):
            make(init_cfg=cfg)


def test_zoo_name_of_a_transformer_is_no_foreign_one():
    cfg = dict(arch=ARCH, img_size=(32, 72), patch_size=8)
    model = Mask3DViT(**cfg, pretrained='mmcls://vit_base_p16')
    assert model.init_cfg == dict(type='Pretrained', checkpoint='mmcls://vit_base_p16')


def test_any_other_pretrained_is_loaded_strictly(tmp_path):
    source, path = make(seed=3), str(tmp_path / 'resnet50.pth')
    torch.save(source.state_dict(), path)
    model = make(pretrained=path, random=False)
    for key, value in source.state_dict().items():
        assert torch.equal(model.state_dict()[key], value)
    torch.save({'conv1.weight': torch.zeros(1)}, path)
    with pytest.raises(RuntimeError, match=r'does not fill this Mask3DViT(.|\n)*conv1\.weight'):
        make(pretrained=path)
    with pytest.raises(FileNotFoundError):
        make(pretrained=str(tmp_path / 'none.pth'))
    with pytest.raises(ValueError, match=r'Both pretrained=.* and init_cfg=.* are set'):
        make(pretrained=path, init_cfg=dict(type='Pretrained', checkpoint=path))


# ---------------------------------------------------------------- the grid travels with the weights


def through_file(state):
    buffer = io.BytesIO()
    torch.save(dict(state_dict=state, meta={}), buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)['state_dict']


@pytest.mark.parametrize('img_size', [(48, 48), (32, 72), (72, 32), (64, 80)])
def test_a_4x9_grid_is_never_read_as_6x6(img_size):
    source = make()
    target = make(seed=1, img_size=img_size)
    state = through_file(source.state_dict())
    assert state._metadata['']['patch_grid'] == (4, 9)
    target.load_state_dict(state, strict=True)
    expected = resize_to_grid(source.pos_embed, (4, 9), target.grid_size)
    assert torch.equal(target.pos_embed, expected)
    for name, value in source.state_dict().items():
        if name != 'pos_embed':
            assert torch.equal(target.state_dict()[name], value)


class Whole(nn.Module):
    def __init__(self, **kwargs):
        super().__init__()
        self.backbone = make(**kwargs)


def test_grid_survives_the_checkpoints_of_mmengine(tmp_path):
    path = str(tmp_path / 'epoch_1.pth')
    source, target = Whole(), Whole(seed=1, img_size=(48, 48))
    state = weights_to_cpu(get_state_dict(source))
    save_checkpoint(dict(state_dict=state, meta={}), path)
    load_checkpoint(target, path, map_location='cpu', strict=True)
    expected = resize_to_grid(source.backbone.pos_embed, (4, 9), (6, 6))
    assert torch.equal(target.backbone.pos_embed, expected)


def test_without_a_record_a_square_is_a_square():
    source = plain(img_size=48)
    nn.init.normal_(source.pos_embed)
    target = make(img_size=(40, 48))
    target.load_state_dict(OrderedDict(source.state_dict()), strict=True)
    assert torch.equal(target.pos_embed, resize_to_grid(source.pos_embed, (6, 6), (5, 6)))


def test_without_a_record_nothing_is_guessed():
    state = dict(make().state_dict())  # a plain dict has no metadata
    with pytest.raises(ValueError, match='6x6 or 4x9'):
        make().load_state_dict(state)
    untouched = make(img_size=(24, 40))
    state['pos_embed'] = torch.zeros(1, 1 + 35, 48)
    with pytest.raises(ValueError, match='no square number'):
        untouched.load_state_dict(state)


def test_class_token_position_is_dropped_where_there_is_none():
    source, target = make(), make(seed=1, with_cls_token=False)
    state = source.state_dict()
    del state['cls_token']
    target.load_state_dict(state, strict=True)
    assert torch.equal(target.pos_embed, source.pos_embed[:, 1:])


def test_positions_are_resampled_on_the_fly_for_another_input():
    model = make()
    x = torch.rand(1, 3, 64, 40)
    bigger = make(seed=1, img_size=(64, 40))
    bigger.load_state_dict(model.state_dict())
    torch.testing.assert_close(model(x)[0], bigger(x)[0])
    ids = keep([0, 17, 39])
    torch.testing.assert_close(model(x, ids), bigger(x, ids))


# ---------------------------------------------------------------- memory and speed


def test_attention_is_the_fused_one(monkeypatch):
    calls = []
    fused = F.scaled_dot_product_attention

    def spy(*args, **kwargs):
        calls.append(1)
        return fused(*args, **kwargs)

    for layer in (model := make()).layers:
        monkeypatch.setattr(layer.attn, 'scaled_dot_product_attention', spy)
    model(torch.rand(1, 3, 32, 72), keep([0, 1]))
    assert len(calls) == 3


def test_drop_path_rates_are_plain_numbers():
    model = make(drop_path_rate=0.1)
    rates = [layer.attn.out_drop.drop_prob for layer in model.layers]
    assert rates == pytest.approx([0, 0.05, 0.1])
    assert all(type(r) is float for r in rates)


@pytest.mark.parametrize('arch', ['deit-tiny', 'deit-small', 'base', 'large'])
def test_architectures_of_the_configs_exist(arch):
    with torch.device('meta'):
        model = Mask3DViT(arch=arch, img_size=(240, 320))
    assert model.grid_size == (15, 20)


def test_unknown_options_of_the_resize_are_refused():
    with pytest.raises(ValueError, match='expected offset and antialias, found mode'):
        Mask3DViT(arch='deit-tiny', img_size=32, pos_embed_resize=dict(mode='bilinear'))
