"""How much of labels, depth and normals can be read off frozen features: lines and neighbours.

Both are fitted on patches and scored on pixels: what is predicted for the patches is enlarged
bilinearly to the size of the target. Nothing is drawn at random, so a figure belongs to an
encoder and its data alone. Linear probes on dense features and weighted k-NN follow DINO and
DINOv2 (arXiv 2104.14294, 2304.07193) in spirit; the closed form, the patch targets and the choice
of the penalty are ours.

Features are read batch by batch: a ridge regression keeps sums of products (C x C), and only
logistic regression and neighbours hold patches, a bounded number.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from mmmask3d.evaluation.bootstrap import LabelScores, MeanScores, Scores, columns
from mmmask3d.evaluation.frozen_features import FrozenFeatures
from mmmask3d.evaluation.masked_depth_metric import depth_figures
from mmmask3d.models.surface_normals import normal_figures

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)
"""L2 penalties that are tried, per patch, on features of unit variance."""
NEIGHBOURS, TEMPERATURE = 20, 0.07
"""Of the weighted k-NN, as in DINO."""
MAX_PATCHES = 100_000
"""Patches that a logistic regression is fitted on; evenly thinned out beyond."""
MAX_BANK = 50_000
"""Patches that neighbours are looked for among; evenly thinned out beyond."""
_HELD_OUT = 5  # one frame in five of the training frames chooses the penalty
_ROWS = 1024  # patches at a time, in products with all others
_BATCH = 16  # frames at a time

Predictor = Callable[[Tensor], Tensor]


@dataclass
class Probe:
    """A fitted probe."""

    kind: str  # of what it predicts, as in FrozenFeatures
    predict: Predictor  # from standardised features (..., C) to (..., K)
    mean: Tensor  # of the features it was fitted on (C,)
    scale: Tensor  # their standard deviation (C,)

    def maps(self, features: Tensor) -> Tensor:
        """Prediction ``(K, h, w)`` for the features of a frame ``(h, w, C)``.

        Scores of the classes, log depth (metric), standardised depth (relative) or normals of any
        length.
        """
        return self.predict((features.float() - self.mean) / self.scale).permute(2, 0, 1)

    def score(self, test: FrozenFeatures, num_classes: int | None = None) -> Scores:
        """Score frame by frame.

        Args:
            test: frames to score on.
            num_classes: of labels.

        Returns:
            Labels: ``mIoU`` and ``aAcc`` in percent, as mmseg's ``IoUMetric``. Depth in metres (the
            logarithm is what is fitted): ``rmse``, ``abs_rel``, ``delta1`` and ``std_rmse``.
            Relative depth (each frame standardised over its readings): ``std_rmse``. Normals: see
            :func:`normal_figures`. All but those of labels are means over frames.

        Raises:
            ValueError: the frames are of another kind, or show nothing to score on.
        """
        if self.kind != test.kind:
            raise ValueError(f'fitted on {self.kind} but scored on {test.kind}.')
        maps = (self.maps(features)[None] for features in test.features)
        if self.kind == 'labels':
            return _score_labels(maps, test, num_classes or 0)
        return _score_values(maps, test)


def fit_probe(
    train: FrozenFeatures,
    method: str,
    num_classes: int | None = None,
) -> Probe:
    """Fit on some frames.

    Args:
        train: frames to fit on.
        method: 'linear' (logistic regression for labels, ridge regression else) or 'knn'.
        num_classes: of labels.

    Raises:
        ValueError: the method is unknown, or nothing is labelled.
    """
    if method not in ('linear', 'knn'):
        raise ValueError(f"method must be 'linear' or 'knn', got {method!r}.")
    if train.kind == 'labels' and not num_classes:
        raise ValueError('probing labels needs num_classes.')
    targets, weights = patch_targets(train, num_classes)
    if not weights.any():
        raise ValueError(f'no {_NAMES[train.kind]} in the frames to fit on.')
    mean, scale = _moments(train.features)
    patches = _Patches(train.features, targets, weights, mean, scale)
    if method == 'knn':
        predict = _neighbours(*patches.chosen(slice(None), MAX_BANK)[:2])
    elif train.kind == 'labels':
        predict = _choose_logistic(patches)
    else:
        predict = _choose_ridge(patches)
    return Probe(train.kind, predict, mean, scale)


_NAMES = {
    'labels': 'labelled pixel',
    'metric': 'depth reading',
    'relative': 'depth reading',
    'normals': 'surface normal',
}


def patch_targets(frames: FrozenFeatures, num_classes: int | None = None) -> tuple[Tensor, Tensor]:
    """Sum up the pixels of each patch: those whose centres are in it.

    Returns:
        Targets ``(F, h, w, K)``: shares of the classes among the labelled pixels; or the mean over
        the readings of log depth or of standardised relative depth (K = 1), or of normals (K = 3).
        Weights ``(F, h, w)``: share of labelled pixels or readings; targets are 0 where it is 0.
    """
    height, width = (int(n) for n in frames.features.shape[1:3])
    columns = {'labels': num_classes or 0, 'normals': 3}.get(frames.kind, 1)
    targets = torch.zeros(len(frames.features), height * width, columns)
    weights = torch.zeros(len(frames.features), height * width)
    for i, (target, valid) in enumerate(zip(frames.targets, frames.valid, strict=True)):
        patch = _patch_of_pixels(valid.shape, (height, width))
        counts = patch.bincount(minlength=height * width)
        patch = patch[valid.flatten()]
        known = patch.bincount(minlength=height * width)
        if frames.kind == 'labels':
            cell = patch * columns + target[valid]
            total = cell.bincount(minlength=targets[i].numel()).view(-1, columns)
        else:
            values = target if frames.kind == 'normals' else _to_fit(target, valid, frames.kind)
            total = torch.zeros(height * width, columns, dtype=torch.float64)
            total.index_add_(0, patch, values.view(columns, *valid.shape)[:, valid].double().T)
        targets[i] = total / known.clamp(min=1)[:, None]
        weights[i] = known / counts.clamp(min=1)
    return targets.unflatten(1, (height, width)), weights.unflatten(1, (height, width))


@lru_cache(maxsize=4)
def _patch_of_pixels(size: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """Number of the patch that the centre of each pixel falls in ``(H * W,)``."""
    row, column = (
        ((torch.arange(pixels) * 2 + 1) * patches // (2 * pixels))
        for pixels, patches in zip(size, grid, strict=True)
    )
    return (row[:, None] * grid[1] + column).flatten()


def _to_fit(depth: Tensor, valid: Tensor, kind: str) -> Tensor:
    """Depth in the unit that is fitted; anything where not valid."""
    if kind == 'metric':
        return torch.where(valid, depth, 1.0).log()
    readings = depth[valid].double()
    if readings.numel() < 2 or readings.std() == 0:
        return torch.zeros_like(depth)
    return ((depth - readings.mean()) / readings.std(correction=0)).float()


def _moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel, batch by batch in two passes."""
    count = features[..., 0].numel()
    mean = sum(f.double().flatten(0, -2).sum(0) for f in features.split(_BATCH)) / count
    squares = sum(
        (f.double() - mean).square().flatten(0, -2).sum(0) for f in features.split(_BATCH)
    )
    return mean.float(), (squares / max(1, count - 1)).sqrt().float().clamp(min=1e-6)


@dataclass
class _Patches:
    """Features with their targets, standardised when they are read."""

    features: Tensor
    targets: Tensor
    weights: Tensor
    mean: Tensor
    scale: Tensor

    def held_out(self) -> Tensor | None:
        """Every fifth frame as a mask, if there is a target on both sides."""
        mask = torch.zeros(len(self.features), dtype=torch.bool)
        mask[_HELD_OUT - 1 :: _HELD_OUT] = True
        both = mask.any() and self.weights[mask].any() and self.weights[~mask].any()
        return mask if both else None

    def chosen(self, frames: Tensor | slice, most: int) -> tuple[Tensor, Tensor, Tensor]:
        """At most so many patches with a target, evenly spread over some frames.

        Returns:
            Standardised features ``(N, C)``, targets ``(N, K)`` and weights ``(N,)``.
        """
        some = torch.zeros(len(self.features), dtype=torch.bool)
        some[frames] = True
        known = (self.weights * some[:, None, None]).flatten().nonzero().squeeze(1)
        if len(known) > most:
            known = known[torch.linspace(0, len(known) - 1, most).long()]
        x = self.features.flatten(0, 2)[known].float()
        x.sub_(self.mean).div_(self.scale)  # in place: this is the largest tensor of a fit
        return x, self.targets.flatten(0, 2)[known], self.weights.flatten()[known]

    def batches(self, frames: Tensor | slice) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """All patches with a target of some frames, as :meth:`chosen`, a few frames at a time."""
        for ids in torch.arange(len(self.features))[frames].split(_BATCH):
            known = self.weights[ids] > 0
            x = (self.features[ids][known].float() - self.mean) / self.scale
            yield x, self.targets[ids][known], self.weights[ids][known]


class Moments:
    """Weighted sums of products of features and targets, in float64."""

    def __init__(self, channels: int, outputs: int) -> None:
        size = channels + outputs
        self.channels = channels
        self.weight = 0.0
        self.first = torch.zeros(size, dtype=torch.float64)
        self.second = torch.zeros(size, size, dtype=torch.float64)

    def add(self, x: Tensor, targets: Tensor, weights: Tensor) -> None:
        """Add patches ``(N, C)``, ``(N, K)`` and ``(N,)``."""
        joint = torch.cat((x, targets), 1).double()
        weighted = joint * weights.double()[:, None]
        self.weight += float(weights.double().sum())
        self.first += weighted.sum(0)
        self.second += joint.T @ weighted

    def __add__(self, other: 'Moments') -> 'Moments':
        total = Moments(self.channels, len(self.first) - self.channels)
        total.weight = self.weight + other.weight
        total.first = self.first + other.first
        total.second = self.second + other.second
        return total

    def fits(self, penalties: Sequence[float]) -> list[tuple[Tensor, Tensor]]:
        """Weighted ridge regression with an unpenalised intercept, in closed form.

        Minimises ``sum(w |x a + b - t|^2) / sum(w) + penalty |a|^2`` for each penalty, with one
        eigendecomposition for all.

        Returns:
            ``a`` ``(C, K)`` and ``b`` ``(K,)`` for each penalty, float64.
        """
        mean = self.first / self.weight
        covariance = self.second / self.weight - mean[:, None] * mean
        c = self.channels
        values, vectors = torch.linalg.eigh(covariance[:c, :c])
        right = vectors.T @ covariance[:c, c:]
        found = []
        for penalty in penalties:
            a = vectors @ (right / (values.clamp(min=0) + penalty)[:, None])
            found.append((a, mean[c:] - mean[:c] @ a))
        return found

    def error(self, a: Tensor, b: Tensor) -> float:
        """``sum(w |x a + b - t|^2)`` of the patches that were added."""
        map_ = torch.cat((a, -torch.eye(len(b), dtype=torch.float64)))
        crossed = (map_ * (self.second @ map_)).sum() + 2 * (self.first @ map_) @ b
        return float(crossed + self.weight * b.square().sum())


def _choose_ridge(patches: _Patches) -> Predictor:
    """Fit with the penalty that does best on every fifth frame, which it was not fitted on."""

    def moments(frames: Tensor | slice) -> Moments:
        found = Moments(patches.features.shape[-1], patches.targets.shape[-1])
        for batch in patches.batches(frames):
            found.add(*batch)
        return found

    held_out = patches.held_out()
    if held_out is None:
        total, best = moments(slice(None)), PENALTIES[len(PENALTIES) // 2]
    else:
        rest, other = moments(~held_out), moments(held_out)
        errors = [other.error(*fit) for fit in rest.fits(PENALTIES)]
        best, total = PENALTIES[errors.index(min(errors))], rest + other
    return _linear(*total.fits([best])[0])


def _choose_logistic(patches: _Patches) -> Predictor:
    """As :func:`_choose_ridge`; each fit starts from that of the next larger penalty."""
    held_out = patches.held_out()
    best, start = PENALTIES[len(PENALTIES) // 2], None
    if held_out is not None:
        x, t, w = patches.chosen(~held_out, MAX_PATCHES)
        xo, to, wo = patches.chosen(held_out, MAX_PATCHES)
        least = float('inf')
        fit: tuple[Tensor, Tensor] | None = None
        for penalty in sorted(PENALTIES, reverse=True):
            fit = fit_logistic(x, t, w, penalty, fit)
            error = float((_cross_entropy(xo @ fit[0] + fit[1], to) * wo).sum())
            if error < least:
                least, best, start = error, penalty, fit
        del x, xo  # before all patches are read
    return _linear(*fit_logistic(*patches.chosen(slice(None), MAX_PATCHES), best, start))


def _linear(a: Tensor, b: Tensor) -> Predictor:
    a, b = a.float(), b.float()
    return lambda features: features @ a + b


def _cross_entropy(logits: Tensor, shares: Tensor) -> Tensor:
    return -(shares * logits.log_softmax(-1)).sum(-1)


def fit_logistic(
    x: Tensor,
    targets: Tensor,
    weights: Tensor,
    penalty: float,
    start: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Weighted multinomial logistic regression on class shares, by L-BFGS.

    Minimises ``sum(w CE) / sum(w) + penalty |a|^2 / 2``.

    Args:
        x: ``(N, C)``.
        targets: ``(N, K)`` shares that add up to 1.
        weights: ``(N,)``.
        penalty: of the squared coefficients.
        start: where to start, ``a`` and ``b``; None for zero.

    Returns:
        ``a`` ``(C, K)`` and ``b`` ``(K,)``.
    """
    w = weights / weights.sum()
    # Coordinates in which the curvature is about the same everywhere, or features as different in
    # scale as those of a transformer take many times the steps: principal directions, divided by
    # the root of the Hessian's diagonal where nothing but the classes' shares is known.
    shares = (w @ targets).clamp(min=1e-4)
    parts = zip(x.split(_ROWS), w.split(_ROWS), strict=True)
    variances, directions = torch.linalg.eigh(sum(p.T @ (p * v[:, None]) for p, v in parts))
    curvature = variances.clamp(min=0)[:, None] * shares + penalty
    scale, scale_b = curvature.rsqrt(), shares.rsqrt()
    a = x.new_zeros(x.shape[1], targets.shape[1]) if start is None else directions.T @ start[0]
    b = x.new_zeros(targets.shape[1]) if start is None else start[1]
    parameters = [(a / scale).requires_grad_(), (b / scale_b).requires_grad_()]
    optimizer = torch.optim.LBFGS(
        parameters, max_iter=100, history_size=10, line_search_fn='strong_wolfe',
        tolerance_change=1e-7,
    )  # fmt: skip

    def coefficients() -> tuple[Tensor, Tensor]:
        return directions @ (parameters[0] * scale), parameters[1] * scale_b

    def closure() -> Tensor:
        optimizer.zero_grad()
        a, b = coefficients()
        loss = (w * _cross_entropy(x @ a + b, targets)).sum() + penalty * a.square().sum() / 2
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    with torch.no_grad():
        return coefficients()


def _neighbours(bank: Tensor, targets: Tensor) -> Predictor:
    """Mean target of the nearest patches by cosine similarity, weighted by its exponential."""
    bank = F.normalize(bank, dim=-1)
    count = min(NEIGHBOURS, len(bank))

    def predict(features: Tensor) -> Tensor:
        found = []
        for queries in F.normalize(features, dim=-1).flatten(0, -2).split(_ROWS):
            similarity, index = (queries @ bank.T).topk(count, dim=1)
            weight = (similarity / TEMPERATURE).softmax(1)
            found.append((weight[..., None] * targets[index]).sum(1))
        return torch.cat(found).unflatten(0, features.shape[:-1])

    return predict


def enlarge(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Bring predictions of patches ``(1, K, h, w)`` to the pixels of a target ``(K, H, W)``."""
    return F.interpolate(maps, size=tuple(size), mode='bilinear', align_corners=False)[0]


def _score_labels(maps: Iterator[Tensor], test: FrozenFeatures, num_classes: int) -> LabelScores:
    counts = []
    for scores, labels, valid in zip(maps, test.targets, test.valid, strict=True):
        found, true = enlarge(scores, labels.shape).argmax(0)[valid], labels[valid].long()
        parts = (true[found == true], found, true)
        counts.append(torch.stack([p.bincount(minlength=num_classes) for p in parts]))
    if not counts or not any(c.any() for c in counts):
        raise ValueError('no labelled pixel in the frames to score on.')
    return LabelScores(torch.stack(counts))


def _score_values(maps: Iterator[Tensor], test: FrozenFeatures) -> MeanScores:
    frames = []
    for fitted, target, valid in zip(maps, test.targets, test.valid, strict=True):
        found = enlarge(fitted, target.shape[-2:])
        if test.kind == 'normals':
            frames.append(normal_figures(found, target, valid) if valid.any() else {})
            continue
        spread = float(target[valid].double().std(correction=0)) if valid.sum() > 1 else 0.0
        if spread == 0:
            frames.append({})  # flat, or without readings: nothing to compare with
        elif test.kind == 'metric':
            frames.append(depth_figures(found[0].exp(), target, valid, spread, metric=True))
        else:
            truth = _to_fit(target, valid, test.kind)
            frames.append(depth_figures(found[0], truth, valid, 1.0, metric=False))
    names: list[str] = next((list(f) for f in frames if f), [])
    if not names:
        raise ValueError(f'no frame to score on has a {_NAMES[test.kind]}, or they do not differ.')
    return MeanScores(columns(frames, names))
