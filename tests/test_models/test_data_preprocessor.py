import copy

import numpy as np
import pytest
import torch
from mmengine.dataset import default_collate, pseudo_collate
from mmpretrain.structures import DataSample

from mmmask3d.models import RGBDDataPreprocessor
from mmmask3d.models.depth_target import MODES
from mmmask3d.models.interpolation import inverse_distance_fill


def make(**kwargs):
    return RGBDDataPreprocessor(**{'patch_size': 8, **kwargs})


def test_colour_is_normalised_in_rgb_order(make_data):
    data = make_data()
    img = torch.stack(data['inputs']['img']).double().numpy()[:, ::-1]  # BGR from the loader
    mean, std = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])
    expected = (img - mean[:, None, None]) / std[:, None, None]
    found = make()(copy.deepcopy(data))['inputs']['img']
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    same = make(bgr_to_rgb=False, mean=[0, 0, 0], std=[1, 1, 1])(copy.deepcopy(data))
    assert torch.equal(same['inputs']['img'], torch.stack(data['inputs']['img']).float())


def test_batch_has_everything_the_model_reads(make_data):
    data = make_data(rgb_keep=4, depth_keep=6)
    out = make()(copy.deepcopy(data), training=True)
    batch = out['inputs']
    assert out['data_samples'] is not None
    assert batch['depth'].shape == batch['valid'].shape == batch['target'].shape == (2, 1, 24, 40)
    assert batch['rgb_mask'].dtype == batch['depth_mask'].dtype == torch.bool
    assert batch['rgb_keep'].shape == (2, 4)
    assert batch['depth_keep'].shape == (2, 6)
    assert 'interpolation' not in batch
    for name in ('rgb', 'depth'):
        for ids, mask in zip(batch[f'{name}_keep'], data['inputs'][f'{name}_mask'], strict=True):
            assert ids.tolist() == [i for i, removed in enumerate(mask.tolist()) if not removed]


@pytest.mark.parametrize('collate', [pseudo_collate, default_collate])
def test_both_collate_functions_give_the_same_batch(collate, make_data):
    data = make_data()
    frames = [
        dict(inputs={k: v[i] for k, v in data['inputs'].items()}, data_samples=DataSample())
        for i in range(2)
    ]
    found = make()(collate(frames))['inputs']
    expected = make()(copy.deepcopy(data))['inputs']
    assert found.keys() == expected.keys()
    for key in ('img', 'depth', 'target', 'rgb_keep', 'depth_keep', 'valid'):
        assert torch.equal(found[key], expected[key])


@pytest.mark.parametrize('mode', MODES)
@pytest.mark.parametrize('filler', [1e6, float('nan'), float('-inf')])
def test_pixels_without_a_reading_are_zero_and_enter_no_statistic(mode, filler, make_data):
    clean = make_data()
    dirty = copy.deepcopy(clean)
    for depth, valid in zip(dirty['inputs']['depth'], dirty['inputs']['valid'], strict=True):
        depth[~valid] = filler
    pre = make(depth_target=dict(mode=mode))
    a, b = pre(clean)['inputs'], pre(dirty)['inputs']
    for key in ('depth', 'target'):
        assert torch.equal(a[key], b[key])
        assert not b[key][~b['valid']].any()
    for key, value in a['target_stats'].items():
        assert torch.equal(value, b['target_stats'][key])


def kept_depth(data, i):
    pixels = torch.kron(data['inputs']['depth_mask'][i].view(3, 5).int(), torch.ones(8, 8).int())
    keep = data['inputs']['valid'][i][0] & (pixels == 0)
    return data['inputs']['depth'][i][0][keep], keep


@pytest.mark.parametrize('stats', ['all', 'kept'])
def test_statistics_of_all_or_of_kept_readings(stats, make_data):
    data = make_data()
    found = make(depth_target=dict(stats=stats))(copy.deepcopy(data))['inputs']
    for i in range(2):
        depth, valid = data['inputs']['depth'][i], data['inputs']['valid'][i]
        over = depth[valid] if stats == 'all' else kept_depth(data, i)[0]
        assert found['target_stats']['mean'][i].item() == pytest.approx(over.mean().item())
        expected = (depth - over.mean()) / (over.var(correction=0) + 1e-6).sqrt()
        torch.testing.assert_close(found['target'][i][valid], expected[valid])


def test_kept_readings_are_valid_and_not_removed(make_data):
    data = make_data()
    pre = make()
    kept = pre.kept_readings(pre(copy.deepcopy(data))['inputs'])
    for i in range(2):
        assert torch.equal(kept[i, 0], kept_depth(data, i)[1])


@pytest.mark.parametrize('mode', ['metric', 'log', 'inverse'])
def test_interpolation_in_target_units_reads_kept_depth_alone(mode, make_data):
    data = make_data()
    pre = make(depth_target=dict(mode=mode))
    pre.interpolate = True
    batch = pre(copy.deepcopy(data))['inputs']
    changed = copy.deepcopy(data)
    for i in range(2):
        changed['inputs']['depth'][i][0][~kept_depth(data, i)[1]] += 5
    assert torch.equal(batch['interpolation'], pre(changed)['inputs']['interpolation'])
    filled = inverse_distance_fill(batch['depth'], pre.kept_readings(batch))
    to_target = {'metric': lambda d: d, 'log': torch.log, 'inverse': lambda d: 1 / d}[mode]
    torch.testing.assert_close(batch['interpolation'], to_target(filled))


def test_buffers_stay_out_of_checkpoints():
    assert make().state_dict() == {}


def broken(data, key, change):
    data['inputs'][key] = [change(v) for v in data['inputs'][key]]
    return data


def test_errors_say_what_is_wrong(make_data):
    with pytest.raises(ValueError, match=r'24x40.*patch_size=16.*16x32'):
        make(patch_size=16)(make_data())
    with pytest.raises(ValueError, match=r'rgb_mask has 60 patches.*has 3x5'):
        make()(broken(make_data(), 'rgb_mask', lambda m: m.repeat(4)))
    with pytest.raises(TypeError, match=r'depth_mask is torch\.uint8.*True = removed'):
        make()(broken(make_data(), 'depth_mask', torch.Tensor.byte))
    data = make_data()
    del data['inputs']['rgb_mask']
    with pytest.raises(KeyError, match=r"lacks \['rgb_mask'\].*DepthAwareMasking"):
        make()(data)
    data = make_data()
    data['inputs']['img'][1] = data['inputs']['img'][1][:, :16]
    with pytest.raises(ValueError, match=r'differ in the shape of img.*one size'):
        make()(data)
    data = make_data()
    data['inputs']['depth_mask'][1][:] = True
    with pytest.raises(ValueError, match=r'depth_mask keeps \[0, 5\]'):
        make()(data)


@pytest.mark.parametrize('mode', MODES)
def test_relative_depth_goes_with_normalised_targets_only(mode, make_data):
    data = make_data()
    data['data_samples'][1].set_metainfo(dict(depth_kind='relative', depth_path='x/depth/7.png'))
    pre = make(depth_target=dict(mode=mode))
    if mode in ('standardise', 'patch'):
        pre(data)
    else:
        with pytest.raises(ValueError, match=r'x/depth/7\.png: its depth is relative'):
            pre(data)


def test_what_needs_kept_readings_says_so_when_none_are_kept(make_data):
    with pytest.raises(ValueError, match='need kept depth patches'):
        make(depth_target=dict(stats='kept'))(make_data(depth_keep=0))
    pre = make(depth_target=dict(mode='log'))
    pre.interpolate = True
    with pytest.raises(ValueError, match='need kept depth patches'):
        pre(make_data(depth_keep=0))


def test_depth_dropout_gives_no_depth_at_all_and_predicts_all_of_it(make_data):
    data = make_data(batch=64, depth_keep=6, seed=3)
    torch.manual_seed(0)
    pre = make(depth_dropout=0.25)
    batch = pre(copy.deepcopy(data), training=True)['inputs']
    dropped = batch['depth_mask'].all(1)
    assert 8 <= int(dropped.sum()) <= 24
    assert not batch['given'][dropped].any()
    assert torch.equal(batch['given'][~dropped], batch['valid'][~dropped])
    assert not pre.kept_readings(batch)[dropped].any()
    plain = make()(copy.deepcopy(data), training=True)['inputs']
    for key in ('rgb_mask', 'depth_keep', 'target', 'valid'):
        assert torch.equal(batch[key], plain[key])
    assert torch.equal(batch['depth_mask'][~dropped], plain['depth_mask'][~dropped])
    validated = pre(copy.deepcopy(data))['inputs']
    assert torch.equal(validated['depth_mask'], plain['depth_mask'])
    assert torch.equal(validated['given'], plain['valid'])


def test_a_batch_draws_its_ratios(make_data):
    """Between the mask's own and the largest, the same for its frames, of what was kept."""
    data = make_data(batch=3, rgb_keep=15, depth_keep=6)
    pre = make(ratios_up_to=dict(rgb=0.8, depth=1.0))
    torch.manual_seed(0)
    kept = set()
    for _ in range(60):
        batch = pre(copy.deepcopy(data), training=True)['inputs']
        for name in ('rgb', 'depth'):
            mask, own = batch[f'{name}_mask'], torch.stack(data['inputs'][f'{name}_mask'])
            assert (mask | ~own).all()  # nothing comes back
            ids = batch[f'{name}_keep']
            assert not mask.gather(1, ids).any()
            assert (~mask).sum(1).tolist() == [ids.shape[1]] * 3
            kept.add((name, ids.shape[1]))
    assert kept == {('rgb', n) for n in range(3, 16)} | {('depth', n) for n in range(7)}
    validated = pre(copy.deepcopy(data))['inputs']
    assert validated['rgb_keep'].shape == (3, 15)


def test_wrong_ways_to_remove_more(make_data):
    with pytest.raises(ValueError, match=r'depth_dropout=1\.5'):
        make(depth_dropout=1.5)
    with pytest.raises(ValueError, match=r"ratios_up_to=\{'normal': 0\.5\}"):
        make(ratios_up_to=dict(normal=0.5))
    with pytest.raises(ValueError, match='removes 11 of 15'):
        make(ratios_up_to=dict(rgb=0.5))(make_data(rgb_keep=4), training=True)
    for options in (dict(depth_dropout=0.1), dict(ratios_up_to=dict(depth=1.0))):
        with pytest.raises(ValueError, match='need kept depth patches, and depth_dropout'):
            make(depth_target=dict(stats='kept'), **options)(make_data(), training=True)
