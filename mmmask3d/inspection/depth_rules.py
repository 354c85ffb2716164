"""Rules about the values of depth: unit, holes, limits, number of steps."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from mmmask3d.inspection.findings import Findings
from mmmask3d.inspection.measures import Measures
from mmmask3d.inspection.sources import Source

# What indoor sets are within, in metres; docs/checking_data.md has the rates on real ones.
_TOO_NEAR = 0.15  # a twentieth of the readings nearer than this: depth cameras begin at 0.2 to 0.5
_FARTHEST = 10.0  # median
_ALL_FAR = 4.5, 2.5  # median, and hardly a reading nearer: no room is seen like that
# Cameras give millimetres or metres. Another scale with all so near is mostly one of a layout that
# was filled with millimetres: at 5000 per metre a room shrinks to 0.2 to 0.7 m.
_USUAL_SCALES = 1, 1000
_NEAREST_OTHERWISE = 0.75  # median
_ROOM = 0.75, 4.5  # median of what is proposed
_IMPOSSIBLE_NEAREST, _IMPOSSIBLE_FARTHEST = 0.05, 100.0  # as LoadRGBD warns
_LIKELY = 2.0  # metres; of several scales that fit, the one nearest to this is proposed first
_SCALES = {1: 'metres', 100: 'centimetres', 1000: 'millimetres', 5000: 'TUM RGB-D', 10000: '0.1 mm'}
_FAR = 20.0  # metres: no indoor depth camera measures farther
_POSSIBLE = 1000.0  # metres, as LoadRGBD warns
_MOSTLY_HOLES = 0.8
_CLIPPED = 0.005  # share of readings at the greatest value
_HEAPED = 5  # times as many as at the next lower value
_AT_LIMIT = 0.0005  # share of pixels at the greatest value of the type
_FEW_VALUES = 256
_MOST = 0.9  # share of the frames that makes something a property of the set
_LEAST_FRAMES = 8  # to speak of a property of the set


def check_depth(source: Source, measures: Sequence[Measures], found: Findings) -> None:
    """Apply all rules of this module to the frames of a set."""
    readable = [m for m in measures if m.depth is not None]
    if readable:
        _unit(source, readable, found)
        _holes(readable, found)
        _steps(source, readable, found)
        _limits(source, readable, found)
        _confidence(source, readable, found)


def _unit(source: Source, readable: Sequence[Measures], found: Findings) -> None:
    if not source.metric:
        return
    scale = source.frames.depth_scale
    median, near = _typical(readable)
    # The step of integers may prove the scale: what came in mm and was stored at 5000 per metre
    # is a multiple of 5.
    step = int(np.gcd.reduce([m.readings.step for m in readable]))
    why = _doubt(scale, median, near, step)
    if not why:
        return
    stored = median * scale
    fitting = {s: n for s, n in _SCALES.items() if _ROOM[0] <= stored / s <= _ROOM[1]}
    proposals = [
        f'depth_scale={s} ({fitting[s]}) would make it {stored / s:.2f} m'
        for s in sorted(fitting, key=lambda s: abs(np.log(stored / s / _LIKELY)))
    ]
    if step and step % 8 == 0:
        proposals.insert(
            0,
            'all stored values are multiples of 8, as in SUN RGB-D, whose bits are rotated: '
            f'convert by (d >> 3) | (d << 13), which makes it {stored / 8000:.2f} m in millimetres',
        )
    if all(m.readings.stored_type == 'uint8' for m in readable):
        proposals.append("8-bit maps are mostly relative: depth_kind='relative', depth_scale=255")
    impossible = not _IMPOSSIBLE_NEAREST <= median <= _IMPOSSIBLE_FARTHEST
    found.add(
        'unit',
        'error' if impossible else 'warning',
        f'the median depth is {median:.3g} m with depth_scale={scale:g}, a twentieth of the '
        f'readings is nearer than {near:.2g} m: {why}',
        ('; or '.join(proposals) or 'No common depth_scale fits; look at the stored values')
        + ('.' if impossible else '. Right as it is for outdoor or close-up sets.'),
        [m.depth_path for m in readable[:1]],
    )


def _typical(readable: Sequence[Measures]) -> tuple[float, float]:
    """Median over the frames of the median depth, and of the depth that few are nearer than."""
    median, near = (
        float(np.median([getattr(m.readings, k) for m in readable])) for k in ('median', 'near')
    )
    return median, near


def _doubt(scale: float, median: float, near: float, step: int) -> str:
    """Why no indoor set reads like this; '' where one does."""
    if median > _FARTHEST:
        return f'indoors the median is at most {_FARTHEST:g} m'
    if median > _ALL_FAR[0] and near > _ALL_FAR[1]:
        return f'no room has nearly everything beyond {_ALL_FAR[1]:g} m'
    if near < _TOO_NEAR:
        return 'depth cameras measure from 0.2 to 0.5 m on'
    if scale == 1000 and step == 5:
        return 'all stored values are multiples of 5, as of millimetres kept at 5000 per metre'
    proven = step and scale % 1000 == 0 and step % (scale // 1000) == 0
    if scale not in _USUAL_SCALES and median < _NEAREST_OTHERWISE and not proven:
        return 'so near are rooms stored in another unit, as millimetres in a layout of its own'
    return ''


def _holes(readable: Sequence[Measures], found: Findings) -> None:
    invalid = np.array([m.readings.invalid for m in readable])
    found.add_frames(
        'mostly-holes',
        'warning',
        f'depth maps without a reading at more than {_MOSTLY_HOLES:.0%} of the pixels',
        'Look at them; they teach little. Leave them out of the index, or check max_depth.',
        [m for m in readable if m.readings.invalid > _MOSTLY_HOLES],
        lambda m: f'{m.readings.invalid:.1%} without a reading',
    )
    if len(readable) >= _LEAST_FRAMES and np.mean(invalid == 0) >= _MOST:
        found.add(
            'in-filled',
            'note',
            'the depth maps have no holes: they were in-filled, or predicted by a network',
            'Prefer the raw depth where it exists: in-filled readings are guesses that training '
            'takes for measurements.',
        )


def _steps(source: Source, readable: Sequence[Measures], found: Findings) -> None:
    steps = [m.readings.distinct for m in readable if m.readings.distinct is not None]
    few = [n for n in steps if n <= _FEW_VALUES]
    if len(few) < _MOST * len(readable):
        return
    eight = all(m.readings.stored_type == 'uint8' for m in readable)
    cure = " If each map was scaled by itself, set depth_kind='relative'." if source.metric else ''
    found.add(
        'quantised',
        'warning' if source.metric else 'note',
        f'the depth maps hold at most {max(few)} different values'
        + (' (8 bits)' if eight else ', though more bits are stored'),
        'Steps of 8 bits are visible as terraces; use the originals where they exist.' + cure,
    )


def _limits(source: Source, readable: Sequence[Measures], found: Findings) -> None:
    if not source.metric:
        return
    limit = [m for m in readable if m.readings.at_limit > _AT_LIMIT]
    found.add_frames(
        'limit-value',
        'warning',
        'depth maps with readings at the greatest value of their type',
        'Usually that value (65535 of 16 bits) means "no reading": depth_invalid=(0, 65535), '
        'or set max_depth.',
        limit,
        lambda m: f'{m.readings.at_limit:.1%} of the pixels are {m.readings.stored_high:g}',
    )
    indoors = _typical(readable)[0] <= _FARTHEST
    codes = [m for m in readable if m.readings.high > _POSSIBLE and m not in limit and indoors]
    found.add_frames(
        'code-values',
        'warning',
        f'depth maps with readings beyond {_POSSIBLE:g} m',
        'Such values are codes for "no reading" (1e10 or 65504 of renderers): depth_invalid, or '
        'set max_depth. They would enter every average.',
        codes,
        lambda m: f'up to {m.readings.high:g} m',
    )
    if not limit:  # which says the same
        _clipping(readable, found)
    if not codes and indoors:
        found.add_frames(
            'far-readings',
            'note',
            f'depth maps with readings beyond {_FAR:g} m, in a set that is an indoor one',
            'Indoors these are errors of the sensor: set max_depth.',
            [m for m in readable if m.readings.high > _FAR],
            lambda m: f'up to {m.readings.high:.1f} m',
        )


def _confidence(source: Source, readable: Sequence[Measures], found: Findings) -> None:
    unsure = [m.readings.unsure for m in readable if m.readings.unsure is not None]
    if unsure:
        found.add(
            'low-confidence',
            'note',
            f'min_confidence={source.frames.min_confidence:g} drops {np.mean(unsure):.1%} of the '
            f'readings',
            'Nothing to do, if that is meant; the threshold is in the values as stored.',
        )
    if source.unsure is not None:
        found.add(
            'low-confidence',
            'note',
            f'the conversion dropped {source.unsure:.1%} of the readings for low confidence',
            'Nothing to do, if that is meant; manifest.json has the threshold.',
        )


def _clipping(readable: Sequence[Measures], found: Findings) -> None:
    value, frames = Counter(m.readings.high for m in readable).most_common(1)[0]
    clipped = [
        m
        for m in readable
        if m.readings.high == value
        and m.readings.at_highest > _CLIPPED
        # Coarse steps of the sensor far away fill the last value as much as the one before.
        and m.readings.at_highest > _HEAPED * m.readings.at_next
        and m.readings.low < value
    ]
    if frames > 1 and len(clipped) > 1:
        found.add(
            'clipped',
            'note',
            f'{len(clipped)} of {len(readable)} depth maps are clipped: more than {_CLIPPED:.1%} '
            f'of their readings are exactly {value:g} m, the greatest',
            'Such pixels are "at least so far", not readings: set max_depth a little below.',
            [m.depth_path for m in clipped],
        )
