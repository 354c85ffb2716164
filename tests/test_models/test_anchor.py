"""The frozen teacher: by value, in no checkpoint, on resume, of other encoders."""

import copy

import pytest
import torch
import torch.nn.functional as F

from mmmask3d.models import FeatureAnchor, Mask3DViT
from mmmask3d.registry import MODELS

ARCH = dict(embed_dims=48, num_layers=2, num_heads=3, feedforward_channels=96)


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    """File of an encoder whose every parameter is off its start."""
    torch.manual_seed(5)
    encoder = Mask3DViT(arch=ARCH, img_size=(24, 40), patch_size=8)
    encoder.init_weights()
    with torch.no_grad():
        for p in encoder.parameters():
            p.add_(torch.randn_like(p) * 0.1)
    path = tmp_path_factory.mktemp('weights') / 'encoder.pth'
    torch.save(dict(state_dict=encoder.state_dict(), meta={}), path)
    return str(path)


@pytest.fixture
def build(build_model, weights):
    def build(anchor=None, backbone=None, **changes):
        init = dict(type='Pretrained', checkpoint=weights)
        anchor = {'type': 'FeatureAnchor', **(anchor or {})}
        return build_model(backbone=dict(backbone or {}, init_cfg=init), anchor=anchor, **changes)

    return build


def tokens(encoder, images):
    return encoder(images)[-1].flatten(2).transpose(1, 2)


def anchor_loss(model, data):
    batch = model.data_preprocessor(copy.deepcopy(data), True)
    return model(**batch, mode='loss')['loss_anchor'], batch['inputs']


def test_an_untouched_encoder_that_sees_everything_costs_nothing(build, make_data):
    loss, _ = anchor_loss(build().eval(), make_data(rgb_keep=15))
    assert float(loss) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize('options', [dict(), dict(weight=2.0, margin=0.65), dict(loss='smooth_l1')])
def test_loss_by_hand_on_kept_tokens(build, make_data, options):
    """The teacher stays as loaded while the encoder moves; kept tokens alone are compared."""
    model = build(options).eval()
    original = copy.deepcopy(model.backbone)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.backbone.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator))
    loss, batch = anchor_loss(model, make_data(rgb_keep=4))
    full = tokens(original, batch['img'])
    expected, cosines = [], []
    for i, ids in enumerate(batch['rgb_keep']):
        kept = model.backbone(batch['img'][i : i + 1], ids[None])[0, 1:]
        for own, target in zip(kept, full[i, ids], strict=True):
            if options.get('loss') == 'smooth_l1':
                own, target = (
                    (t - t.mean()) / (t.var(correction=0) + 1e-5).sqrt() for t in (own, target)
                )
                expected.append(F.smooth_l1_loss(own, target))
            else:
                cosine = own @ target / (own.norm() * target.norm())
                cosines.append(float(cosine.detach()))
                close = options.get('margin') is not None and cosine > options['margin']
                expected.append(torch.zeros(()) if close else 1 - cosine)
    if 'margin' in options:  # some of either kind
        assert min(cosines) < options['margin'] < max(cosines), cosines
    mean = torch.stack(expected).mean() * options.get('weight', 5.0)
    assert float(mean) > 0
    torch.testing.assert_close(loss, mean, rtol=1e-4, atol=1e-6)


def test_teacher_is_in_no_checkpoint_and_takes_no_gradient(build, make_data, loss_and_gradients):
    model = build()
    assert not [k for k in model.state_dict() if 'anchor' in k]
    assert not [n for n, _ in model.named_parameters() if 'anchor' in n]
    _, grads = loss_and_gradients(model, make_data())
    assert all(p.grad is None and not p.requires_grad for p in model.anchor.teacher.parameters())
    assert grads['backbone.layers.0.attn.qkv.weight'].abs().max() > 0
    assert not model.train().anchor.teacher.training


def test_a_resumed_run_has_the_teacher_of_its_first_start(build, make_data):
    """Runner's order: init_weights, then the checkpoint; what was trained is not the teacher."""
    first = build()
    with torch.no_grad():
        first.backbone.layers[0].attn.qkv.weight.mul_(3)
    second = build()
    second.load_state_dict(first.state_dict())
    images = torch.rand(1, 3, 24, 40)
    torch.testing.assert_close(
        tokens(first.anchor.teacher, images), tokens(second.anchor.teacher, images)
    )
    assert not torch.allclose(
        tokens(second.backbone, images), tokens(second.anchor.teacher, images)
    )


@pytest.mark.parametrize('layers', [(0, -1), (-1, 0)])
def test_layers_are_compared_one_by_one(build, make_data, layers):
    model, data = build(dict(layers=layers)).eval(), make_data(rgb_keep=4)
    with torch.no_grad():
        model.backbone.layers[0].attn.qkv.weight.mul_(1.5)
    both, batch = anchor_loss(model, data)
    parts = []
    for layer in (0, 1):
        own = model.backbone(batch['img'], batch['rgb_keep'], layers=(layer,))[0][:, 1:]
        full = model.anchor.teacher(batch['img'], layers=(layer,))[0].flatten(2).transpose(1, 2)
        ids = batch['rgb_keep'][..., None].expand_as(own)
        parts.append(1 - F.cosine_similarity(own, full.gather(1, ids), dim=-1))
    torch.testing.assert_close(both, 5 * torch.stack(parts).mean())
    assert not torch.allclose(parts[0].mean(), parts[1].mean())


def test_another_encoder_teaches_on_its_own_grid_and_normalisation(build, make_data, tmp_path):
    """Distillation: twice the size for the teacher, another width, patch and normalisation."""
    teacher = dict(
        type='TimmViT',
        model='vit_base_patch16_clip_224',
        img_size=(32, 48),
        model_args=dict(embed_dim=32, depth=1, num_heads=2),
    )
    with pytest.raises(ValueError, match=r'random weights.*pretrained or init_cfg'):
        build(dict(teacher=teacher))
    file = str(tmp_path / 'teacher.pth')
    torch.save(MODELS.build(teacher).state_dict(), file)
    teacher = dict(teacher, init_cfg=dict(type='Pretrained', checkpoint=file))
    with pytest.raises(ValueError, match=r'patches of 16.*img_size.*\(48, 80\)'):
        anchor_loss(build(dict(teacher=teacher)), make_data())
    model = build(dict(teacher=teacher, img_size=(32, 48), weight=1.0)).eval()
    assert copy.deepcopy(model).anchor.teacher is model.anchor.teacher  # as EMAHook copies a model
    (projection,) = model.anchor.projections
    assert projection.weight.shape == (32, 48)
    assert 'anchor.projections.0.weight' in model.state_dict()
    loss, batch = anchor_loss(model, make_data(rgb_keep=4))
    pre, clip = model.data_preprocessor, model.anchor.teacher
    pixels = batch['img'] * pre.std + pre.mean
    mean, std = (torch.tensor(clip.normalisation[k]).view(-1, 1, 1) for k in ('mean', 'std'))
    images = F.interpolate((pixels - mean) / std, (32, 48), mode='bicubic', antialias=True)
    full = F.interpolate(clip(images)[-1], (3, 5), mode='bilinear').flatten(2).transpose(1, 2)
    own = projection(model.backbone(batch['img'], batch['rgb_keep'])[:, 1:])
    target = full.gather(1, batch['rgb_keep'][..., None].expand_as(own))
    expected = (1 - F.cosine_similarity(own, target, dim=-1)).mean()
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)


def test_with_lora_the_teacher_is_the_encoder_without_it(weights, model_cfg, make_data):
    cfg = model_cfg(anchor=dict(type='FeatureAnchor'))
    inner = {**cfg['backbone'], 'type': 'mmmask3d.Mask3DViT'}
    inner['init_cfg'] = dict(type='Pretrained', checkpoint=weights)
    cfg['backbone'] = dict(type='LoRAEncoder', module=inner)
    model = MODELS.build(cfg)
    model.init_weights()
    with torch.no_grad():
        for name, p in model.backbone.named_parameters():
            if 'lora_up' in name:
                p.add_(0.1)
    plain = Mask3DViT(arch=ARCH, img_size=(24, 40), patch_size=8, pretrained=weights)
    plain.init_weights()
    images = torch.rand(1, 3, 24, 40)
    torch.testing.assert_close(tokens(model.anchor.teacher, images), tokens(plain.eval(), images))
    loss, _ = anchor_loss(model.eval(), make_data(rgb_keep=15))
    assert float(loss) > 1e-4


def test_autocast_gives_a_float32_loss_near_the_exact_one(build, make_data):
    model, data = build().eval(), make_data(rgb_keep=4)
    exact, _ = anchor_loss(model, data)
    with torch.autocast('cpu', torch.bfloat16):
        rounded, _ = anchor_loss(model, data)
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, exact, rtol=0.1, atol=1e-3)


def test_without_weights_there_is_nothing_to_stay_near(build_model):
    with pytest.raises(ValueError, match='names none'):
        build_model(anchor=dict(type='FeatureAnchor'))


def test_before_init_weights_there_is_no_teacher():
    with pytest.raises(RuntimeError, match='init_weights'):
        _ = FeatureAnchor(48).teacher


@pytest.mark.parametrize(
    'options', [dict(loss='l2'), dict(margin=1.5), dict(loss='smooth_l1', margin=0.5)]
)
def test_what_is_refused(options):
    with pytest.raises(ValueError, match='FeatureAnchor'):
        FeatureAnchor(48, **options)


def off_start(model):
    """The trained part of the encoder away from the teacher."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.backbone.parameters():
            if p.requires_grad:
                p.add_(0.1 * torch.randn(p.shape, generator=generator))
    return model


@pytest.mark.parametrize(('stages', 'rgb_keep'), [(0, 4), (1, 15)])
def test_shared_frozen_layers_change_no_value(
    build, make_data, loss_and_gradients, stages, rgb_keep
):
    """With nothing removed; and with patches removed where only what precedes layers is frozen."""
    data = make_data(rgb_keep=rgb_keep)
    found = [
        loss_and_gradients(
            off_start(build(share_frozen=share, backbone=dict(frozen_stages=stages))), data
        )
        for share in (False, True)
    ]
    torch.testing.assert_close(found[0], found[1])
    assert found[0][0]['loss_anchor'] > 0.01


def test_patches_are_removed_after_shared_frozen_layers(build, make_data):
    model = off_start(build(share_frozen=True, backbone=dict(frozen_stages=1))).eval()
    batch = model.data_preprocessor(make_data(rgb_keep=4), True)['inputs']
    first = model.backbone(batch['img'], layers=(0,))[0].flatten(2).transpose(1, 2)
    cls = model.backbone.forward_frozen(batch['img'])[:, :1]
    tokens = torch.cat((cls, first.gather(1, batch['rgb_keep'][..., None].expand(-1, -1, 48))), 1)
    expected = model._decode(
        model.backbone.ln1(model.backbone.layers[1](tokens)), model._encode_depth(batch), batch
    )
    torch.testing.assert_close(model.reconstruct(batch), expected)


@pytest.mark.parametrize('share', [False, True])
def test_a_cache_changes_rounding_alone_and_runs_the_frozen_network_once(
    build, make_data, share, monkeypatch
):
    options = dict(share_frozen=share, backbone=dict(frozen_stages=1))
    plain, cached = (off_start(build(**options, cache_gib=gib)).eval() for gib in (0, 0.1))
    runs = []
    targets = FeatureAnchor.targets
    monkeypatch.setattr(
        FeatureAnchor, 'targets', lambda *args: runs.append(len(args[1])) or targets(*args)
    )
    expected, _ = anchor_loss(plain, make_data())
    assert runs == [2]
    found = [anchor_loss(cached, make_data())[0] for _ in range(2)]
    assert runs == [2, 2]
    assert torch.equal(found[0], found[1])
    torch.testing.assert_close(found[0], expected, rtol=1e-3, atol=1e-4)


def test_a_teacher_does_not_share_layers_that_trained_in_an_earlier_stage(build, make_data):
    """Weights of a run with frozen_stages=0 go into one with 1, whose teacher stays the first."""
    earlier = off_start(build(backbone=dict(frozen_stages=0))).state_dict()
    found = []
    for share in (False, True):
        model = build(
            share_frozen=share, cache_gib=0.1 * share, backbone=dict(frozen_stages=1)
        ).eval()
        anchor_loss(model, make_data())  # what is cached of the start is forgotten
        model.load_state_dict(earlier)
        model.init_weights()  # as a Runner does, to a model that has weights
        found.append(anchor_loss(model, make_data(rgb_keep=15))[0])
    assert float(found[0]) > 0.01
    torch.testing.assert_close(found[1], found[0], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize('loss', ['cosine', 'smooth_l1'])
def test_where_no_patch_is_kept_there_is_no_loss(build, make_data, loss):
    assert float(anchor_loss(build(dict(loss=loss)), make_data(rgb_keep=0))[0]) == 0


def test_sharing_and_caching_need_something_frozen(build_model):
    with pytest.raises(ValueError, match='frozen_stages of 0 or more'):
        build_model(share_frozen=True)
    with pytest.raises(ValueError, match='nothing to keep'):
        build_model(cache_gib=1)
