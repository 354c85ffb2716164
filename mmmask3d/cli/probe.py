"""Score frozen encoders: labels or depth, by a linear map or by nearest neighbours.

    python tools/analysis_tools/probe.py configs/segmentation/mask3d-tiny_fcn_rooms-240x320.py \
        --encoder mask3d=encoder.pth --random

The config names the data (its training frames are read with the validation pipeline), the encoder's
architecture and the normalisation; a config of depth estimation or of pre-training probes depth.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from mmmask3d.cli.options import add_config_overrides, read_overrides
from mmmask3d.cli.start import start


def parse_args(argv: Sequence[str] | None = None, prog: str | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog=prog, description=__doc__.splitlines()[0])
    parser.add_argument('config', help='config of segmentation, depth or pre-training')
    parser.add_argument(
        '--encoder', nargs='+', default=[], metavar='NAME=FILE', help='exported encoders'
    )
    parser.add_argument(
        '--random', action='store_true', help='also untrained weights, the result to beat'
    )
    parser.add_argument(
        '--methods', nargs='+', choices=['linear', 'knn'], default=['linear', 'knn']
    )
    parser.add_argument('--limit', type=int, metavar='N', help='at most N frames of each split')
    parser.add_argument('--batch-size', type=int, default=16)
    parser.add_argument('--seed', type=int, default=0, help='of the random weights')
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--out', type=Path, metavar='JSON', help='write the figures')
    add_config_overrides(parser)
    args = parser.parse_args(argv)
    args.encoders = {}
    for given in args.encoder:
        name, separator, file = given.partition('=')
        if not separator or not name or not file:
            parser.error(f'--encoder takes NAME=FILE, got {given!r}')
        if name in args.encoders or name == 'random':
            parser.error(f'--encoder: {name!r} is named twice (random is taken)')
        args.encoders[name] = file
    if not args.encoders and not args.random:
        parser.error('name at least one --encoder, or --random')
    if args.limit is not None and args.limit < 1:
        parser.error(f'--limit must be at least 1, got {args.limit}')
    return args


def table(results: dict[str, dict[str, dict[str, float]]]) -> str:
    """The figures as a Markdown table."""
    first = next(iter(next(iter(results.values())).values()))
    lines = ['| encoder | probe | ' + ' | '.join(first) + ' |', '|---' * (2 + len(first)) + '|']
    for name, methods in results.items():
        for method, figures in methods.items():
            row = ' | '.join(f'{value:.4g}' for value in figures.values())
            lines.append(f'| {name} | {method} | {row} |')
    return '\n'.join(lines)


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Run the command."""
    args = parse_args(argv, prog)
    start()

    from mmmask3d.apis.probing import probe_encoders
    from mmmask3d.engine.run_config import load_config

    encoders = {**args.encoders, **({'random': None} if args.random else {})}
    try:
        cfg = load_config(args.config, cfg_options=read_overrides(args.cfg_options))
        results = probe_encoders(
            cfg, encoders, args.methods, args.limit, args.batch_size, args.seed, args.device
        )
    except (OSError, ValueError, RuntimeError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    print(table(results))
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(results, indent=2) + '\n')
    return 0
