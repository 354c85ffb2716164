"""Probes against closed forms, brute force and mmseg's metric, on features that are understood."""

import numpy as np
import pytest
import torch
from mmseg.evaluation import IoUMetric
from scipy.optimize import minimize

from mmmask3d.evaluation import dense_probe
from mmmask3d.evaluation.dense_probe import fit_logistic, fit_ridge, patch_targets, probe
from mmmask3d.evaluation.frozen_features import FrozenFeatures

GRID, SIZE, CLASSES = (3, 4), (24, 32), 3


def generator(seed):
    return torch.Generator().manual_seed(seed)


def labelled(frames, seed, noise=0.1):
    """Features that show the class of their patch, labels constant over patches of 8x8."""
    g = generator(seed)
    classes = torch.randint(0, CLASSES, (frames, *GRID), generator=g)
    code = torch.randn(CLASSES, 6, generator=generator(99))
    features = code[classes] + noise * torch.randn(frames, *GRID, 6, generator=g)
    labels = classes.repeat_interleave(8, 1).repeat_interleave(8, 2)
    valid = torch.rand(frames, *SIZE, generator=g) < 0.8
    return FrozenFeatures(features, list(labels), list(valid), 'labels')


def with_depth(frames, seed, kind='metric', noise=0.0):
    """Log depth is linear in the features, and constant over a frame's patches of 8x8."""
    g = generator(seed)
    features = torch.randn(frames, *GRID, 6, generator=g)
    weights = torch.randn(6, generator=generator(98)) * 0.2
    log = features @ weights + 0.7 + noise * torch.randn(frames, *GRID, generator=g)
    depth = log.exp().repeat_interleave(8, 1).repeat_interleave(8, 2)
    valid = torch.rand(frames, *SIZE, generator=g) < 0.8
    return FrozenFeatures(features, list(depth), list(valid), kind)


@pytest.fixture
def by_patch(monkeypatch):
    """Predictions enlarged without blending, so that what was planted can be met exactly."""
    monkeypatch.setattr(
        dense_probe,
        '_enlarge',
        lambda maps, size: torch.nn.functional.interpolate(maps, size=tuple(size))[0],
    )


@pytest.mark.parametrize('method', ['linear', 'knn'])
def test_labels_that_features_show_are_found(by_patch, method):
    found = probe(labelled(20, 0), labelled(8, 1), method, CLASSES)
    assert found == pytest.approx({'mIoU': 100, 'aAcc': 100})


@pytest.mark.parametrize('method', ['linear', 'knn'])
def test_features_that_show_nothing_find_nothing(method):
    train, test = labelled(20, 0), labelled(20, 1)
    for frames, seed in ((train, 2), (test, 3)):
        frames.features = torch.randn(frames.features.shape, generator=generator(seed))
    assert probe(train, test, method, CLASSES)['aAcc'] < 45  # three classes: chance is 33


def test_depth_that_features_show_is_found(by_patch):
    found = probe(with_depth(20, 0), with_depth(8, 1), 'linear')
    assert found['abs_rel'] < 2e-3
    assert found['delta1'] == 1
    assert probe(with_depth(20, 0), with_depth(8, 1), 'knn')['abs_rel'] < 0.2


@pytest.mark.parametrize('kind', ['metric', 'relative'])
@pytest.mark.parametrize('hole', [0.0, 1e6, float('nan'), -3.0])
def test_what_is_no_reading_changes_nothing(kind, hole):
    results = []
    for value in (0.0, hole):
        sets = [with_depth(10, 0, kind), with_depth(4, 1, kind)]
        for frames in sets:
            frames.targets = [
                torch.where(v, d, torch.tensor(value))
                for d, v in zip(frames.targets, frames.valid, strict=True)
            ]
        results.append(probe(*sets, 'linear'))
    assert results[0] == results[1]


def test_unlabelled_pixels_change_nothing():
    results = []
    for value in (255, 1):
        sets = [labelled(10, 0), labelled(4, 1)]
        for frames in sets:
            frames.targets = [
                torch.where(v, t, value) for t, v in zip(frames.targets, frames.valid, strict=True)
            ]
        results.append(probe(*sets, 'linear', CLASSES))
    assert results[0] == results[1]


def test_scores_are_those_of_mmseg():
    train, test = labelled(10, 0, noise=1.5), labelled(6, 1, noise=1.5)
    found = probe(train, test, 'knn', CLASSES)
    metric = IoUMetric()
    metric.dataset_meta = dict(classes=('a', 'b', 'c'))
    targets, _ = patch_targets(train, CLASSES)
    mean, scale = dense_probe._moments(train.features)
    bank = torch.nn.functional.normalize(((train.features - mean) / scale).flatten(0, 2), dim=-1)
    for features, labels, valid in zip(test.features, test.targets, test.valid, strict=True):
        query = torch.nn.functional.normalize(((features - mean) / scale).flatten(0, 1), dim=-1)
        rows = []
        for q in query:  # one patch after the other, by sorting
            similarity = bank @ q
            nearest = similarity.argsort(descending=True)[:20]
            weight = (similarity[nearest] / 0.07).exp()
            rows.append((weight[:, None] * targets.flatten(0, 2)[nearest]).sum(0) / weight.sum())
        scores = torch.stack(rows).view(*GRID, CLASSES).permute(2, 0, 1)[None]
        scores = torch.nn.functional.interpolate(scores, SIZE, mode='bilinear')
        truth = labels.masked_fill(~valid, 255)[None]
        metric.process(
            {},
            [dict(pred_sem_seg=dict(data=scores.argmax(1)), gt_sem_seg=dict(data=truth))],
        )
    expected = metric.evaluate(6)
    assert found['mIoU'] == pytest.approx(expected['mIoU'], abs=0.01)  # mmseg rounds
    assert found['aAcc'] == pytest.approx(expected['aAcc'], abs=0.01)


def test_ridge_is_the_minimum():
    g = generator(4)
    x, t, w = (torch.randn(50, 4, generator=g), torch.randn(50, 1, generator=g),
               torch.rand(50, generator=g))  # fmt: skip
    predict = fit_ridge(x, t, w, 0.1)
    b = predict(torch.zeros(1, 4))[0, 0]
    a = predict(torch.eye(4))[:, 0] - b

    def objective(p):
        residual = x.double().numpy() @ p[:4] + p[4] - t[:, 0].double().numpy()
        share = (w / w.sum()).double().numpy()
        return (share * residual**2).sum() + 0.1 * (p[:4] ** 2).sum()

    best = minimize(objective, np.zeros(5), tol=1e-12).x
    np.testing.assert_allclose([*a.tolist(), float(b)], best, atol=1e-4)


def test_logistic_is_the_minimum():
    g = generator(5)
    x, w = torch.randn(60, 3, generator=g), torch.rand(60, generator=g)
    t = torch.rand(60, CLASSES, generator=g).softmax(1)
    predict = fit_logistic(x, t, w, 0.01)
    b = predict(torch.zeros(1, 3))[0]
    a = predict(torch.eye(3)) - b

    def objective(p):
        logits = torch.as_tensor(x.double().numpy() @ p[:9].reshape(3, 3) + p[9:])
        loss = -(t * logits.log_softmax(1)).sum(1) * w / w.sum()
        return float(loss.sum() + 0.01 / 2 * (p[:9] ** 2).sum())

    ours = objective(np.concatenate([a.flatten().double().numpy(), b.double().numpy()]))
    assert ours == pytest.approx(minimize(objective, np.zeros(12)).fun, abs=1e-5)


def test_the_penalty_by_hand():
    """What a fit predicts here depends on the penalty alone, so each error is known."""
    low, high = dense_probe.PENALTIES[0], dense_probe.PENALTIES[1]
    predicted = dict.fromkeys(dense_probe.PENALTIES, 50.0) | {low: 0.0, high: 1.0}
    fits = []

    def fit(x, t, w, penalty):
        fits.append((penalty, x[:, 0].tolist(), t[:, 0].tolist(), w.tolist()))
        return lambda features: features[..., :1] * 0 + predicted[penalty]

    # Six frames of three patches; the fifth is held out: errors 0 and 9, or 1 and 4.
    features = torch.arange(18.0).reshape(6, 1, 3, 1)
    targets = torch.zeros(6, 1, 3, 1)
    targets[4, 0, :, 0] = torch.tensor([0.0, 3.0, 99.0])
    weights = torch.full((6, 1, 3), 0.5)
    weights[0, 0, 1] = 0  # no target: in no fit
    for much, little, best in ((0.9, 0.1, low), (0.1, 0.9, high)):
        weights[4, 0] = torch.tensor([much, little, 0])
        fits.clear()
        dense_probe._choose_penalty(fit, features, targets, weights, dense_probe._squared_error)
        assert fits[-1][0] == best
        assert [penalty for penalty, *_ in fits[:-1]] == list(dense_probe.PENALTIES)
        # Chosen without the fifth frame, fitted at last on all of them.
        rest = [i for i in range(18) if i != 1 and not 12 <= i < 15]
        assert all(x == rest for _, x, _, _ in fits[:-1])
        assert fits[-1][1] == sorted([*rest, 12, 13])
        assert fits[-1][2][rest.index(11) + 1 :][:2] == [0.0, 3.0]
        assert fits[-1][3][rest.index(11) + 1 :][:2] == pytest.approx([much, little])
    # Without a frame to hold out, or a target in it, the middle one.
    middle = dense_probe.PENALTIES[2]
    for count, held in ((4, 1.0), (6, 0.0)):
        fits.clear()
        weights[4] *= held
        some = (features[:count], targets[:count], weights[:count])
        dense_probe._choose_penalty(fit, *some, dense_probe._squared_error)
        assert [penalty for penalty, *_ in fits] == [middle]


def test_patch_targets_by_hand():
    labels = torch.tensor([[0, 0, 1, 1], [0, 2, 1, 1]])
    valid = torch.ones(2, 4, dtype=torch.bool)
    valid[0, 0] = False
    valid[:, 2:] = False
    frames = FrozenFeatures(torch.zeros(1, 1, 2, 1), [labels], [valid], 'labels')
    targets, weights = patch_targets(frames, 3)
    torch.testing.assert_close(targets[0, 0, 0], torch.tensor([2 / 3, 0, 1 / 3]))
    assert targets[0, 0, 1].tolist() == [0, 0, 0]
    assert weights.flatten().tolist() == [0.75, 0]


def test_wrong_calls():
    with pytest.raises(ValueError, match='fitted on labels but scored on metric'):
        probe(labelled(2, 0), with_depth(2, 0), 'linear', CLASSES)
    with pytest.raises(ValueError, match="got 'tree'"):
        probe(labelled(2, 0), labelled(2, 0), 'tree', CLASSES)
    empty = labelled(2, 0)
    empty.valid = [torch.zeros_like(v) for v in empty.valid]
    with pytest.raises(ValueError, match='no labelled pixel'):
        probe(empty, labelled(2, 0), 'linear', CLASSES)
