"""Probes against closed forms, brute force and mmseg's metric, on features that are understood."""

import numpy as np
import pytest
import torch
from mmseg.evaluation import IoUMetric
from sklearn.linear_model import LogisticRegression, Ridge

from mmmask3d.evaluation import dense_probe
from mmmask3d.evaluation.bootstrap import means
from mmmask3d.evaluation.dense_probe import Moments, fit_logistic, fit_probe, patch_targets
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


def probe(train, test, method, num_classes=None):
    return means(fit_probe(train, method, num_classes).score(test, num_classes))


@pytest.fixture
def by_patch(monkeypatch):
    """Predictions enlarged without blending, so that what was planted can be met exactly."""
    monkeypatch.setattr(
        dense_probe,
        'enlarge',
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


def test_ridge_is_that_of_scikit_learn():
    """For every penalty, from sums that were added in parts."""
    g = generator(4)
    x, t = torch.randn(500, 7, generator=g) + 3, torch.randn(500, 3, generator=g)
    t, w = t + x[:, :3], torch.rand(500, generator=g) + 0.01
    parts = [Moments(7, 3), Moments(7, 3)]
    parts[0].add(x[:200], t[:200], w[:200])
    parts[1].add(x[200:], t[200:], w[200:])
    penalties = (1e-4, 0.1, 3)
    fits = (parts[0] + parts[1]).fits(penalties)
    for penalty, (a, b) in zip(penalties, fits, strict=True):
        theirs = Ridge(alpha=penalty).fit(x.double(), t.double(), w.double() / float(w.sum()))
        np.testing.assert_allclose(a.T, theirs.coef_, atol=1e-5)
        np.testing.assert_allclose(b, theirs.intercept_, atol=1e-5)
        squared = np.square(theirs.predict(x[200:].double()) - t[200:].numpy()).sum(1)
        assert parts[1].error(a, b) == pytest.approx((squared * w[200:].numpy()).sum(), rel=1e-5)


def test_logistic_is_that_of_scikit_learn():
    """Also when it starts from the fit with another penalty."""
    g = generator(5)
    x, w = torch.randn(300, 4, generator=g), torch.rand(300, generator=g)
    classes = (x[:, :CLASSES] + torch.randn(300, CLASSES, generator=g)).argmax(1)
    shares = torch.nn.functional.one_hot(classes, CLASSES).float()
    theirs = LogisticRegression(C=1 / 0.01, tol=1e-8, max_iter=1000)
    theirs.fit(x.double().numpy(), classes, w.double().numpy() / float(w.sum()))
    other = fit_logistic(x, shares, w, 1.0)
    for start in (None, other):
        a, b = fit_logistic(x, shares, w, 0.01, start)
        ours = (x @ a + b).softmax(1)
        expected = theirs.predict_proba(x.double().numpy())
        np.testing.assert_allclose(ours, expected, atol=5e-3)
    # Shares: half of each class is what two half patches of one class each are.
    doubled = fit_logistic(x.repeat(2, 1), torch.cat((shares, shares.roll(1, 1))), w.repeat(2), 0.1)
    mixed = fit_logistic(x, (shares + shares.roll(1, 1)) / 2, w, 0.1)
    np.testing.assert_allclose((x @ doubled[0]).softmax(1), (x @ mixed[0]).softmax(1), atol=5e-3)


@pytest.mark.parametrize('kind', ['labels', 'metric'])
def test_the_penalty_is_the_best_on_every_fifth_frame(monkeypatch, kind):
    """Which frames are held out, chosen by scikit-learn, and the last fit is on all."""
    frames = labelled(15, 0, noise=2) if kind == 'labels' else with_depth(15, 0, noise=1)
    frames.features = torch.cat((frames.features, torch.randn(15, *GRID, 80)), -1)  # overfits
    fitted = fit_probe(frames, 'linear', CLASSES)
    targets, weights = patch_targets(frames, CLASSES)
    x = ((frames.features - fitted.mean) / fitted.scale).double()
    held = torch.arange(15) % 5 == 4

    def fit(chosen, penalty):
        x_, t, w = (v[chosen].flatten(0, 2) for v in (x, targets, weights[..., None]))
        if kind == 'metric':
            model = Ridge(alpha=penalty).fit(x_, t, w[:, 0].double() / w.sum())
            return lambda y: torch.tensor(model.predict(y)).view(len(y), -1)
        a, b = fit_logistic(x_.float(), t, w[:, 0], penalty)
        return lambda y: y.float() @ a + b

    def loss(predict):
        found, t, w = predict(x[held].flatten(0, 2)), targets[held].flatten(0, 2), weights[held]
        if kind == 'metric':
            each = (found - t).square().sum(1)
        else:
            each = -(t * found.log_softmax(1)).sum(1)
        return float((each * w.flatten()).sum())

    best = min(dense_probe.PENALTIES, key=lambda p: loss(fit(~held, p)))
    expected = fit(held | ~held, best)(x.flatten(0, 2)).float()
    ours = fitted.predict(x.float()).flatten(0, 2)
    worst = fit(held | ~held, dense_probe.PENALTIES[0])(x.flatten(0, 2)).float()
    assert best != dense_probe.PENALTIES[0]
    assert (ours - expected).abs().mean() < 0.02 * (worst - expected).abs().mean()


def test_normals_that_features_show_are_found(by_patch):
    g = generator(7)
    normals = torch.nn.functional.normalize(torch.randn(12, *GRID, 3, generator=g), dim=-1)
    features = normals @ torch.randn(3, 6, generator=g) + 2
    pixels = normals.permute(0, 3, 1, 2).repeat_interleave(8, 2).repeat_interleave(8, 3)
    valid = list(torch.rand(12, *SIZE, generator=g) < 0.8)
    sets = [
        FrozenFeatures(features[part], list(pixels[part]), valid[part], 'normals')
        for part in (slice(8), slice(8, 12))
    ]
    found = probe(*sets, 'linear')
    assert found['mean'] < 1
    assert found['a1'] == 100


@pytest.mark.parametrize('frames', [labelled, with_depth])
def test_half_precision_of_features_hardly_moves_a_figure(frames):
    """Also where a channel's mean is ten times its spread."""
    sets = [frames(20, 0, noise=0.5), frames(8, 1, noise=0.5)]
    for one in sets:
        one.features[..., 0] += 10
    exact = probe(*sets, 'linear', CLASSES)
    for one in sets:
        one.features = one.features.half()
    assert probe(*sets, 'linear', CLASSES) == pytest.approx(exact, rel=0.01)


def test_patches_are_bounded_and_evenly_thinned(monkeypatch):
    monkeypatch.setattr(dense_probe, 'MAX_PATCHES', 30)
    monkeypatch.setattr(dense_probe, 'MAX_BANK', 30)
    seen = []
    plain = dense_probe.fit_logistic
    monkeypatch.setattr(
        dense_probe, 'fit_logistic', lambda x, *rest: seen.append(len(x)) or plain(x, *rest)
    )
    fit_probe(labelled(20, 0), 'linear', CLASSES)
    assert set(seen) == {30}
    assert probe(labelled(20, 0), labelled(8, 1), 'knn', CLASSES)['aAcc'] > 50


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
