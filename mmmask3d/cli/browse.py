"""Draw contact sheets of RGB-D frames, as they are or as the network sees them.

Examples:
    mmmask3d browse data/my_frames --out-dir look
    mmmask3d browse configs/my_config.py --out-dir look --pipeline
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mmmask3d.cli.options import read_overrides
from mmmask3d.cli.source_options import add_source_arguments
from mmmask3d.cli.start import start
from mmmask3d.conversion.options import at_least_one, natural


def build_parser(prog: str | None = None) -> argparse.ArgumentParser:
    """Build the command line."""
    parser = argparse.ArgumentParser(prog=prog, description='Draw contact sheets of RGB-D frames.')
    add_source_arguments(parser)
    parser.add_argument('--out-dir', required=True, help='folder for sheets and page')
    parser.add_argument('--split', help='frames of this split only, such as train')
    parser.add_argument('--num', type=at_least_one, default=12, help='frames, spread over the set')
    parser.add_argument('--index', type=int, nargs='+', help='frames by index instead')
    parser.add_argument(
        '--rows', type=at_least_one, default=6, help='frames on a sheet (default: 6)'
    )
    parser.add_argument(
        '--columns', type=at_least_one, help='pictures per row (default: all in one row)'
    )
    group = parser.add_argument_group('what the network sees (config only)')
    group.add_argument(
        '--pipeline', action='store_true', help='draw after the pipeline, with masks'
    )
    group.add_argument('--draws', type=at_least_one, default=3, help='draws per frame (default: 3)')
    group.add_argument('--seed', type=natural, default=0, help='seed of the run')
    return parser


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Draw and write the pictures.

    Returns:
        The exit code: 0, or 1 where a frame could not be drawn.
    """
    parser = build_parser(prog)
    args = parser.parse_args(argv)
    if args.pipeline and not args.source.endswith('.py'):
        parser.error('--pipeline needs a config file (.py): it has one.')
    if args.pipeline and args.split not in (None, 'train', 'val', 'test'):
        parser.error(f'--split {args.split}: a config has train, val, test.')
    start()

    from mmmask3d.config_files import read_config_file
    from mmmask3d.inspection.browse import draw_frames, draw_pipeline, write_pictures
    from mmmask3d.inspection.sources import SourceOptionsError, open_sources

    args.cfg_options = read_overrides(args.cfg_options)
    try:
        if args.pipeline:
            split = args.split or 'train'
            cfg = read_config_file(args.source, args.cfg_options)
            drawn = draw_pipeline(
                cfg, split, args.num, args.index, args.draws, args.seed, args.columns
            )
        else:
            sources = open_sources(args, args.split)
            drawn = draw_frames(sources, args.num, args.index, args.columns)
    except (SourceOptionsError, FileNotFoundError) as error:
        parser.error(str(error))
    try:
        files = write_pictures(drawn, Path(args.out_dir), args.rows, args.source)
    except OSError as error:
        parser.error(f'the pictures cannot be written: {error}')
    for path in files:
        print(path)
    failed = [one for one in drawn if one.error]
    for one in failed:
        print(f'frame {one.frame!r} cannot be drawn: {one.error}', file=sys.stderr)
    return int(bool(failed))
