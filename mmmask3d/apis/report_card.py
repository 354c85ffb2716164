"""The report card of encoders: what each knows of the frames of a config."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import Tensor

from mmmask3d.apis.encoders import Encoder, build_encoder
from mmmask3d.apis.report_reconstructions import reconstruct_frames
from mmmask3d.evaluation.bootstrap import (
    Scores,
    means,
    nested_subsets,
    paired_differences,
    spreads,
)
from mmmask3d.evaluation.correspondence import (
    PIXELS,
    Pair,
    find_pairs,
    nearest_points,
    score_pairs,
    why_no_pairs,
)
from mmmask3d.evaluation.dense_probe import Probe, enlarge, fit_probe
from mmmask3d.evaluation.frames import (
    Classes,
    Frame,
    Targets,
    depth_targets,
    label_targets,
    normal_targets,
    read_frames,
)
from mmmask3d.evaluation.frozen_features import encode, with_pipeline, with_targets
from mmmask3d.registry import DATASETS
from mmmask3d.visualization.colours import depth_to_rgb
from mmmask3d.visualization.feature_maps import (
    draw_matches,
    label_colours,
    normal_colours,
    principal_colours,
    scaled_to,
)
from mmmask3d.visualization.report_page import RECONSTRUCTION

PARTS = ('labels', 'depth', 'normals', 'correspondence', 'efficiency')
METHODS = ('linear', 'knn')
SHARES = (0.01, 0.05, 0.2, 1.0)
"""Of the labelled frames, for label efficiency."""
_LINES = 40  # of matches that are drawn
_RIGHT = PIXELS[1]  # pixels within which a drawn match is right

Say = Callable[[str], object]


@dataclass
class ReportOptions:
    """What is measured.

    Attributes:
        parts: of :data:`PARTS`.
        size: ``(height, width)`` of the encoders' input; None for that of the frames.
        limit: at most so many frames of each split; None for all.
        pictures: frames, and pairs of views, that are drawn.
        fov: horizontal field of view in degrees where intrinsics are not known.
        batch_size: frames encoded at a time.
        seed: of random weights, subsets and the bootstrap.
        device: where the encoders run.
        methods: of :data:`METHODS`, for labels and depth; normals are always linear.
    """

    parts: Sequence[str] = PARTS
    size: tuple[int, int] | None = None
    limit: int | None = None
    pictures: int = 4
    fov: float = 57.0
    batch_size: int = 16
    seed: int = 0
    device: str = 'cpu'
    methods: Sequence[str] = METHODS


@dataclass
class ReportCard:
    """What was found.

    Attributes:
        results: figures, differences and costs, as they go into the JSON file.
        pictures: ``(title, [(caption, RGB uint8)])`` of each frame and pair that was drawn.
    """

    results: dict[str, Any]
    pictures: list[tuple[str, list[tuple[str, np.ndarray]]]]


@dataclass
class _Probed:
    """What is probed of the frames: labels of some classes, depth or normals."""

    measure: str
    train: Targets
    val: Targets
    classes: Classes = ()
    palette: Sequence[Sequence[int]] = ()

    @property
    def count(self) -> int | None:
        """Number of classes; None without labels."""
        return len(self.classes) or None


@dataclass
class _Data:
    """Frames of both splits with what is probed of them; the same for every encoder."""

    train: list[Frame]
    val: list[Frame]
    targets: dict[str, _Probed]
    pairs: list[Pair]
    notes: list[str]
    shown: list[int]
    configs: Sequence[Config]


@dataclass
class _Found:
    """What the runs of one encoder gave; pictures are of the first."""

    scores: dict[str, list[Scores]] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    pictures: dict[int, list[tuple[str, np.ndarray]]] = field(default_factory=dict)
    matches: dict[int, tuple[str, np.ndarray]] = field(default_factory=dict)


def report_encoders(
    configs: Sequence[Config],
    encoders: Mapping[str, Sequence[str]],
    options: ReportOptions,
    say: Say = lambda line: None,
) -> ReportCard:
    """Compare encoders on the frames of one or several configs.

    Args:
        configs: name the frames: ``train_dataloader`` to fit on, ``val_dataloader`` to score on,
            both read with the pipeline of validation. Labels, depth, or both, of the same pictures
            may come from several.
        encoders: by name, one or several runs of a method with different training seeds, see
            :func:`~mmmask3d.apis.encoders.build_encoder`.
        options: what is measured.
        say: receives a line about each step.

    Raises:
        ValueError: a config has no validation frames, or nothing that was asked for can be
            measured.
    """
    data = _read(configs, options, say)
    size = options.size or tuple(data.val[0].image.shape[1:])

    def build(name: str, number: int) -> Encoder:
        # Seeds of random weights: those of the second run differ from those of the first.
        seed = options.seed + number
        return build_encoder(name, encoders[name][number], (size[0], size[1]), seed)

    runs = [(name, number) for name in encoders for number in range(len(encoders[name]))]
    for run in runs[1:]:
        build(*run)  # what is wrong with the last one is said before the first one is probed
    found = {name: _Found() for name in encoders}
    for name, number in runs:
        _examine(build(name, number), found[name], data, options, say)
    return ReportCard(_results(data, found, options), _pictures(data, found))


def _read(configs: Sequence[Config], options: ReportOptions, say: Say) -> _Data:
    splits: tuple[list, list] = ([], [])
    for cfg in configs:
        init_default_scope(cfg.get('default_scope', 'mmmask3d'))
        if not cfg.get('val_dataloader'):
            raise ValueError(f'{cfg.filename} has no val_dataloader, on whose frames to score.')
        val = with_pipeline(cfg.val_dataloader.dataset, cfg.val_dataloader.dataset.pipeline)
        train = with_pipeline(cfg.train_dataloader.dataset, val.pipeline)
        for split, dataset in zip(splits, (train, val), strict=True):
            split.append(DATASETS.build(dataset))
    say('reading frames')
    train, val = (read_frames(split, options.limit) for split in splits)
    notes = []
    common = {f.path for f in train} & {f.path for f in val}
    if common:
        notes.append(
            f'{len(common)} of the {len(val)} frames that are scored were also fitted on: the '
            'figures say nothing of other frames.'
        )
    targets: dict[str, _Probed] = {}
    for measure in ('labels', 'depth', 'normals'):
        if not ({measure, 'efficiency' if measure == 'labels' else measure} & set(options.parts)):
            continue
        some = {
            name: probed
            for name, probed in _probed(measure, train, val, splits[1], options.fov).items()
            if probed.train.any() and probed.val.any()
        }
        if not some:
            notes.append(f'No {measure}: no frame of one of the splits has any.')
        targets |= some
    pairs: list[Pair] = []
    if 'correspondence' in options.parts:
        pairs = find_pairs(val, seed=options.seed)
        if not pairs:
            notes.append(f'No correspondence: {why_no_pairs(val)}')
    if not targets and not pairs:
        raise ValueError('nothing can be measured on these frames. ' + ' '.join(notes))
    shown = np.linspace(0, len(val) - 1, min(options.pictures, len(val))).round().astype(int)
    return _Data(train, val, targets, pairs, notes, shown.tolist(), configs)


def _probed(
    measure: str, train: list[Frame], val: list[Frame], datasets: Sequence[Any], fov: float
) -> dict[str, _Probed]:
    """Targets by name; several kinds of labels, told apart by their classes, each have one."""
    if measure == 'depth':
        return {measure: _Probed(measure, depth_targets(train), depth_targets(val))}
    if measure == 'normals':
        return {measure: _Probed(measure, normal_targets(train, fov), normal_targets(val, fov))}
    to_fit, to_score = label_targets(train), label_targets(val)
    palettes = {tuple(d.metainfo.get('classes') or ()): d.metainfo.get('palette') for d in datasets}
    both = [classes for classes in to_score if classes in to_fit]
    found: dict[str, _Probed] = {}
    for classes in both:
        name = measure if len(both) == 1 else f'{measure}{len(classes)}'
        if name in found:
            name += f'-{len(found)}'
        found[name] = _Probed(
            measure, to_fit[classes], to_score[classes], classes, palettes[classes] or ()
        )
    return found


def _examine(
    encoder: Encoder, found: _Found, data: _Data, options: ReportOptions, say: Say
) -> None:
    """Encode all frames once, then fit and score; the first run of an encoder is drawn."""
    started = time.process_time()
    encoder.module.to(options.device)
    total = len(data.train) + len(data.val)

    def extract(frames: list[Frame], before: int) -> Tensor:
        return encode(
            encoder.module, frames, encoder.normalise, encoder.size, options.batch_size,
            options.device, lambda done: say(f'{encoder.name}: {before + done} of {total} frames'),
        )  # fmt: skip

    def keep(part: str, scores: Scores) -> None:
        found.scores.setdefault(part, []).append(scores)

    # Frames that are not fitted on need no features: pairs are of the validation frames.
    train = extract(data.train, 0) if data.targets else torch.zeros(0)
    val = extract(data.val, len(data.train))
    encoder.module.to('cpu')
    encoded = time.process_time()
    probes: dict[str, Probe] = {}
    for part, probed in data.targets.items():
        fitted, scored = with_targets(train, probed.train), with_targets(val, probed.val)
        if probed.measure in options.parts:
            for method in options.methods if part != 'normals' else ('linear',):
                say(f'{encoder.name}: {part}, {method}')
                probe = fit_probe(fitted, method, probed.count)
                keep(f'{part}/{method}', probe.score(scored, probed.count))
                probes.setdefault(part, probe)
        if probed.measure == 'labels' and 'efficiency' in options.parts:
            subsets = nested_subsets(len(fitted.targets), SHARES, options.seed)
            for share, ids in zip(SHARES, subsets, strict=True):
                say(f'{encoder.name}: {part}, {share:.0%} of the frames')
                if len(ids) == len(fitted.targets) and part in probes:
                    probe = probes[part]
                else:
                    probe = fit_probe(fitted.subset(ids), 'linear', probed.count)
                efficiency = part.replace('labels', 'efficiency')
                keep(f'{efficiency}/{share:.0%}', probe.score(scored, probed.count))
    if data.pairs:
        say(f'{encoder.name}: {len(data.pairs)} pairs of views')
        sizes = [tuple(f.image.shape[1:]) for f in data.val]
        keep('correspondence', score_pairs(val, data.pairs, sizes))
    if not found.about:
        _draw(found, data, probes, val)
        if encoder.checkpoint is not None:
            wanted = {data.val[i].path: i for i in data.shown}
            drawn = reconstruct_frames(encoder.checkpoint, data.configs, wanted, options.device)
            for i, picture in drawn.items():
                found.pictures[i].append((RECONSTRUCTION, picture))
    height, width = encoder.size
    about: dict[str, Any] = {
        'input': [height, width],
        'grid': list(val.shape[1:3]),
        'channels': val.shape[3],
        'parameters': encoder.parameters,
        'cpu_seconds_encoding': round(encoded - started, 1),
        'cpu_seconds_after': round(time.process_time() - encoded, 1),
    }
    about['sources'] = [*found.about.get('sources', []), encoder.source]
    found.about = about


def _rgb(frame: Frame) -> np.ndarray:
    return np.ascontiguousarray(frame.image.flip(0).permute(1, 2, 0).numpy())


def _draw(found: _Found, data: _Data, probes: Mapping[str, Probe], features: Tensor) -> None:
    if not data.shown:
        return
    components = principal_colours(features[data.shown])
    for place, i in enumerate(data.shown):
        size = tuple(data.val[i].image.shape[1:])
        found.pictures[i] = [('features (PCA)', scaled_to(components[place], size))]
        for part, probe in probes.items():
            picture = _coloured(data.targets[part], i, probe, features[i])
            found.pictures[i] += [] if picture is None else [(part, picture)]
    for number in _shown_pairs(data):
        pair = data.pairs[number]
        ends = [data.val[i] for i in (pair.first, pair.second)]
        places = nearest_points(features, pair, tuple(ends[1].image.shape[1:]))
        keep = np.linspace(0, len(pair.points) - 1, min(_LINES, len(pair.points))).astype(int)
        right = ((places - pair.truth).norm(dim=1) <= _RIGHT).numpy()
        first, second = (_rgb(frame) for frame in ends)
        drawn = draw_matches(
            first, second, pair.points.numpy()[keep], places.numpy()[keep], right[keep]
        )
        found.matches[number] = (f'{100 * right.mean():.0f} % within {_RIGHT} px', drawn)


def _shown_pairs(data: _Data) -> list[int]:
    count = min(len(data.shown), len(data.pairs))
    return np.linspace(0, len(data.pairs) - 1, count).astype(int).tolist()


def _coloured(
    probed: _Probed, frame: int, probe: Probe | None = None, features: Tensor | None = None
) -> np.ndarray | None:
    """A target of a frame, or what a probe makes of its features, in the colours of the target.

    None of a frame that has no such target.
    """
    if frame not in probed.val.indices:
        return None
    place = probed.val.indices.index(frame)
    value, valid = probed.val.values[place], probed.val.valid[place]
    predicted = None
    if probe is not None and features is not None:
        predicted = enlarge(probe.maps(features)[None], value.shape[-2:])
    if probed.measure == 'labels':
        labels = value if predicted is None else predicted.argmax(0)
        return label_colours(labels.numpy(), probed.palette)
    if probed.measure == 'normals':
        if predicted is not None:
            return normal_colours(predicted.numpy())
        return normal_colours(value.float().numpy(), valid.numpy())
    if predicted is None:
        return depth_to_rgb(value.numpy(), valid.numpy())
    readings, depth = value[valid].double(), predicted[0]
    if probed.val.kind == 'metric':
        depth = depth.exp()
    elif len(readings):
        depth = depth * readings.std(correction=0) + readings.mean()
    low, high = (float(readings.min()), float(readings.max())) if len(readings) else (0.0, 1.0)
    return depth_to_rgb(depth.numpy(), vmin=low, vmax=high)


def _pictures(
    data: _Data, found: Mapping[str, _Found]
) -> list[tuple[str, list[tuple[str, np.ndarray]]]]:
    sheets = []
    for i in data.shown:
        tiles = [('frame', _rgb(data.val[i]))]
        for part, probed in data.targets.items():
            truth = _coloured(probed, i)
            tiles += [] if truth is None else [(f'{part}, truth', truth)]
        for name, one in found.items():
            tiles += [(f'{name}: {caption}', image) for caption, image in one.pictures[i]]
        sheets.append((f'Frame {i}', tiles))
    for number in _shown_pairs(data):
        pair = data.pairs[number]
        tiles = [
            (f'{name}: {one.matches[number][0]}', one.matches[number][1])
            for name, one in found.items()
        ]
        sheets.append((f'Frames {pair.first} and {pair.second}, {pair.rotation:.0f}°', tiles))
    return sheets


def _results(data: _Data, found: Mapping[str, _Found], options: ReportOptions) -> dict[str, Any]:
    paths = [frame.path for frame in data.val]
    parts: dict[str, Any] = {}
    for part in next(iter(found.values())).scores:
        runs = {name: one.scores[part] for name, one in found.items()}
        units = next(iter(runs.values()))[0].units
        name, _, method = part.partition('/')
        probed = data.targets.get(name.replace('efficiency', 'labels'))
        # Frames without such a target are not among those that are scored.
        frames = range(len(paths)) if probed is None else probed.val.indices
        parts[part] = {
            'measure': name.rstrip('0123456789-'),
            'method': method,
            'classes': probed.count if probed else None,
            'rows': len(units),
            'frames': len(units.unique()),
            'figures': {name: means(*some) for name, some in runs.items()},
            'spreads': {name: spreads(*some) for name, some in runs.items() if len(some) > 1},
            'differences': {
                f'{a} - {b}': paired_differences(runs[a], runs[b], seed=options.seed)
                for a, b in combinations(runs, 2)
            },
            'by_row': {
                'frames': [[paths[frames[i]] for i in row] for row in units.tolist()],
                'runs': {name: [run.by_row() for run in some] for name, some in runs.items()},
            },
        }
    depth = data.targets.get('depth')
    return {
        'data': {
            'fitted_on': len(data.train),
            'scored_on': len(data.val),
            'frame_size': list(data.val[0].image.shape[1:]),
            'depth': depth.val.kind if depth else None,
            'classes': {n: list(p.classes) for n, p in data.targets.items() if p.classes},
            'notes': data.notes,
        },
        'encoders': {name: one.about for name, one in found.items()},
        'parts': parts,
    }
