"""Reports of a check: text for the terminal, JSON for programs, HTML to look at."""

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

import cv2
import numpy as np

from mmmask3d.atomic_file import write_file
from mmmask3d.datasets.depth_io import FrameError
from mmmask3d.datasets.transforms.loading import LoadRGBD
from mmmask3d.inspection.check import CheckedSet
from mmmask3d.inspection.findings import LEVELS, Finding
from mmmask3d.inspection.measures import spread_indices
from mmmask3d.version import __version__
from mmmask3d.visualization.colours import depth_to_rgb
from mmmask3d.visualization.contact_sheet import frame_strip
from mmmask3d.visualization.html_page import Markup, Row, element, filtered, page, picture, table

SCHEMA_VERSION = 1
_SHOWN = 3  # files of a finding in the terminal
_LISTED = 500  # files of a finding in the page; the JSON has all
_EXAMPLES = 3  # frames shown in the page for each set


def as_data(checked: Sequence[CheckedSet], findings: Sequence[Finding]) -> dict:
    """The report as plain data.

    Keys: ``schema_version``, ``mmmask3d`` (version), ``counts`` (findings by level), ``sets``,
    ``findings``. Keys are only added within a schema version.
    """
    return {
        'schema_version': SCHEMA_VERSION,
        'mmmask3d': __version__,
        'counts': counts(findings),
        'sets': [_set_data(one) for one in checked],
        'findings': [
            {**asdict(f), 'files': list(f.files), 'details': list(f.details)} for f in findings
        ],
    }


def counts(findings: Sequence[Finding]) -> dict[str, int]:
    """Number of findings by level."""
    found = Counter(f.level for f in findings)
    return {level: found[level] for level in LEVELS}


def _counts_line(findings: Sequence[Finding]) -> str:
    found = counts(findings).items()
    return ', '.join(f'{n} {level}' + ('' if n == 1 else 's') for level, n in found)


def _set_data(one: CheckedSet) -> dict:
    frames = one.source.frames
    depths = [m.depth for m in one.measures if m.depth is not None]
    statistics = {}
    if depths:
        statistics = {
            'median': float(np.median([d.median for d in depths])),
            'low': min(d.low for d in depths),
            'high': max(d.high for d in depths),
            'invalid_share': float(np.mean([d.invalid for d in depths])),
        }
    pixels = {}
    for maps in one.source.labels:
        total: Counter[int] = Counter()
        for m in one.measures:
            total.update(m.labels.get(maps.kind, {}))
        pixels[maps.kind] = {str(i): n for i, n in sorted(total.items())}
    registration = None
    if one.registration is not None:
        left_out = ('frames', 'map')
        registration = {
            **{k: _plain(v) for k, v in vars(one.registration).items() if k not in left_out},
            'frames': [
                {
                    'frame': one.measures[index].frame,
                    'shift': _plain(found.shift),
                    'state': found.state,
                }
                for index, found in zip(one.judged, one.registration.frames, strict=True)
                if found is not None
            ],
        }
    sizes = Counter(m.size for m in one.measures if m.size)
    return {
        'title': one.source.title,
        'frames': len(one.measures),
        'unusable': sum(m.depth is None or m.size is None for m in one.measures),
        'sizes': {f'{w}x{h}': n for (w, h), n in sizes.most_common()},
        'depth_kind': frames.depth_kind,
        'depth_scale': frames.depth_scale,
        'depth_invalid': list(frames.depth_invalid),
        'max_depth': frames.max_depth,
        'depth': statistics,
        'label_pixels': pixels,
        'splits': {name: len(listed) for name, listed in one.source.splits.items()},
        'registration': registration,
    }


def _plain(value: object) -> object:
    return [float(v) for v in value] if isinstance(value, tuple) else value


def as_json(checked: Sequence[CheckedSet], findings: Sequence[Finding]) -> bytes:
    """The report as JSON, see :func:`as_data`."""
    return (json.dumps(as_data(checked, findings), indent=2) + '\n').encode('ascii')


# ---------------------------------------------------------------- text


def as_text(checked: Sequence[CheckedSet], findings: Sequence[Finding]) -> str:
    """The report for a terminal."""
    lines = []
    for data in map(_set_data, checked):
        lines.append(f'{data["title"]}: {_frames_line(data)}')
        if data['depth']:
            lines.append(f'  depth: {_depth_line(data)}')
        if data['registration']:
            lines.append(f'  registration: {registration_line(data["registration"])}')
        if data['splits']:
            splits = ', '.join(f'{name} {count}' for name, count in data['splits'].items())
            lines.append(f'  splits: {splits}')
    for finding in findings:
        where = f' ({finding.source})' if len(checked) > 1 else ''
        lines.append(f'\n{finding.level.upper()} {finding.code}{where}: {finding.message}')
        if finding.details or finding.level != 'note':
            for number, file in enumerate(finding.files[:_SHOWN]):
                detail = f': {finding.details[number]}' if finding.details else ''
                lines.append(f'    {file}{detail}')
            if len(finding.files) > _SHOWN:
                lines.append(f'    ... and {len(finding.files) - _SHOWN} more')
        lines.append(f'  -> {finding.advice}')
    lines.append('\n' + _counts_line(findings))
    # Names may hold bytes, or control characters, that a terminal should not get.
    return ''.join(
        c if c.isprintable() or c == '\n' else f'\\x{ord(c):02x}' for c in '\n'.join(lines)
    )


def _frames_line(data: dict) -> str:
    sizes = list(data['sizes'])
    shown = ', '.join(sizes[:3]) + (', ...' if len(sizes) > 3 else '')
    unusable = f', {data["unusable"]} of them unusable' if data['unusable'] else ''
    return f'{data["frames"]} frames of {shown or "no size"}{unusable}'


def _depth_line(data: dict) -> str:
    depth, unit = data['depth'], ' m' if data['depth_kind'] == 'metric' else ' (relative)'
    return (
        f'{depth["low"]:.3g} to {depth["high"]:.3g}{unit}, median {depth["median"]:.3g}, '
        f'{depth["invalid_share"]:.1%} without a reading'
    )


def registration_line(data: dict) -> str:
    """One line about the registration of a set, from its plain data."""
    if data['verdict'] == 'too few':
        return f'not judged, {data["used"]} frames have enough contours'
    right, down = data['shift']
    low, high = (100 * v for v in data['interval'])
    return (
        f'{data["verdict"]}; best at {right:+.1f} px right, {down:+.1f} px down, '
        f'x{data["scale"]:.2f} (displacement {100 * data["displacement"]:.2f} % of the width, '
        f'95 %: {low:.2f} to {high:.2f} %); agreement there {data["agreement"]:.2f}, as it is '
        f'{data["agreement_as_is"]:.2f}, of shuffled pairs {data["agreement_shuffled"]:.2f} '
        f'(p = {data["p_value"]:.3f}); {data["used"]} frames'
    )


# ---------------------------------------------------------------- HTML


def as_html(checked: Sequence[CheckedSet], findings: Sequence[Finding]) -> bytes:
    """The report as a page that needs no other file."""
    found = counts(findings)
    content = [element('p', _counts_line(findings))]
    content.append(element('h2', 'Findings'))
    kinds = {level: f'{level}s' for level in LEVELS if found[level]}
    content.append(filtered(kinds, *map(_finding_section, findings)))
    for one in checked:
        content += _set_section(one)
    names = ', '.join(one.source.title for one in checked)
    return page(f'Check of {names}', *content)


def _finding_section(finding: Finding) -> Markup:
    parts = [
        element('p', element('b', f'{finding.level}: {finding.message}')),
        element('p', finding.advice),
    ]
    if finding.files:
        details = finding.details or ('',) * len(finding.files)
        rows = [
            Row((element('code', file), detail))
            for file, detail in list(zip(finding.files, details, strict=True))[:_LISTED]
        ]
        more = len(finding.files) - len(rows)
        parts.append(
            element(
                'details',
                element('summary', f'{len(finding.files)} files'),
                table(('file', 'found'), rows),
                f'... and {more} more, see the JSON report' if more else '',
            )
        )
    code = element('small', f'{finding.code}, {finding.source}')
    return element('section', *parts, code, class_=f'finding item {finding.level}')


def _set_section(one: CheckedSet) -> list[Markup]:
    data = _set_data(one)
    rows = [Row(('frames', _frames_line(data)))]
    if data['depth']:
        rows.append(Row(('depth', _depth_line(data))))
    rows.append(Row(('stored as', f'{data["depth_kind"]}, depth_scale={data["depth_scale"]:g}')))
    if data['splits']:
        rows.append(Row(('splits', ', '.join(f'{n}: {c}' for n, c in data['splits'].items()))))
    for kind, pixels in data['label_pixels'].items():
        rows.append(Row((kind, _label_line(one, kind, pixels))))
    content = [element('h2', one.source.title), table(('', ''), rows)]
    if one.registration is None:
        return content
    content.append(element('h2', 'Registration'))
    content.append(element('p', registration_line(data['registration'])))
    if one.registration.map is not None:
        content.append(
            element(
                'figure',
                picture(agreement_map(one.registration.map), 'agreement by shift'),
                element(
                    'figcaption',
                    'Agreement of depth contours and colour edges by shift of depth, at '
                    f'x{one.registration.scale:.2f}: right is right, down is down, the cross is '
                    '"as it is", the ring the best place. The picture spans a tenth of the width '
                    'to each side.',
                ),
            )
        )
    return content + _examples(one)


def _label_line(one: CheckedSet, kind: str, pixels: dict[str, int]) -> str:
    (names,) = (maps.names for maps in one.source.labels if maps.kind == kind)
    total = max(sum(pixels.values()), 1)
    return ', '.join(
        f'{names.get(int(i), f"id {i}")} {count / total:.1%}' for i, count in pixels.items()
    )


def agreement_map(agreement: np.ndarray) -> np.ndarray:
    """The agreement by shift as a picture, RGB uint8, with the best place and "as it is" marked."""
    enlarge = 9
    shown = depth_to_rgb(agreement, cmap='viridis')
    shown = np.ascontiguousarray(shown.repeat(enlarge, axis=0).repeat(enlarge, axis=1))
    down, right = np.unravel_index(agreement.argmax(), agreement.shape)
    centre = (int((right + 0.5) * enlarge), int((down + 0.5) * enlarge))
    cv2.circle(shown, centre, enlarge, (255, 0, 0), 2)
    middle = shown.shape[0] // 2
    cv2.drawMarker(shown, (middle, middle), (255, 255, 255), cv2.MARKER_CROSS, 2 * enlarge, 2)
    return shown


def _examples(one: CheckedSet) -> list[Markup]:
    """Frames with their contours, those with a shift of their own first."""
    judged = one.registration.frames if one.registration else ()
    states = {i: f.state for i, f in zip(one.judged, judged, strict=True) if f}
    order = sorted(states, key=lambda i: (states[i] != 'elsewhere', i))
    if order and 'elsewhere' not in states.values():
        order = [order[i] for i in spread_indices(len(order), _EXAMPLES)]
    loader = LoadRGBD(backend_args=one.source.backend_args)
    drawn = []
    for index in order[:_EXAMPLES]:
        try:
            frame = loader(one.source.frames.get_data_info(index))
        except (FrameError, OSError):
            continue  # readable a moment ago; what it is now is not part of this report
        strip = frame_strip(
            np.ascontiguousarray(frame['img'][..., ::-1]),
            frame['depth'],
            frame['valid'],
            unit=one.source.unit,
        )
        name = one.measures[index].frame
        drawn.append(
            element(
                'figure',
                element('figcaption', f'{name}: {states[index]}'),
                picture(strip, f'colour, depth and contours of {name}'),
            )
        )
    return drawn


def write_reports(
    checked: Sequence[CheckedSet],
    findings: Sequence[Finding],
    json_path: str | os.PathLike | None,
    html_path: str | os.PathLike | None,
) -> None:
    """Write the reports that are asked for."""
    if json_path:
        write_file(json_path, as_json(checked, findings))
    if html_path:
        write_file(html_path, as_html(checked, findings))
