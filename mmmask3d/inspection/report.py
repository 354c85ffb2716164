"""Reports of a check: text for the terminal, JSON for programs, HTML to look at."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np

from mmmask3d.datasets.depth_io import FrameError
from mmmask3d.datasets.transforms.loading import LoadRGBD
from mmmask3d.inspection.check import CheckedSet
from mmmask3d.inspection.findings import LEVELS, Finding
from mmmask3d.inspection.measures import spread_indices
from mmmask3d.inspection.registration import LEAST_FRAMES, Registration
from mmmask3d.version import __version__
from mmmask3d.visualization.contact_sheet import frame_strip
from mmmask3d.visualization.html_page import Markup, Row, element, filtered, page, picture, table

SCHEMA_VERSION = 1
_SHOWN = 3  # files of a finding in the terminal
_LISTED = 500  # files of a finding in the page; the JSON has all
_EXAMPLES = 3  # frames shown in the page for each set


def counts(findings: Sequence[Finding]) -> dict[str, int]:
    """Number of findings by level."""
    found = Counter(f.level for f in findings)
    return {level: found[level] for level in LEVELS}


def _counts_line(findings: Sequence[Finding]) -> str:
    found = counts(findings).items()
    return ', '.join(f'{n} {level}' + ('' if n == 1 else 's') for level, n in found)


def as_json(checked: Sequence[CheckedSet], findings: Sequence[Finding]) -> bytes:
    """The report as JSON. Keys are only added within a schema version."""
    report = {
        'schema_version': SCHEMA_VERSION,
        'mmmask3d': __version__,
        'counts': counts(findings),
        'sets': [_set_data(one) for one in checked],
        'findings': [asdict(finding) for finding in findings],
    }
    return (json.dumps(report, indent=2) + '\n').encode('ascii')


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
        'splits': {name: len(listed) for name, listed in one.source.splits.items()},
        'registration': asdict(one.registration) if one.registration else None,
    }


def _described(one: CheckedSet) -> dict[str, str]:
    """What is known of a set, in words."""
    data = _set_data(one)
    sizes = list(data['sizes'])
    shown = ', '.join(sizes[:3]) + (', ...' if len(sizes) > 3 else '')
    unusable = f', {data["unusable"]} of them unusable' if data['unusable'] else ''
    lines = {'frames': f'{data["frames"]} frames of {shown or "no size"}{unusable}'}
    if depth := data['depth']:
        unit = ' m' if one.source.metric else ' (relative)'
        lines['depth'] = (
            f'{depth["low"]:.3g} to {depth["high"]:.3g}{unit}, median {depth["median"]:.3g}, '
            f'{depth["invalid_share"]:.1%} without a reading'
        )
    if one.registration:
        lines['registration'] = _registration_line(one.registration)
    if data['splits']:
        lines['splits'] = ', '.join(f'{name} {count}' for name, count in data['splits'].items())
    return lines


def _registration_line(found: Registration) -> str:
    if found.verdict == 'too few':
        return f'not judged: {found.used} frames have contours, {LEAST_FRAMES} are needed'
    right, down = found.shift
    low, high = (100 * v for v in found.interval)
    return (
        f'{found.verdict}; best at {right:+.1f} px right, {down:+.1f} px down, x{found.scale:.2f} '
        f'(displacement {100 * found.displacement:.2f} % of the width, 95 %: {low:.2f} to '
        f'{high:.2f} %); agreement there {found.agreement:.2f}, as it is '
        f'{found.agreement_as_is:.2f}, of shuffled pairs {found.agreement_shuffled:.2f} '
        f'(p = {found.p_value:.3f}); {found.used} frames'
    )


def as_text(checked: Sequence[CheckedSet], findings: Sequence[Finding]) -> str:
    """The report for a terminal."""
    lines = []
    for one in checked:
        described = _described(one)
        lines.append(f'{one.source.title}: {described.pop("frames")}')
        lines += [f'  {name}: {text}' for name, text in described.items()]
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


def as_html(checked: Sequence[CheckedSet], findings: Sequence[Finding]) -> bytes:
    """The report as a page that needs no other file."""
    found = counts(findings)
    kinds = {level: f'{level}s' for level in LEVELS if found[level]}
    content = [
        element('p', _counts_line(findings)),
        element('h2', 'Findings'),
        filtered(kinds, *map(_finding_section, findings)),
    ]
    for one in checked:
        rows = [Row(line) for line in _described(one).items()]
        content += [element('h2', one.source.title), table(('', ''), rows), *_examples(one)]
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


def _examples(one: CheckedSet) -> list[Markup]:
    """Some of the frames that registration was judged by, with their contours."""
    loader = LoadRGBD(backend_args=one.source.backend_args)
    drawn = []
    for place in spread_indices(len(one.judged), _EXAMPLES):
        index = one.judged[place]
        try:
            frame = loader(one.source.frames.get_data_info(index))
        except (FrameError, OSError):
            continue  # readable a moment ago; what it is now is not part of this report
        rgb = np.ascontiguousarray(frame['img'][..., ::-1])
        strip = frame_strip(rgb, frame['depth'], frame['valid'], unit=one.source.unit)
        name = one.measures[index].frame
        shown = picture(strip, f'colour, depth and contours of {name}')
        drawn.append(element('figure', element('figcaption', name), shown))
    return drawn
