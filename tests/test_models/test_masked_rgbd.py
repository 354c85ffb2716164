"""The method as a whole: what enters, what may not, and that every variant learns."""

import copy
import itertools

import pytest
import torch
from mmengine.optim import OptimWrapper
from torch import nn

from mmmask3d.models import MaskedRGBD
from mmmask3d.models.interpolation import inverse_distance_fill
from mmmask3d.models.patches import patch_mask_to_pixels, patchify, unpatchify

FUSIONS = ('AddFusion', 'ConcatFusion', 'CrossAttentionFusion')
L2, L1, BERHU = (dict(type=f'Depth{n}Loss') for n in ('L2', 'L1', 'BerHu'))
GRADIENT = [dict(type='DepthL1Loss'), dict(type='DepthGradientLoss', scales=2)]
# Scale-invariant log error is defined for metric and logarithmic targets alone.
TARGET_LOSS = [
    *itertools.product(('standardise', 'metric', 'log', 'inverse', 'patch'),
                       (L2, L1, BERHU, GRADIENT)),
    ('metric', dict(type='DepthSILogLoss')),
    ('log', dict(type='DepthSILogLoss', log_input=True)),
]  # fmt: skip
HEADS = {
    'rgb': dict(
        decoders=dict(depth=None, rgb=dict(type='RGBDecoder', num_layers=1, num_heads=2)),
        heads=dict(depth=None, rgb=dict(type='RGBHead')),
    ),
    'rgb and depth': dict(
        decoders=dict(rgb=dict(type='RGBDecoder', num_layers=1, num_heads=2)),
        heads=dict(rgb=dict(type='RGBHead')),
    ),
    'rgb pixels': dict(
        decoders=dict(rgb=dict(type='RGBDecoder', num_layers=1, num_heads=2)),
        heads=dict(rgb=dict(type='RGBHead', norm_pix=False, loss_on='all', loss_weight=0.5)),
    ),
    'normal': dict(
        decoders=dict(normal=dict(type='DepthDecoder', num_layers=1, num_heads=2)),
        heads=dict(depth=None, normal=dict(type='NormalHead')),
    ),
    'residual': dict(
        data_preprocessor=dict(depth_target=dict(stats='kept')),
        heads=dict(depth=dict(residual=True)),
    ),
    'all pixels': dict(heads=dict(depth=dict(loss_on='all'))),
    'share decoded': dict(
        decoders=dict(depth=dict(type='CrossAttentionDecoder', share=0.5)),
    ),
    'share of both decoded': dict(
        decoders=dict(
            depth=dict(type='CrossAttentionDecoder', share=0.5),
            rgb=dict(type='CrossAttentionDecoder', share=0.5, num_layers=1, num_heads=2),
        ),
        heads=dict(depth=dict(loss_on='all'), rgb=dict(type='RGBHead')),
    ),
    'narrow decoder': dict(decoders=dict(depth=dict(embed_dims=24))),
    'no class token': dict(backbone=dict(with_cls_token=False)),
    'metric input': dict(depth_encoder=dict(input_norm='metric')),
    'log input': dict(depth_encoder=dict(input_norm='log')),
}
NO_DEPTH = dict(depth_encoder=None)
MAE = dict(**HEADS['rgb'], **NO_DEPTH)


def target_and_loss(mode, loss, **head):
    return dict(
        data_preprocessor=dict(depth_target=dict(mode=mode)),
        heads=dict(depth=dict(loss=loss, **head)),
    )


def predict(model, data):
    model.eval()
    batch = model.data_preprocessor(copy.deepcopy(data), False)
    return model(**batch, mode='predict')


def reconstruct(model, data):
    model.eval()
    batch = model.data_preprocessor(copy.deepcopy(data), False)['inputs']
    with torch.no_grad():
        return model.reconstruct(batch)


def with_holes(data, filler):
    data = copy.deepcopy(data)
    for depth, valid in zip(data['inputs']['depth'], data['inputs']['valid'], strict=True):
        depth[~valid] = filler
    return data


def assert_same(first, second):
    assert first.keys() == second.keys()
    for key, value in first.items():
        assert torch.isfinite(value).all(), key
        assert torch.equal(value, second[key]), key


def pixels(mask):
    return patch_mask_to_pixels(mask[None], 8, (3, 5))[0]


# ---------------------------------------------------------------- pixels without a reading


@pytest.mark.parametrize('loss_on', ['masked', 'all'])
@pytest.mark.parametrize(('mode', 'loss'), TARGET_LOSS)
def test_invalid_pixels_change_nothing(
    mode, loss, loss_on, build_model, make_data, loss_and_gradients
):
    model = build_model(**target_and_loss(mode, loss, loss_on=loss_on))
    clean = make_data()
    losses, grads = loss_and_gradients(model, clean)
    predicted = predict(model, clean)
    model.train()
    for filler in (1e6, -3.0, float('nan'), float('inf')):
        dirty = with_holes(clean, filler)
        other_losses, other_grads = loss_and_gradients(model, dirty)
        assert_same(losses, other_losses)
        assert_same(grads, other_grads)
        for a, b in zip(predicted, predict(model, dirty), strict=True):
            assert torch.equal(a.pred_target, b.pred_target)
            assert torch.equal(a.depth, b.depth)
        model.train()


@pytest.mark.parametrize(
    'name', ['residual', 'normal', 'rgb and depth', 'log input', 'share decoded']
)
def test_invalid_pixels_change_nothing_in_other_heads(
    name, build_model, make_data, loss_and_gradients
):
    model = build_model(**HEADS[name])
    clean = make_data()
    losses, grads = loss_and_gradients(model, clean)
    assert sum(losses.values()) > 0
    for filler in (1e6, float('nan'), float('inf')):
        dirty = with_holes(clean, filler)
        other_losses, other_grads = loss_and_gradients(model, dirty)
        assert_same(losses, other_losses)
        assert_same(grads, other_grads)


@pytest.mark.parametrize(('mode', 'loss'), TARGET_LOSS)
def test_depth_without_any_reading_gives_zero_loss_and_zero_gradients(
    mode, loss, build_model, make_data, loss_and_gradients
):
    model = build_model(**target_and_loss(mode, loss))
    losses, grads = loss_and_gradients(model, make_data(invalid=1.1))
    assert all(v == 0 for v in losses.values())
    assert all(not g.any() for g in grads.values())


@pytest.mark.parametrize('name', ['residual', 'normal', 'all pixels'])
def test_empty_depth_in_other_heads(name, build_model, make_data, loss_and_gradients):
    losses, grads = loss_and_gradients(build_model(**HEADS[name]), make_data(invalid=1.1))
    assert all(v == 0 for v in losses.values())
    assert all(not g.any() for g in grads.values())


def test_one_empty_frame_leaves_the_mean_over_the_other(build_model, make_data):
    model = build_model().eval()
    data = make_data()
    data['inputs']['valid'][1].fill_(False)
    alone = {k: v[:1] for k, v in data['inputs'].items()}
    both = model(**model.data_preprocessor(copy.deepcopy(data)), mode='loss')
    one = model(
        **model.data_preprocessor(dict(inputs=alone, data_samples=data['data_samples'][:1])),
        mode='loss',
    )
    torch.testing.assert_close(both['loss_depth'], one['loss_depth'])


# ---------------------------------------------------------------- what was removed


@pytest.mark.parametrize('fusion', FUSIONS)
@pytest.mark.parametrize('name', [None, 'residual', 'rgb and depth', 'log input', 'share decoded'])
def test_removed_colour_and_depth_never_reach_the_output(name, fusion, build_model, make_data):
    model = build_model(**{**HEADS.get(name, {}), 'fusion': dict(type=fusion)})
    with torch.no_grad():  # a residual head starts at zero, where nothing could be seen
        model.heads['depth'].proj.weight.normal_()
    data = make_data()
    expected = reconstruct(model, data)
    for k in range(2):
        changed = copy.deepcopy(data)
        for i, mask in enumerate(changed['inputs'][('rgb_mask', 'depth_mask')[k]]):
            removed = pixels(mask)
            value = changed['inputs'][('img', 'depth')[k]][i]
            value[removed.expand_as(value)] = 77
            if k:
                changed['inputs']['valid'][i] |= removed
        assert_same(expected, reconstruct(model, changed))


def test_kept_colour_and_kept_depth_do_reach_the_output(build_model, make_data):
    model = build_model()
    data = make_data()
    expected = reconstruct(model, data)['depth']
    for mask_name, name in (('rgb_mask', 'img'), ('depth_mask', 'depth')):
        changed = copy.deepcopy(data)
        kept = ~pixels(changed['inputs'][mask_name][0])
        value = changed['inputs'][name][0]
        first = kept.flatten().nonzero()[0]
        value[0].view(-1)[first] += 3
        changed['inputs']['valid'][0].view(-1)[first] = True
        found = reconstruct(model, changed)['depth']
        assert (found[0] != expected[0]).any()
        # and frames of a batch do not see each other
        assert torch.equal(found[1], expected[1])


@pytest.mark.parametrize('mode', ['standardise', 'metric', 'log', 'inverse'])
@pytest.mark.parametrize('residual', [False, True])
def test_depth_in_metres_uses_no_statistics_of_removed_readings(
    mode, residual, build_model, make_data
):
    stats = 'kept' if residual and mode == 'standardise' else 'all'
    model = build_model(
        data_preprocessor=dict(depth_target=dict(mode=mode, stats=stats)),
        heads=dict(depth=dict(residual=residual)),
    )
    data = make_data()
    changed = copy.deepcopy(data)
    for depth, mask in zip(
        changed['inputs']['depth'], changed['inputs']['depth_mask'], strict=True
    ):
        depth[pixels(mask)] *= 9
    for a, b in zip(predict(model, data), predict(model, changed), strict=True):
        assert torch.isfinite(a.pred_depth).all()
        assert torch.equal(a.pred_depth, b.pred_depth)
        assert not torch.equal(a.depth, b.depth)


def test_depth_in_metres_is_the_prediction_scaled_by_kept_readings(build_model, make_data):
    data = make_data()
    sample = predict(build_model(), data)[1]
    depth, valid = data['inputs']['depth'][1], data['inputs']['valid'][1]
    kept = depth[valid & ~pixels(data['inputs']['depth_mask'][1])].double()
    std = (kept.var(correction=0) + 1e-6).sqrt()
    expected = sample.pred_target.double() * std + kept.mean()
    torch.testing.assert_close(sample.pred_depth.double(), expected, rtol=1e-4, atol=1e-5)


def test_predicted_sample_has_what_metric_and_pictures_need(build_model, make_data):
    data = make_data(rgb_keep=4, depth_keep=6)
    sample = predict(build_model(**HEADS['rgb and depth']), data)[0]
    assert sample.depth.shape == sample.valid.shape == sample.pred_depth.shape == (24, 40)
    assert sample.pred_rgb.shape == (3, 24, 40)
    assert sample.pred_rgb.dtype == torch.uint8
    assert torch.equal(sample.depth_mask, data['inputs']['depth_mask'][0])
    assert torch.equal(sample.rgb_mask, data['inputs']['rgb_mask'][0])
    assert (sample.patch_size, sample.grid, sample.target_mode) == (8, (3, 5), 'standardise')
    assert sample.depth_kind == 'metric'
    normals = predict(build_model(**HEADS['normal']), data)[0]
    torch.testing.assert_close(normals.pred_normal.norm(dim=0), torch.ones(24, 40))
    assert 'pred_depth' not in normals


@pytest.mark.parametrize(
    ('changes', 'keep'),
    [(dict(), 0), (NO_DEPTH, 5), (target_and_loss('patch', L2), 5)],
)
def test_no_metres_where_the_kept_readings_do_not_lead_there(changes, keep, build_model, make_data):
    for sample in predict(build_model(**changes), make_data(depth_keep=keep)):
        assert 'pred_target' in sample
        assert 'pred_depth' not in sample


def test_predicted_rgb_of_a_perfect_network_is_the_image(build_model, make_data):
    model = build_model(**MAE)
    data = make_data()
    batch = model.data_preprocessor(copy.deepcopy(data))['inputs']
    mean, std = model.heads['rgb'].statistics(batch['img'])
    perfect = unpatchify((patchify(batch['img'], 8) - mean) / std, 8, (3, 5))
    model.reconstruct = lambda batch: dict(rgb=perfect)
    for i, sample in enumerate(predict(model, data)):
        assert torch.equal(sample.pred_rgb, data['inputs']['img'][i].flip(0))  # BGR in, RGB out


# ---------------------------------------------------------------- token counts


def count_tokens(module, into):
    def hook(module, args, output):
        into.append(tuple(args[0].shape[:2]))

    return [layer.register_forward_hook(hook) for layer in module.layers]


@pytest.mark.parametrize(('rgb', 'depth'), [(3, 5), (15, 1), (1, 15), (4, 0), (0, 6)])
def test_only_kept_tokens_are_processed(rgb, depth, build_model, make_data):
    model = build_model()
    seen = {}
    for name, module in (
        ('rgb', model.backbone),
        ('depth', model.depth_encoder),
        ('decoder', model.decoders['depth']),
    ):
        count_tokens(module, seen.setdefault(name, []))
    reconstruct(model, make_data(rgb_keep=rgb, depth_keep=depth))
    assert seen == {
        'rgb': [(2, 1 + rgb)] * 2,  # two layers; one class token
        'depth': [(2, depth)],
        'decoder': [(2, 1 + 15)],
    }


def test_no_depth_branch_exists_without_depth_input(build_model, make_data):
    model = build_model(**MAE)
    assert not [k for k, _ in model.named_parameters() if 'depth' in k]
    assert set(reconstruct(model, make_data())) == {'rgb'}


def test_a_training_step_decodes_a_share_of_what_was_removed(build_model, make_data):
    model = build_model(**HEADS['share of both decoded'])
    seen = {'rgb': [], 'depth': []}
    for name, sizes in seen.items():
        count_tokens(model.decoders[name], sizes)
    batch = model.data_preprocessor(make_data(rgb_keep=4, depth_keep=5))
    model(**batch, mode='loss')
    # half of the 11 removed RGB patches, and of all 15 for depth, rounded up
    assert seen == {'rgb': [(2, 6)], 'depth': [(2, 8)]}
    model.eval()
    model(**batch, mode='loss')
    model(**batch, mode='predict')
    assert seen == {'rgb': [(2, 6)] + 2 * [(2, 15)], 'depth': [(2, 8)] + 2 * [(2, 15)]}


def test_losses_of_shares_average_to_the_loss_of_all(build_model, make_data):
    """Twelve removed patches in four shares of three, without holes: an unbiased estimate."""
    model = build_model(**HEADS['share decoded']).eval()
    batch = model.data_preprocessor(make_data(rgb_keep=4, depth_keep=3, invalid=0))['inputs']
    tokens = model.backbone(batch['img'], batch['rgb_keep']), model._encode_depth(batch)
    removed = batch['depth_mask'].nonzero()[:, 1].view(2, 4, 3)
    losses = []
    for part in removed.unbind(1):
        pred = model._decode(*tokens, batch, dict(depth=part))['depth']
        (loss,) = model.heads['depth'].loss(pred, (3, 5), batch, part).values()
        losses.append(loss)
    full = model.loss(batch)['loss_depth']
    assert full > 0
    torch.testing.assert_close(torch.stack(losses).mean(), full)


# ---------------------------------------------------------------- learning


def train_a_little(model, data, steps=12, lr=3e-3):
    """Overfit one batch: first and last loss, and the parameters that got no gradient."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    batch = model.data_preprocessor(copy.deepcopy(data), True)
    history = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = sum(model(**batch, mode='loss').values())
        loss.backward()
        without = [k for k, p in model.named_parameters() if p.grad is None]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0, error_if_nonfinite=True)
        optimizer.step()
        history.append(loss.item())
    return history, without


@pytest.mark.parametrize(('mode', 'loss'), TARGET_LOSS)
def test_every_target_and_loss_learns(mode, loss, build_model, make_data):
    model = build_model(**target_and_loss(mode, loss))
    history, without = train_a_little(model, make_data(invalid=0.1))
    assert without == []
    assert history[-1] < 0.97 * history[0]


@pytest.mark.parametrize('fusion', FUSIONS)
def test_every_fusion_learns(fusion, build_model, make_data):
    history, without = train_a_little(build_model(fusion=dict(type=fusion)), make_data(invalid=0.1))
    assert without == []
    assert history[-1] < 0.97 * history[0]


@pytest.mark.parametrize('name', HEADS)
def test_every_head_and_variant_learns(name, build_model, make_data):
    history, without = train_a_little(build_model(**HEADS[name]), make_data(invalid=0.05))
    assert without == []
    assert history[-1] < 0.97 * history[0]


@pytest.mark.parametrize(('changes', 'keep'), [(NO_DEPTH, 0), (MAE, 0), (dict(), 0), (dict(), 15)])
def test_controls_learn(changes, keep, build_model, make_data):
    if keep == 15:  # nothing removed: only a loss on all pixels has something to learn
        changes = dict(heads=dict(depth=dict(loss_on='all')))
    history, without = train_a_little(build_model(**changes), make_data(depth_keep=keep))
    assert without == []
    assert history[-1] < 0.97 * history[0]


def test_a_residual_starts_at_the_interpolation(build_model, make_data):
    data = make_data()
    model = build_model(**HEADS['residual'])
    batch = model.data_preprocessor(copy.deepcopy(data))['inputs']
    kept = batch['valid'] & ~patch_mask_to_pixels(batch['depth_mask'], 8, (3, 5))
    filled = inverse_distance_fill(batch['depth'], kept)
    for i, sample in enumerate(predict(model, data)):
        torch.testing.assert_close(sample.pred_depth, filled[i, 0])


# ---------------------------------------------------------------- sizes, precision, speed-ups


@pytest.mark.parametrize('size', [(24, 40), (16, 16), (40, 24), (48, 80)])
@pytest.mark.parametrize('batch', [1, 2])
def test_any_input_size_and_a_batch_of_one(size, batch, build_model, make_data):
    model = build_model()
    data = make_data(batch=batch, size=size, rgb_keep=2, depth_keep=2)
    history, _ = train_a_little(model, data, steps=3)
    assert all(h == h for h in history)
    assert predict(model, data)[-1].pred_depth.shape == size


def test_gradient_checkpointing_gives_the_same_gradients(
    build_model, make_data, loss_and_gradients
):
    plain, saving = build_model(), build_model(backbone=dict(with_cp=True))
    calls = []
    saving.backbone.layers[0].register_forward_pre_hook(lambda *_: calls.append(1))
    losses, grads = loss_and_gradients(plain, make_data())
    other_losses, other_grads = loss_and_gradients(saving, make_data())
    assert len(calls) == 2  # forward, and again in the backward pass
    assert_same(losses, other_losses)
    for name, grad in grads.items():
        torch.testing.assert_close(grad, other_grads[name], msg=name)


@pytest.mark.parametrize('fusion', FUSIONS)
def test_autocast_bf16_is_close_to_fp32(fusion, build_model, make_data, loss_and_gradients):
    model = build_model(fusion=dict(type=fusion), **HEADS['rgb and depth'])
    exact, _ = loss_and_gradients(model, make_data())
    with torch.autocast('cpu', torch.bfloat16):
        rough, grads = loss_and_gradients(model, make_data())
        maps = reconstruct(model, make_data())
    assert all(m.dtype == torch.float32 for m in maps.values())
    assert all(torch.isfinite(g).all() for g in grads.values())
    for name, value in exact.items():
        assert rough[name].dtype == torch.float32
        assert rough[name] != value  # bf16 was used indeed
        torch.testing.assert_close(rough[name], value, rtol=0.03, atol=0)


def test_compiled_model_gives_the_same_losses_and_gradients(
    build_model, make_data, loss_and_gradients
):
    model = build_model(**HEADS['rgb and depth'])
    losses, grads = loss_and_gradients(model, make_data())
    torch._dynamo.reset()
    compiled = build_model(**HEADS['rgb and depth'])
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return torch._dynamo.lookup_backend('aot_eager')(graph, inputs)

    # As mmengine's cfg.compile does it, by the method that every mode goes through.
    compiled.forward = torch.compile(compiled.forward, backend=backend)
    other_losses, other_grads = loss_and_gradients(compiled, make_data())
    assert len(graphs) == 1  # the whole forward is one graph, without breaks
    for name, value in losses.items():
        torch.testing.assert_close(other_losses[name], value, rtol=1e-4, atol=1e-6)
    for name, grad in grads.items():
        torch.testing.assert_close(other_grads[name], grad, rtol=1e-3, atol=1e-6, msg=name)
    torch._dynamo.reset()


def test_forward_runs_the_same_operations_whatever_the_batch(build_model, make_data):
    """No python loop over samples: the number of operators is that of one sample."""
    counts = []
    for batch in (1, 5):
        model = build_model(**HEADS['rgb and depth'])
        data = model.data_preprocessor(make_data(batch=batch), True)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as run:
            sum(model(**data, mode='loss').values())
        counts.append(sum(e.name in ('aten::addmm', 'aten::linear') for e in run.events()))
    assert counts[0] == counts[1] > 0


# ---------------------------------------------------------------- entry points and errors


def test_features_are_those_of_the_unmasked_image(build_model, make_data):
    model = build_model().eval()
    batch = model.data_preprocessor(make_data())
    features = model(**batch)  # mode='tensor'
    assert features[0].shape == (2, 48, 3, 5)
    assert torch.equal(features[0], model.backbone(batch['inputs']['img'])[0])
    assert torch.equal(model.extract_feat(batch['inputs']['img'])[0], features[0])


def test_steps_of_mmengine(build_model, make_data):
    model = build_model(
        heads=dict(depth=dict(loss=[dict(type='DepthL1Loss'), dict(type='DepthGradientLoss')]))
    )
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    logged = model.train_step(make_data(), wrapper)
    assert set(logged) == {'loss', 'loss_depth_l1', 'loss_depth_gradient'}
    torch.testing.assert_close(
        logged['loss'], logged['loss_depth_l1'] + logged['loss_depth_gradient']
    )
    samples = model.val_step(make_data())
    assert len(samples) == 2
    assert samples[0].pred_depth.shape == (24, 40)


def test_predict_makes_samples_where_none_are_given(build_model, make_data):
    model = build_model().eval()
    batch = model.data_preprocessor(dict(inputs=make_data()['inputs']))
    assert batch['data_samples'] is None
    assert [s.pred_depth.shape for s in model.predict(batch['inputs'])] == [(24, 40)] * 2


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(heads=dict(depth=None)), 'found heads'),
        (dict(decoders=dict(depth=None)), 'found heads'),
        (dict(heads=dict(rgb=dict(type='RGBHead'))), 'found heads'),
        (dict(decoders=dict(rgb=dict(type='RGBDecoder'))), 'found heads'),
        (
            dict(
                heads=dict(rgbd=dict(type='RGBHead')), decoders=dict(rgbd=dict(type='RGBDecoder'))
            ),
            'Heads are named after',
        ),
        (target_and_loss('standardise', dict(type='DepthSILogLoss')), "mode='metric'"),
        (target_and_loss('metric', dict(type='DepthSILogLoss', log_input=True)), "mode='log'"),
        (target_and_loss('metric', [L2, L2]), 'twice'),
        (dict(heads=dict(depth=dict(residual=True))), "stats='kept'"),
        (dict(heads=dict(depth=dict(loss_on='kept'))), "'masked' or 'all'"),
        (
            dict(
                data_preprocessor=dict(depth_target=dict(mode='metric')),
                heads=dict(depth=dict(residual=True)),
                **NO_DEPTH,
            ),
            'needs depth input',
        ),
    ],
)
def test_combinations_without_meaning_are_refused(changes, message, build_model):
    with pytest.raises(ValueError, match=message):
        build_model(**changes)


def test_a_switched_off_head_drops_its_decoder(build_model):
    model = build_model(
        heads=dict(depth=None, rgb=dict(type='RGBHead')),
        decoders=dict(rgb=dict(type='RGBDecoder', num_layers=1, num_heads=2)),
    )
    assert isinstance(model, MaskedRGBD)
    assert list(model.heads) == list(model.decoders) == ['rgb']
