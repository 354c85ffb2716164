"""The command line that all converters share."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from mmmask3d.atomic_file import replacing
from mmmask3d.conversion.converter import Converter
from mmmask3d.conversion.job import ConversionError, JobOptions, Result, convert
from mmmask3d.conversion.options import at_least_one
from mmmask3d.conversion.paths import SourceError
from mmmask3d.conversion.storage import StorageError
from mmmask3d.conversion.workers import WorkerError


class _Formatter(argparse.ArgumentDefaultsHelpFormatter):
    """Adds defaults where there are any."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return super()._get_help_string(action) if action.default else action.help


def build_parser(converter: type[Converter], prog: str | None = None) -> argparse.ArgumentParser:
    """Build the parser of a converter: shared options and those of the data set."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description=(converter.__doc__ or '').splitlines()[0],
        formatter_class=_Formatter,
    )
    converter.add_folders(parser)
    parser.add_argument(
        '--workers',
        type=at_least_one,
        default=2,
        help='processes; the files are the same for any number',
    )
    parser.add_argument(
        '--size',
        type=at_least_one,
        nargs=2,
        metavar=('WIDTH', 'HEIGHT'),
        default=converter.default_size,
        help='size of the output'
        if converter.default_size
        else 'size of the output (default: that of the depth maps, else of the colour images)',
    )
    parser.add_argument(
        '--on-error',
        choices=['raise', 'drop'],
        default='raise',
        help='damaged frames: convert the others and fail, or leave them out',
    )
    parser.add_argument('--limit', type=at_least_one, metavar='N', help='the first N frames only')
    parser.add_argument(
        '--contact-sheet', type=Path, metavar='PNG', help='draw some of the frames into a picture'
    )
    converter.add_arguments(parser.add_argument_group(converter.title))
    return parser


def run(
    converter: type[Converter],
    arguments: Sequence[str] | None = None,
    prog: str | None = None,
) -> int:
    """Run a converter from its command line.

    Args:
        converter: The class.
        arguments: Instead of those of the process.
        prog: Name of the command in its help; that of the script by default.

    Returns:
        Exit code: 0, or 1 where the source is damaged or the output cannot be written.
    """
    # Libraries read it as they are loaded: with a thread a core in each worker, threads would wait
    # for each other in busy loops.
    os.environ.setdefault('OMP_NUM_THREADS', '1')
    parser = build_parser(converter, prog)
    args = parser.parse_args(arguments)
    options = JobOptions(
        size=tuple(args.size) if args.size else None,
        workers=args.workers,
        on_error=args.on_error,
        limit=args.limit,
    )
    try:
        result = convert(converter(args), args.out, options)
    except (ConversionError, SourceError, StorageError, WorkerError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('interrupted; the same call goes on where this one stopped', file=sys.stderr)
        return 130
    print(summary(result, args.out))
    if args.contact_sheet:
        write_contact_sheet(args.out, args.contact_sheet)
        print(f'Contact sheet: {args.contact_sheet}')
    return 0


def write_contact_sheet(out: Path, path: Path) -> None:
    """Draw twelve frames from all parts of a converted folder."""
    # These import torch, which nothing else here needs.
    from mmmask3d.inspection.browse import draw_frames
    from mmmask3d.inspection.sources import open_folder
    from mmmask3d.visualization.panels import stack_panels, write_png

    drawn = draw_frames([open_folder(out, {'ann_file': 'splits/all.txt'})], 12)
    with replacing(path) as temporary:
        write_png(temporary, stack_panels([one.picture for one in drawn]))


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
            + (
                f'; {100 * found["unsure_share"]:.1f} % of the readings dropped for low confidence'
                if 'unsure_share' in found
                else ''
            )
        )
    if manifest['left_out']:
        lines.append(f'  left out, see manifest.json: {len(manifest["left_out"])}')
    settings = {
        'type': 'mmmask3d.RGBDDataset',
        'data_root': str(out),
        **manifest['rgbd_dataset'],
    }
    lines.append('In a config:')
    lines.append('  dict(' + ',\n       '.join(f'{k}={v!r}' for k, v in settings.items()) + ')')
    return '\n'.join(lines)
