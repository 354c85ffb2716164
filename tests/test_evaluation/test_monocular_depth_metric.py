"""Figures of monocular depth against a plain computation, and what the parent gets wrong."""

import math

import numpy as np
import pytest
import torch

from mmmask3d.evaluation.monocular_depth_metric import MonocularDepthMetric


def sample(truth, prediction):
    return {
        'gt_depth_map': {'data': torch.as_tensor(truth, dtype=torch.float32)[None]},
        'pred_depth_map': {'data': torch.as_tensor(prediction, dtype=torch.float32)[None]},
    }


def by_hand(truth, prediction, low=1e-3, high=10.0):
    keep = (truth > low) & (truth < high)
    t, p = truth[keep].astype(float), np.clip(prediction[keep].astype(float), low, high)
    ratio, log = np.maximum(t / p, p / t), np.log(p) - np.log(t)
    return {
        'd1': (ratio < 1.25).mean(),
        'd2': (ratio < 1.25**2).mean(),
        'd3': (ratio < 1.25**3).mean(),
        'abs_rel': (abs(p - t) / t).mean(),
        'sq_rel': ((p - t) ** 2 / t).mean(),
        'rmse': math.sqrt(((p - t) ** 2).mean()),
        'rmse_log': math.sqrt((log**2).mean()),
        'log10': abs(np.log10(p) - np.log10(t)).mean(),
        'silog': math.sqrt((log**2).mean() - 0.5 * log.mean() ** 2),
    }


@pytest.fixture
def frames():
    rng = np.random.default_rng(0)
    truth = rng.uniform(0.5, 12, (3, 20, 30))
    truth[rng.random(truth.shape) < 0.3] = 0
    prediction = truth * rng.uniform(0.7, 1.5, truth.shape) + rng.normal(0, 0.5, truth.shape)
    assert (prediction < 0).any()
    return truth.astype(np.float32), prediction.astype(np.float32)


def evaluate(metric, truths, predictions):
    for truth, prediction in zip(truths, predictions, strict=True):
        metric.process({}, [sample(truth, prediction)])
    return metric.evaluate(len(truths))


def test_figures_are_means_over_frames(frames):
    found = evaluate(MonocularDepthMetric(), *frames)
    expected = [by_hand(t, p) for t, p in zip(*frames, strict=True)]
    for name in expected[0]:
        mean = np.mean([e[name] for e in expected])
        assert found[name] == pytest.approx(mean, rel=1e-4), name


HOLES = [(hole, 10.0) for hole in (0.0, -1.0, math.nan, math.inf, 11.0)]
HOLES += [(hole, math.inf) for hole in (0.0, -1.0, math.nan, math.inf)]


@pytest.mark.parametrize(('hole', 'farthest'), HOLES)
def test_invalid_pixels_change_nothing(frames, hole, farthest):
    truths, predictions = frames
    changed = np.where(truths == 0, np.float32(hole), truths)
    found = evaluate(MonocularDepthMetric(max_depth_eval=farthest), changed, predictions)
    expected = evaluate(MonocularDepthMetric(max_depth_eval=farthest), truths, predictions)
    assert found == expected
    assert math.isfinite(found['rmse'])


def test_a_frame_without_a_reading_is_left_out(frames, warnings_logged_by_mmengine):
    truths, predictions = frames
    truths = truths.copy()
    truths[1] = 0
    found = evaluate(MonocularDepthMetric(), truths, predictions)
    expected = np.mean([by_hand(truths[i], predictions[i])['rmse'] for i in (0, 2)])
    assert found['rmse'] == pytest.approx(expected, rel=1e-4)
    assert '1 of 3 frames have no valid pixel' in warnings_logged_by_mmengine[-1]
    assert math.isnan(evaluate(MonocularDepthMetric(), truths[1:2], predictions[1:2])['rmse'])


def test_eigen_crop():
    truth = np.full((480, 640), 2.0, np.float32)
    prediction = truth.copy()
    prediction[:45], prediction[471:], prediction[:, :41], prediction[:, 601:] = 9, 9, 9, 9
    metric = MonocularDepthMetric(crop_type='nyu_crop')
    found = evaluate(metric, truth[None], prediction[None])
    assert (found['rmse'], found['d1']) == (0.0, 1.0)
    prediction[45, 41] = 3
    rmse = evaluate(metric, truth[None], prediction[None])['rmse']
    assert rmse == pytest.approx(math.sqrt(1 / (426 * 560)), rel=1e-4)
    with pytest.raises(ValueError, match='480x640, found'):
        metric.process({}, [sample(truth[:240, :320], truth[:240, :320])])


def test_wrong_settings():
    with pytest.raises(ValueError, match='min_depth_eval < max_depth_eval'):
        MonocularDepthMetric(min_depth_eval=3, max_depth_eval=2)
