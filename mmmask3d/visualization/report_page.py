"""The report card of encoders as one HTML page."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmmask3d.visualization.html_page import Markup, Row, element, page, picture, table

#: Heading, unit and whether more is better, by figure.
FIGURES = {
    'mIoU': ('mIoU', '%', True),
    'aAcc': ('pixels right', '%', True),
    'rmse': ('RMSE', 'm', False),
    'abs_rel': ('relative error', '', False),
    'delta1': ('within 1.25', '', True),
    'std_rmse': ('RMSE / std', '', False),
    'mean': ('mean angle', '°', False),
    'median': ('median angle', '°', False),
    'a1': ('within 11.25°', '%', True),
    'a2': ('within 22.5°', '%', True),
    'a3': ('within 30°', '%', True),
    'r5': ('within 5 px', '%', True),
    'r10': ('within 10 px', '%', True),
    'r20': ('within 20 px', '%', True),
}
_TITLES = {
    'labels': 'Labels',
    'depth': 'Depth',
    'normals': 'Surface normals',
    'efficiency': 'Label efficiency',
    'correspondence': 'Correspondence of two views',
}
_EXPLAINED = {
    'labels': 'Classes of the pixels, by logistic regression on frozen patches and by their '
    'nearest neighbours.',
    'depth': 'By ridge regression on frozen patches and by nearest neighbours.',
    'normals': 'By ridge regression on frozen patches; the truth is fitted to depth, planes over a '
    'window.',
    'efficiency': 'Logistic regression on a part of the labelled frames; each part holds the '
    'smaller ones.',
    'correspondence': 'Each point goes to the most similar feature of the other view, without any '
    'training. Distances in pixels of the frames as they were read; by rotation between the views: '
    'within 10 px.',
}
RECONSTRUCTION = 'reconstruction'
"""Caption of a picture that takes a row of its own."""
_METHODS = {'linear': 'linear', 'knn': 'nearest neighbours'}
_STYLE = """<style>
.tiles { display: grid; gap: .6em; max-width: 1320px; grid-template-columns:
  repeat(auto-fill, minmax(max(140px, 100% / (var(--columns) + 1) + 1px), 1fr)); }
.tiles figure { margin: 0; } .tiles .wide { grid-column: 1 / -1; }
.tiles img { width: 100%; display: block; } .tiles figcaption { font-size: 13px; }
.scroll { overflow-x: auto; } .scroll td, .scroll th { white-space: nowrap; }
</style>"""


def report_page(
    results: Mapping[str, Any],
    pictures: Sequence[tuple[str, Sequence[tuple[str, np.ndarray]]]],
) -> bytes:
    """Lay the figures and pictures out on one page.

    Args:
        results: As :class:`~mmmask3d.apis.report_card.ReportCard` has them.
        pictures: Titles, and captions with RGB uint8 pictures.
    """
    parts = results['parts']
    groups: dict[str, dict[str, Any]] = {}
    for name, found in parts.items():
        groups.setdefault(name.partition('/')[0], {})[found['method']] = found
    content: list[Markup] = [Markup(_STYLE), _data(results['data']), _encoders(results['encoders'])]
    for methods in groups.values():
        first = next(iter(methods.values()))
        measure, classes = first['measure'], first['classes']
        content += [
            element('h2', _TITLES[measure] + (f', {classes} classes' if classes else '')),
            element('p', _EXPLAINED[measure]),
            _figures(measure, methods),
            *(_differences(_METHODS.get(m, m), found) for m, found in methods.items()),
        ]
    if pictures:
        content.append(element('h2', 'Pictures'))
    for heading, tiles in pictures:
        # Truths in one row, and each encoder in one below; fewer columns on a phone.
        columns = sum(':' not in caption for caption, _ in tiles) or 2
        figures = [
            element(
                'figure', picture(image, caption), element('figcaption', caption),
                class_='wide' if caption.endswith(RECONSTRUCTION) else None,
            )
            for caption, image in tiles
        ]  # fmt: skip
        content.append(element('h3', heading))
        style = f'--columns: {columns}'
        content.append(element('div', *figures, class_='tiles', style=style))
    return page('Report card of encoders', *content)


def _data(data: Mapping[str, Any]) -> Markup:
    height, width = data['frame_size']
    lines = [
        f'Fitted on {data["fitted_on"]} frames, scored on {data["scored_on"]} others of '
        f'{width} x {height} pixels, the same for all encoders. Nothing of an encoder is trained.',
        'Bold: the best of a column, and what is within noise of it. ± is the standard deviation '
        'over training seeds.',
        *data['notes'],
    ]
    return Markup(''.join(element('p', line) for line in lines))


def _scroll(content: Markup) -> Markup:
    return element('div', content, class_='scroll')


def _encoders(encoders: Mapping[str, Mapping[str, Any]]) -> Markup:
    rows = [
        Row((
            name, ', '.join(one['sources']), f'{one["parameters"] / 1e6:.1f} M',
            '{} x {}'.format(*one['input']), '{} x {}'.format(*one['grid']), one['channels'],
        ))
        for name, one in encoders.items()
    ]  # fmt: skip
    headings = ('encoder', 'from', 'parameters', 'input (h x w)', 'patches', 'channels')
    return _scroll(table(headings, rows))


def _shown(name: str) -> tuple[str, str, bool]:
    if name.startswith('r10_'):
        return (name.removeprefix('r10_').replace('-', ' to ') + '°', '%', True)
    return FIGURES[name]


def _figures(measure: str, methods: Mapping[str, Any]) -> Markup:
    """One table: a row for each encoder and method, the best of a column in bold."""
    figures = next(iter(methods.values()))['figures']
    names = [n for n in next(iter(figures.values())) if not n.startswith('chance')]
    rows = []
    for method, found in methods.items():
        best = {name: _best(name, found) for name in names}
        for encoder, figures in found['figures'].items():
            cells: list[object] = [encoder]
            if measure != 'correspondence':
                cells.append(_METHODS.get(method, method))
            spread = found['spreads'].get(encoder, {})
            for name in names:
                value = _number(figures[name])
                if spread:
                    value += f' ± {spread[name]:.2g}'
                cells.append(element('b', value) if encoder in best[name] else value)
            rows.append(Row(cells))
        if measure == 'correspondence':
            chance = next(iter(found['figures'].values()))
            values = (_number(chance[n.replace('r', 'chance')]) if n in ('r5', 'r10', 'r20') else ''
                      for n in names)  # fmt: skip
            rows.append(Row(['chance', *values]))
    how = {'efficiency': 'of the frames', 'correspondence': None}.get(measure, 'probe')
    headings = ['encoder', *([how] if how else [])]
    for name in names:
        shown, unit, _ = _shown(name)
        headings.append(f'{shown} ({unit})' if unit and unit not in shown else shown)
    return _scroll(table(headings, rows))


def _best(name: str, found: Mapping[str, Any]) -> set[str]:
    """The encoder with the best value of a figure, and those that are within noise of it."""
    values = {encoder: figures[name] for encoder, figures in found['figures'].items()}
    if len(values) == 1:
        return set()
    first = (max if _shown(name)[2] else min)(values, key=lambda encoder: values[encoder])
    near = {first}
    for encoder in values:
        for pair in (f'{first} - {encoder}', f'{encoder} - {first}'):
            if found['differences'].get(pair, {}).get(name, {}).get('within_noise'):
                near.add(encoder)
    return near


def _number(value: float) -> str:
    return f'{value:.1f}' if abs(value) >= 10 else f'{value:.3g}'


def _differences(method: str, found: Mapping[str, Any]) -> Markup:
    """Differences between encoders with their intervals, folded."""
    rows, noise, total = [], 0, 0
    for pair, figures in found['differences'].items():
        for name, one in figures.items():
            if name.startswith('chance'):
                continue
            total += 1
            noise += one['within_noise']
            better = _shown(name)[2] == (one['difference'] > 0)
            first, _, second = pair.partition(' - ')
            verdict = 'within noise' if one['within_noise'] else (first if better else second)
            rows.append(
                Row((
                    pair, _shown(name)[0], f'{one["difference"]:+.3g}',
                    f'{one["low"]:+.3g} to {one["high"]:+.3g}', verdict,
                ))
            )  # fmt: skip
    if not rows:
        return Markup('')
    counted = f'{found["frames"]} frames'
    if found['rows'] != found['frames']:
        counted = f'{found["rows"]} pairs of {counted}'
    summary = f'{method or "Differences"}: {noise} of {total} differences are within noise'
    explained = f'95 % interval of a paired bootstrap over {counted}; with few frames, or frames '
    explained += 'of one video, it is too narrow. '
    explained += (
        'It covers other training seeds of ' + ', '.join(found['spreads'])
        if found['spreads']
        else 'It says nothing of other training seeds'
    )
    explained += '.'
    headings = ('encoders', 'figure', 'difference', '95 % interval', 'ahead')
    return element(
        'details',
        element('summary', summary),
        element('p', explained),
        _scroll(table(headings, rows)),
    )
