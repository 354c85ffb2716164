"""MaskedDepthMetric against a plain numpy loop, and the rules of like with like."""

import math

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.structures import BaseDataElement

from mmmask3d.evaluation import MaskedDepthMetric, linear_fill
from mmmask3d.evaluation.masked_depth_metric import format_table
from mmmask3d.models.patches import patch_mask_to_pixels
from mmmask3d.registry import METRICS

GRID, PATCH = (3, 4), 4
SIZE = (GRID[0] * PATCH, GRID[1] * PATCH)


def pixels_of(mask):
    return patch_mask_to_pixels(mask[None], PATCH, GRID)[0, 0]


def make_sample(seed, kind='metric', removed=9, noise=0.3, **fields):
    rng = np.random.default_rng(seed)
    depth = rng.uniform(1.0, 5.0, SIZE).astype(np.float32)
    valid = rng.uniform(size=SIZE) < 0.8
    mask = np.zeros(12, dtype=bool)
    mask[rng.permutation(12)[:removed]] = True
    prediction = (depth + noise * rng.normal(size=SIZE)).astype(np.float32)
    sample = {
        'depth': torch.from_numpy(np.where(valid, depth, 0).astype(np.float32)),
        'valid': torch.from_numpy(valid),
        'depth_mask': torch.from_numpy(mask),
        'pred_depth': torch.from_numpy(prediction),
        'pred_target': torch.from_numpy((prediction - 3) / 2),
        'grid': GRID,
        'patch_size': PATCH,
        'depth_kind': kind,
        'target_mode': 'standardise',
        'frame': f'frame{seed}',
    }
    sample.update(fields)
    return {k: v for k, v in sample.items() if v is not None}


def run(samples, **kwargs):
    metric = MaskedDepthMetric(**kwargs)
    metric.process(None, samples)
    return metric.compute_metrics(metric.results)


def loop_figures(prediction, sample):
    """RMSE, AbsRel, delta1 and standardised RMSE of one frame, pixel by pixel."""
    squares, relative, close, readings = [], [], [], []
    for y in range(SIZE[0]):
        for x in range(SIZE[1]):
            if not sample['valid'][y, x]:
                continue
            d = float(sample['depth'][y, x])
            readings.append(d)
            if sample['depth_mask'][(y // PATCH) * GRID[1] + x // PATCH]:
                p = float(prediction[y, x])
                squares.append((p - d) ** 2)
                relative.append(abs(p - d) / d)
                close.append(p > 0 and max(p / d, d / p) < 1.25)
    rmse = math.sqrt(np.mean(squares))
    return rmse, np.mean(relative), np.mean(close), rmse / np.std(readings)


def baseline_maps(sample):
    removed = np.kron(sample['depth_mask'].numpy().reshape(GRID), np.ones((PATCH, PATCH))) > 0
    known = sample['valid'] & ~torch.from_numpy(removed)
    filled = linear_fill(sample['depth'].double()[None, None], known[None, None])[0, 0]
    return filled, torch.full(SIZE, float(sample['depth'][known].double().mean()))


def test_matches_a_loop_over_pixels_for_model_and_baselines():
    samples = [make_sample(seed) for seed in range(5)]
    got = run(samples)
    names = ['rmse', 'abs_rel', 'delta1', 'std_rmse']
    for prefix, choose in [
        ('', lambda s: s['pred_depth']),
        ('interp_', lambda s: baseline_maps(s)[0]),
        ('mean_', lambda s: baseline_maps(s)[1]),
    ]:
        expected = np.mean([loop_figures(choose(s), s) for s in samples], axis=0)
        np.testing.assert_allclose([got[prefix + n] for n in names], expected, rtol=1e-6)
    wins = [
        loop_figures(s['pred_depth'], s)[0] < loop_figures(baseline_maps(s)[0], s)[0]
        for s in samples
    ]
    assert got['beats_interp'] == np.mean(wins)
    assert (got['frames_metric'], got['frames_relative'], got['frames_skipped']) == (5, 0, 0)
    assert not any(name.startswith('aligned') for name in got)


def test_perfect_prediction():
    got = run([make_sample(s, noise=0.0) for s in range(3)])
    assert (got['rmse'], got['abs_rel'], got['delta1'], got['std_rmse']) == (0, 0, 1, 0)
    assert got['interp_rmse'] > 0
    assert got['beats_interp'] == 1


def test_relative_frames_never_enter_metric_figures():
    metric_frames = [make_sample(s) for s in range(3)]
    relative = [make_sample(s, kind='relative', noise=2.0) for s in range(10, 14)]
    alone, mixed = run(metric_frames), run(metric_frames + relative)
    for name in ('rmse', 'abs_rel', 'delta1', 'interp_rmse', 'mean_rmse'):
        assert mixed[name] == pytest.approx(alone[name], rel=1e-12)
    assert mixed['std_rmse'] > alone['std_rmse']
    assert (mixed['frames_metric'], mixed['frames_relative']) == (3, 4)
    only_relative = run(relative)
    assert 'std_rmse' in only_relative
    assert 'rmse' not in only_relative


def test_std_rmse_has_no_unit():
    sample = make_sample(0, kind='relative')
    scaled = dict(sample, depth=sample['depth'] * 255, pred_depth=sample['pred_depth'] * 255)
    a, b = run([sample]), run([scaled])
    for name in ('std_rmse', 'interp_std_rmse', 'mean_std_rmse'):
        assert a[name] == pytest.approx(b[name], rel=1e-6)


@pytest.mark.parametrize('garbage', [1e6, math.nan, math.inf])
@pytest.mark.parametrize('removed', [9, 12])
def test_invalid_pixels_change_nothing(garbage, removed):
    clean = [make_sample(s, removed=removed) for s in range(3)]
    dirty = [dict(s, depth=s['depth'].masked_fill(~s['valid'], garbage)) for s in clean]
    assert run(clean) == run(dirty)


def test_predictions_on_kept_patches_change_nothing():
    sample = make_sample(0)
    removed = pixels_of(sample['depth_mask'])
    other = dict(sample, pred_depth=sample['pred_depth'].masked_fill(~removed, math.nan))
    assert run([sample]) == run([other])


def test_baselines_see_kept_readings_only():
    sample = make_sample(0)
    removed = pixels_of(sample['depth_mask'])
    moved = dict(sample, depth=torch.where(removed & sample['valid'], 50.0, sample['depth']))
    kept_mean = float(sample['depth'][sample['valid'] & ~removed].mean())
    assert run([moved])['mean_rmse'] == pytest.approx(50 - kept_mean, rel=1e-6)


def test_nan_prediction_shows_and_negative_depth_is_never_close():
    sample = make_sample(0)
    assert math.isnan(run([dict(sample, pred_depth=sample['pred_depth'] * math.nan)])['rmse'])
    assert run([dict(sample, pred_depth=-sample['depth'])])['delta1'] == 0


@pytest.mark.parametrize('mode', ['standardise', 'log', 'inverse'])
def test_without_depth_input_the_target_is_aligned_and_named_so(mode):
    encode = {'standardise': lambda z: z, 'log': torch.log, 'inverse': lambda z: 1 / z}[mode]
    samples = []
    for seed in range(3):
        sample = make_sample(seed, removed=12, pred_depth=None, target_mode=mode)
        safe = torch.where(sample['valid'], sample['depth'], 1.0).double()
        sample['pred_target'] = encode(safe) * (seed + 2) - 7
        samples.append(sample)
    got = run(samples)
    assert got['aligned_rmse'] == pytest.approx(0, abs=1e-9)
    assert got['aligned_delta1'] == 1
    spread = [float(s['depth'][s['valid']].double().std(correction=0)) for s in samples]
    assert got['aligned_mean_rmse'] == pytest.approx(np.mean(spread), rel=1e-9)
    assert got['aligned_mean_std_rmse'] == pytest.approx(1, rel=1e-9)
    assert not {'rmse', 'std_rmse', 'interp_rmse', 'mean_rmse', 'beats_interp'} & set(got)


def test_kept_patches_that_are_no_input_are_not_held_against_the_network():
    sample = make_sample(0, depth_input=False)
    assert not sample['depth_mask'].all()
    got = run([sample])
    assert 'aligned_rmse' in got
    assert not {'rmse', 'interp_rmse', 'mean_rmse', 'beats_interp'} & got.keys()


def test_aligned_pred_depth_matches_lstsq():
    sample = make_sample(0, removed=12)
    valid = sample['valid'].numpy()
    p, d = (sample[k].numpy().astype(np.float64)[valid] for k in ('pred_depth', 'depth'))
    design = np.stack([p, np.ones_like(p)], axis=1)
    fitted = design @ np.linalg.lstsq(design, d, rcond=None)[0]
    assert run([sample])['aligned_rmse'] == pytest.approx(np.sqrt(np.mean((fitted - d) ** 2)))


def test_patch_target_is_aligned_per_patch():
    sample = make_sample(0, pred_depth=None, target_mode='patch')
    scale = torch.from_numpy(np.kron(np.arange(1, 13).reshape(GRID), np.ones((PATCH, PATCH))))
    sample['pred_target'] = sample['depth'].double() / scale - scale
    got = run([sample])
    assert got['aligned_rmse'] == pytest.approx(0, abs=1e-9)
    removed = pixels_of(sample['depth_mask'])
    residuals = []
    for index in range(12):
        cell = torch.zeros(12, dtype=torch.bool)
        cell[index] = True
        pixels = pixels_of(cell) & removed & sample['valid']
        values = sample['depth'][pixels].double().numpy()
        residuals.extend(values - values.mean() if values.size else [])
    expected = np.sqrt(np.mean(np.square(residuals)))
    assert got['aligned_mean_rmse'] == pytest.approx(expected, rel=1e-9)


def test_frames_with_nothing_to_compare_are_counted():
    nothing_removed = make_sample(0, removed=0)
    all_invalid = make_sample(1, valid=torch.zeros(SIZE, dtype=torch.bool))
    flat = make_sample(2)
    flat['depth'] = torch.where(flat['valid'], 2.5, 0.0)
    no_kept_reading = make_sample(3)
    removed = pixels_of(no_kept_reading['depth_mask'])
    no_kept_reading['valid'] = no_kept_reading['valid'] & removed
    odd = [nothing_removed, all_invalid, flat, no_kept_reading]
    good = make_sample(4)
    got, alone = run([*odd, good]), run([good])
    assert got.pop('frames_skipped') == 4
    assert alone.pop('frames_skipped') == 0
    assert got == alone
    assert run(odd) == {'frames_metric': 0, 'frames_relative': 0, 'frames_skipped': 4}


def test_every_sample_leaves_one_record():
    """collect_results cuts the list to the size of the data set: skipped frames must count."""
    metric = MaskedDepthMetric()
    metric.process(None, [make_sample(0), make_sample(1, removed=0), make_sample(2)])
    assert len(metric.results) == 3
    numbers = [
        v
        for r in metric.results
        for part in r.values()
        if isinstance(part, dict)
        for v in part.values()
    ]
    assert numbers
    assert all(isinstance(v, float) for v in numbers)


def test_through_the_evaluator_with_data_samples():
    samples = []
    for seed in range(4):
        fields = make_sample(seed)
        meta = {k: fields.pop(k) for k in list(fields) if not torch.is_tensor(fields[k])}
        samples.append(BaseDataElement(metainfo=meta, **fields))
    evaluator = Evaluator({'type': 'mmmask3d.MaskedDepthMetric'})
    evaluator.process(samples[:3])
    evaluator.process(samples[3:])
    got = evaluator.evaluate(4)
    plain = run([make_sample(seed) for seed in range(4)])
    assert got == {f'masked_depth/{name}': value for name, value in plain.items()}
    assert METRICS.get('MaskedDepthMetric') is MaskedDepthMetric


def test_baselines_are_interpolated_once_per_frame_and_mask(monkeypatch):
    from mmmask3d.evaluation import masked_depth_metric as module

    calls = []

    def counted(*args):
        calls.append(1)
        return linear_fill(*args)

    monkeypatch.setattr(module, 'linear_fill', counted)
    metric = MaskedDepthMetric()
    first = [make_sample(0), make_sample(1)]
    metric.process(None, first)
    metric.process(None, [dict(s, pred_depth=s['pred_depth'] + 1) for s in first])
    assert len(calls) == 2
    assert metric.results[0]['interp'] == metric.results[2]['interp']
    assert metric.results[0]['model'] != metric.results[2]['model']
    other_mask = dict(first[0], depth_mask=~first[0]['depth_mask'])
    metric.process(None, [other_mask])
    assert len(calls) == 3
    assert metric.results[4]['interp'] != metric.results[0]['interp']


def test_table_shows_model_and_baselines():
    text = format_table(run([make_sample(s, noise=0.0) for s in range(2)]))
    rmse_line = next(line for line in text.splitlines() if line.startswith('RMSE [m]'))
    assert '0.0000*' in rmse_line
    assert rmse_line.count('.') == 3
    assert 'interpolation' in text
    assert '2 metric, 0 relative, 0 skipped' in text
    assert 'better than interpolation on 100% of the frames' in text
    aligned = format_table(run([make_sample(0, removed=12)]))
    assert 'aligned to the ground truth' in aligned
    assert 'interpolation' not in aligned


def test_errors_name_the_frame():
    sample = make_sample(7)
    with pytest.raises(ValueError, match=r'frame7.*depth_kind'):
        run([dict(sample, depth_kind='disparity')])
    with pytest.raises(ValueError, match=r'frame7.*depth_invalid'):
        run([dict(sample, valid=torch.ones(SIZE, dtype=torch.bool))])
