"""How much of labels and depth can be read off frozen features: linear maps and neighbours.

Both are fitted on patches and scored on pixels: what is predicted for the patches is enlarged
bilinearly to the size of the target. Nothing is drawn at random, so a figure belongs to an
encoder and its data alone. Linear probes on dense features and weighted k-NN follow DINO and
DINOv2 (arXiv 2104.14294, 2304.07193) in spirit; the closed form, the patch targets and the choice
of the penalty are ours.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from mmmask3d.evaluation.frozen_features import FrozenFeatures
from mmmask3d.evaluation.masked_depth_metric import depth_figures

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)
"""L2 penalties that are tried, per patch, on features of unit variance."""
NEIGHBOURS, TEMPERATURE = 20, 0.07
"""Of the weighted k-NN, as in DINO."""
_HELD_OUT = 5  # one frame in five of the training frames chooses the penalty
_MAX_PATCHES = 200_000  # of the training set; evenly thinned out beyond
_QUERIES = 1024  # patches compared with the whole bank at a time

Predictor = Callable[[Tensor], Tensor]


def probe(
    train: FrozenFeatures, test: FrozenFeatures, method: str, num_classes: int | None = None
) -> dict[str, float]:
    """Fit on some frames and score on others.

    Args:
        train: frames to fit on.
        test: frames to score on.
        method: 'linear' (logistic regression for labels, ridge regression for depth) or 'knn'.
        num_classes: of labels.

    Returns:
        Labels: ``mIoU`` and ``aAcc`` in percent, as mmseg's ``IoUMetric``. Depth in metres (the
        logarithm is what is fitted): ``rmse``, ``abs_rel``, ``delta1`` and ``std_rmse``. Relative
        depth (each frame standardised over its readings): ``std_rmse``. Means over frames.

    Raises:
        ValueError: the two sets differ in kind, the method is unknown, or nothing is labelled.
    """
    if train.kind != test.kind:
        raise ValueError(f'fitted on {train.kind} but scored on {test.kind}.')
    if method not in ('linear', 'knn'):
        raise ValueError(f"method must be 'linear' or 'knn', got {method!r}.")
    if train.kind == 'labels' and not num_classes:
        raise ValueError('probing labels needs num_classes.')
    targets, weights = patch_targets(train, num_classes)
    mean, scale = _moments(train.features)

    def standardise(features: Tensor) -> Tensor:
        return (features - mean) / scale

    features = standardise(train.features)
    if method == 'knn':
        keep = _thin(weights)
        predict = _neighbours(_flat(features)[keep], _flat(targets)[keep])
    elif train.kind == 'labels':
        predict = _choose_penalty(fit_logistic, features, targets, weights, _cross_entropy)
    else:
        predict = _choose_penalty(fit_ridge, features, targets, weights, _squared_error)
    maps = (predict(standardise(f)).permute(2, 0, 1)[None] for f in test.features)
    if train.kind == 'labels':
        return _score_labels(maps, test, num_classes)
    return _score_depth(maps, test)


def patch_targets(frames: FrozenFeatures, num_classes: int | None = None) -> tuple[Tensor, Tensor]:
    """Sum up the pixels of each patch.

    Returns:
        Targets ``(F, h, w, K)``: shares of the classes among the labelled pixels, or (K = 1) the
        mean over the readings of log depth or of standardised relative depth. Weights
        ``(F, h, w)``: share of labelled pixels or readings; targets are 0 where it is 0.
    """
    grid = frames.features.shape[1:3]
    targets, weights = [], []
    for target, valid in zip(frames.targets, frames.valid, strict=True):
        if frames.kind == 'labels':
            values = F.one_hot(target.masked_fill(~valid, 0).long(), num_classes).permute(2, 0, 1)
        else:
            values = _to_fit(target, valid, frames.kind)[None]
        mask = valid[None].float()
        share = F.adaptive_avg_pool2d(mask, grid)
        total = F.adaptive_avg_pool2d(torch.where(valid, values.float(), 0), grid)
        targets.append((total / share.clamp(min=1e-6)).permute(1, 2, 0))
        weights.append(share[0])
    return torch.stack(targets), torch.stack(weights)


def _to_fit(depth: Tensor, valid: Tensor, kind: str) -> Tensor:
    """Depth in the unit that is fitted; anything where not valid."""
    if kind == 'metric':
        return torch.where(valid, depth, 1.0).log()
    readings = depth[valid].double()
    if readings.numel() < 2 or readings.std() == 0:
        return torch.zeros_like(depth)
    return ((depth - readings.mean()) / readings.std(correction=0)).float()


def _moments(features: Tensor) -> tuple[Tensor, Tensor]:
    flat = features.flatten(0, -2)
    return flat.mean(0), flat.std(0).clamp(min=1e-6)


def _flat(values: Tensor) -> Tensor:
    return values.flatten(0, 2)


def _thin(weights: Tensor) -> Tensor:
    """Indices of at most ``_MAX_PATCHES`` patches with a target, evenly spread."""
    known = weights.flatten().nonzero().squeeze(1)
    if not known.numel():
        raise ValueError('no labelled pixel and no depth reading in the frames to fit on.')
    if known.numel() > _MAX_PATCHES:
        known = known[torch.linspace(0, known.numel() - 1, _MAX_PATCHES).long()]
    return known


def _choose_penalty(
    fit: Callable[[Tensor, Tensor, Tensor, float], Predictor],
    features: Tensor,
    targets: Tensor,
    weights: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor],
) -> Predictor:
    """Fit with the penalty that does best on every fifth frame, which it was not fitted on."""
    held_out = torch.zeros(len(features), dtype=torch.bool)
    held_out[_HELD_OUT - 1 :: _HELD_OUT] = True
    best = PENALTIES[len(PENALTIES) // 2]
    if held_out.any() and weights[held_out].any() and weights[~held_out].any():
        keep, other = _thin(weights[~held_out]), _thin(weights[held_out])
        x, t, w = (_flat(v[~held_out])[keep] for v in (features, targets, weights[..., None]))
        xo, to, wo = (_flat(v[held_out])[other] for v in (features, targets, weights[..., None]))
        errors = {
            penalty: float((loss(fit(x, t, w[:, 0], penalty)(xo), to) * wo[:, 0]).sum())
            for penalty in PENALTIES
        }
        best = min(errors, key=errors.get)
    keep = _thin(weights)
    x, t, w = (_flat(v)[keep] for v in (features, targets, weights[..., None]))
    return fit(x, t, w[:, 0], best)


def _cross_entropy(logits: Tensor, shares: Tensor) -> Tensor:
    return -(shares * logits.log_softmax(-1)).sum(-1)


def _squared_error(predicted: Tensor, target: Tensor) -> Tensor:
    return (predicted - target).square().sum(-1)


def fit_ridge(x: Tensor, targets: Tensor, weights: Tensor, penalty: float) -> Predictor:
    """Weighted ridge regression with an unpenalised intercept, in closed form.

    Minimises ``sum(w (x a + b - t)^2) / sum(w) + penalty |a|^2``.

    Args:
        x: ``(N, C)``.
        targets: ``(N, K)``.
        weights: ``(N,)``.
        penalty: of the squared coefficients.
    """
    x64, t64 = x.double(), targets.double()
    w = (weights / weights.sum()).double()[:, None]
    x_mean, t_mean = (w * x64).sum(0), (w * t64).sum(0)
    centred = x64 - x_mean
    normal = centred.T @ (w * centred)
    normal.diagonal().add_(penalty)
    coefficients = torch.linalg.solve(normal, centred.T @ (w * (t64 - t_mean)))
    a, b = coefficients.float(), (t_mean - x_mean @ coefficients).float()
    return lambda features: features @ a + b


def fit_logistic(x: Tensor, targets: Tensor, weights: Tensor, penalty: float) -> Predictor:
    """Weighted multinomial logistic regression on class shares, by L-BFGS from zero.

    Minimises ``sum(w CE) / sum(w) + penalty |a|^2 / 2``.

    Args:
        x: ``(N, C)``.
        targets: ``(N, K)`` shares that add up to 1.
        weights: ``(N,)``.
        penalty: of the squared coefficients.
    """
    a = x.new_zeros(x.shape[1], targets.shape[1], requires_grad=True)
    b = x.new_zeros(targets.shape[1], requires_grad=True)
    w = weights / weights.sum()
    optimizer = torch.optim.LBFGS(
        [a, b], max_iter=100, history_size=10, line_search_fn='strong_wolfe', tolerance_change=1e-7
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (w * _cross_entropy(x @ a + b, targets)).sum() + penalty * a.square().sum() / 2
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    a, b = a.detach(), b.detach()
    return lambda features: features @ a + b


def _neighbours(bank: Tensor, targets: Tensor) -> Predictor:
    """Mean target of the nearest patches by cosine similarity, weighted by its exponential."""
    bank = F.normalize(bank, dim=-1)
    count = min(NEIGHBOURS, len(bank))

    def predict(features: Tensor) -> Tensor:
        found = []
        for queries in F.normalize(features, dim=-1).flatten(0, -2).split(_QUERIES):
            similarity, index = (queries @ bank.T).topk(count, dim=1)
            weight = (similarity / TEMPERATURE).softmax(1)
            found.append((weight[..., None] * targets[index]).sum(1))
        return torch.cat(found).unflatten(0, features.shape[:-1])

    return predict


def _enlarge(maps: Tensor, size: torch.Size) -> Tensor:
    return F.interpolate(maps, size=tuple(size), mode='bilinear', align_corners=False)[0]


def _score_labels(maps, test: FrozenFeatures, num_classes: int) -> dict[str, float]:
    confusion = torch.zeros(num_classes, num_classes, dtype=torch.int64)
    for scores, labels, valid in zip(maps, test.targets, test.valid, strict=True):
        found = _enlarge(scores, labels.shape).argmax(0)
        pairs = labels[valid].long() * num_classes + found[valid]
        confusion += pairs.bincount(minlength=num_classes**2).view(num_classes, num_classes)
    hits = confusion.diagonal().double()
    union = confusion.sum(0) + confusion.sum(1) - confusion.diagonal()
    present = union > 0
    if not present.any():
        raise ValueError('no labelled pixel in the frames to score on.')
    return {
        'mIoU': float(100 * (hits[present] / union[present]).mean()),
        'aAcc': float(100 * hits.sum() / confusion.sum()),
    }


def _score_depth(maps, test: FrozenFeatures) -> dict[str, float]:
    frames = []
    for fitted, depth, valid in zip(maps, test.targets, test.valid, strict=True):
        spread = float(depth[valid].double().std(correction=0)) if valid.sum() > 1 else 0.0
        if spread == 0:
            continue  # flat, or without readings: nothing to compare with
        found = _enlarge(fitted, depth.shape)[0]
        if test.kind == 'metric':
            frames.append(depth_figures(found.exp(), depth, valid, spread, metric=True))
        else:
            target = _to_fit(depth, valid, test.kind)
            frames.append(depth_figures(found, target, valid, 1.0, metric=False))
    if not frames:
        raise ValueError('no frame to score on has depth readings that differ.')
    return {name: sum(f[name] for f in frames) / len(frames) for name in frames[0]}
