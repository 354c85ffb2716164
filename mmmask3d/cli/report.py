r"""Say what frozen encoders know: labels, depth, normals, correspondence, on one page.

    mmmask3d report untouched=timm:vit_small_patch14_dinov2.lvd142m continued=encoder.pth random \
        --data configs/segmentation/mask3d-tiny_fcn_rooms-240x320.py \
        configs/mask3d/mask3d_vit-tiny_b32-100e_rooms-240x320.py --size 168 224 --out report.html

An encoder is a file (an export of this project, or mmpretrain's names), timm:NAME, a config whose
model.backbone names its weights, or random:ONE_OF_THESE; `random` alone is the first one's
architecture. Several with commas (anchored=a.pth,b.pth,c.pth) are one method with other training
seeds: mean and spread are shown. The configs name the frames; where two hold the same pictures,
labels come from one and depth from the other.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from mmmask3d.cli.options import add_config_overrides
from mmmask3d.cli.start import command
from mmmask3d.conversion.options import at_least_one, natural, number

_PARTS = ('labels', 'depth', 'normals', 'correspondence', 'efficiency')
_METHODS = ('linear', 'knn')


def parse_args(argv: Sequence[str] | None = None, prog: str | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description=__doc__.splitlines()[0],
        epilog=__doc__.partition('\n\n')[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        'encoders', nargs='+', metavar='NAME=ENCODER[,ENCODER...]',
        help='encoders by name; @HEIGHTxWIDTH at the end sets an input size of its own',
    )  # fmt: skip
    parser.add_argument(
        '--data', nargs='+', required=True, metavar='CONFIG',
        help='configs of segmentation, depth or pre-training whose frames are used',
    )  # fmt: skip
    parser.add_argument('--out', type=Path, metavar='HTML', help='write the page')
    parser.add_argument(
        '--json', type=Path, metavar='JSON', help='write the figures (default: next to the page)'
    )
    parser.add_argument('--only', nargs='+', choices=_PARTS, default=list(_PARTS))
    parser.add_argument(
        '--methods', nargs='+', choices=_METHODS, default=list(_METHODS),
        help='probes of labels and depth (default: both)',
    )  # fmt: skip
    parser.add_argument(
        '--size', nargs=2, type=at_least_one, metavar=('HEIGHT', 'WIDTH'),
        help="input, rounded to whole patches of each encoder (default: the frames' own)",
    )  # fmt: skip
    parser.add_argument(
        '--limit', type=at_least_one, metavar='N', help='at most N frames of each split'
    )
    parser.add_argument('--pictures', type=natural, default=4, help='frames drawn (default: 4)')
    parser.add_argument(
        '--fov', type=number(float, lambda value: 0 < value < 180, 'degrees between 0 and 180'),
        default=57.0,
        help='horizontal field of view in degrees for normals, where the frames do not say it '
        "(default: 57, a Kinect's)",
    )  # fmt: skip
    parser.add_argument('--batch-size', type=at_least_one, default=16)
    parser.add_argument('--seed', type=int, default=0, help='of random weights and draws')
    parser.add_argument('--device', default='cpu')
    add_config_overrides(parser)
    args = parser.parse_args(argv)
    args.encoders = _named(parser, args.encoders)
    if args.json is None and args.out is not None:
        args.json = args.out.with_suffix('.json')
    return args


def _named(parser: argparse.ArgumentParser, given: Sequence[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for text in given:
        name, separator, source = text.partition('=')
        runs = source.split(',')
        if text != 'random' and not (separator and name and all(runs)):
            parser.error(f'expected NAME=ENCODER or random, got {text!r}')
        if name in found:
            parser.error(f'two encoders are named {name!r}')
        found[name] = runs
    if found.get('random') == ['']:
        first = next((runs[0] for runs in found.values() if runs[0]), None)
        if first is None:
            parser.error('random needs an encoder whose architecture it takes: random=random:FILE')
        found['random'] = [first if first.startswith('random:') else f'random:{first}']
    return found


def as_text(results: dict) -> str:
    """The figures as Markdown tables."""
    lines = []
    for part, found in results['parts'].items():
        names = list(next(iter(found['figures'].values())))
        lines += [f'{part}, {found["rows"]} rows', '']
        lines += ['| encoder | ' + ' | '.join(names) + ' |', '|---' * (1 + len(names)) + '|']
        for encoder, figures in found['figures'].items():
            spread = found['spreads'].get(encoder, {})
            cells = [f'{figures[n]:.4g}' + (f' ± {spread[n]:.2g}' if spread else '') for n in names]
            lines.append(f'| {encoder} | ' + ' | '.join(cells) + ' |')
        lines.append('')
    return '\n'.join([*lines, *results['data']['notes']])


@command(parse_args)
def main(args: argparse.Namespace) -> None:
    """Run the command."""
    from mmmask3d.apis.report_card import ReportOptions, report_encoders
    from mmmask3d.atomic_file import write_file
    from mmmask3d.engine.run_config import load_config
    from mmmask3d.visualization.report_page import report_page

    options = ReportOptions(
        args.only, tuple(args.size) if args.size else None, args.limit, args.pictures, args.fov,
        args.batch_size, args.seed, args.device, args.methods,
    )  # fmt: skip
    configs = [load_config(path, cfg_options=args.cfg_options) for path in args.data]
    card = report_encoders(
        configs, args.encoders, options, lambda line: print(line, file=sys.stderr)
    )
    print(as_text(card.results))
    if args.out:
        write_file(args.out, report_page(card.results, card.pictures))
    if args.json:
        write_file(args.json, (json.dumps(card.results) + '\n').encode())
