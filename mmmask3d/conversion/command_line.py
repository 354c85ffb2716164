"""The command line that all converters share."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mmmask3d.conversion.converter import Converter
from mmmask3d.conversion.job import ConversionError, JobOptions, Result, convert
from mmmask3d.conversion.paths import SourceError
from mmmask3d.conversion.storage import StorageError

_LARGEST_SIDE = 8192


def build_parser(converter: type[Converter]) -> argparse.ArgumentParser:
    """Build the parser of a converter: shared options and those of the data set."""
    parser = argparse.ArgumentParser(
        description=converter.__doc__.splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument('source', type=Path, help='the data set as distributed')
    parser.add_argument('out', type=Path, help='folder to fill: new, empty, or interrupted before')
    parser.add_argument('--workers', type=int, default=2, help='processes; no influence on files')
    parser.add_argument(
        '--size',
        type=int,
        nargs=2,
        metavar=('WIDTH', 'HEIGHT'),
        help='size of the output (default: that of the depth maps)',
    )
    parser.add_argument(
        '--on-error',
        choices=['raise', 'drop'],
        default='raise',
        help='damaged frames: convert the others and fail, or leave them out',
    )
    parser.add_argument('--limit', type=int, metavar='N', help='the first N frames only')
    converter.add_arguments(parser.add_argument_group(converter.title))
    return parser


def run(converter: type[Converter], arguments: Sequence[str] | None = None) -> int:
    """Run a converter from its command line.

    Args:
        converter: The class.
        arguments: Instead of those of the process.

    Returns:
        Exit code: 0, or 1 where the source is damaged or the output cannot be written.
    """
    parser = build_parser(converter)
    args = parser.parse_args(arguments)
    if args.workers < 1:
        parser.error(f'--workers must be at least 1, got {args.workers}')
    if args.limit is not None and args.limit < 1:
        parser.error(f'--limit must be at least 1, got {args.limit}')
    if args.size and not all(1 <= side <= _LARGEST_SIDE for side in args.size):
        parser.error(f'--size must lie between 1 and {_LARGEST_SIDE}, got {args.size}')
    options = JobOptions(
        size=tuple(args.size) if args.size else None,
        workers=args.workers,
        on_error=args.on_error,
        limit=args.limit,
    )
    try:
        result = convert(converter(args), args.out, options)
    except (ConversionError, SourceError, StorageError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('interrupted; the same call goes on where this one stopped', file=sys.stderr)
        return 130
    print(summary(result, args.out))
    return 0


def summary(result: Result, out: Path) -> str:
    """What was made, and how a config reads it."""
    manifest = result.manifest
    total = manifest['frames']
    lines = [
        f'{out}: converted {result.made}, {total} frames in all'
        if result.made
        else f'{out}: all {total} frames are there, nothing to do'
    ]
    for split, content in manifest['splits'].items():
        instances = f', {content["instances"]} instances' if 'instances' in content else ''
        lines.append(f'  splits/{split}.txt: {content["frames"]} frames{instances}')
    unit = ' m' if manifest['depth_kind'] == 'metric' else ''
    for kind, found in manifest['depth'].items():
        lines.append(
            f'  {kind}: {100 * found["invalid_share"]:.1f} % without a reading, '
            f'{found["low"]:.3g} to {found["high"]:.3g}{unit}, median {found["median"]:.3g}{unit}'
        )
    if manifest['left_out']:
        lines.append(f'  left out, see manifest.json: {len(manifest["left_out"])}')
    lines += ['In a config:', f"  dict(type='RGBDDataset', data_root={str(out)!r},"]
    folders = manifest['folders']
    if (folders['rgb'], folders['depth']) != ('rgb', 'depth'):
        lines.append(
            f'       data_prefix=dict(img_path={folders["rgb"]!r}, '
            f'depth_path={folders["depth"]!r}),'
        )
    lines.append(
        f"       ann_file='splits/all.txt', img_suffix={manifest['suffixes']['rgb']!r}, "
        f'depth_suffix={manifest["suffixes"]["depth"]!r},'
    )
    lines.append(
        f'       depth_scale={manifest["depth_scale"]:g}, depth_kind={manifest["depth_kind"]!r})'
    )
    return '\n'.join(lines)
