"""Check RGB-D frames: damaged files, units, duplicates, registration, labels, splits.

Examples:
    mmmask3d check data/my_frames --html check.html
    mmmask3d check configs/my_config.py --json check.json

Exit code: 0 without errors, 1 with errors (--strict: or warnings), 2 if nothing can be checked.
"""

import argparse
from collections.abc import Sequence

from mmmask3d.atomic_file import write_file
from mmmask3d.cli.options import read_overrides
from mmmask3d.cli.source_options import add_source_arguments
from mmmask3d.cli.start import start
from mmmask3d.conversion.options import at_least_one, natural, share


def build_parser(prog: str | None = None) -> argparse.ArgumentParser:
    """Build the command line."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description=__doc__.splitlines()[0],
        epilog='Exit code: 0 without errors, 1 with errors, 2 if nothing can be checked.',
    )
    add_source_arguments(parser)
    parser.add_argument('--split', help='frames of this split only, such as train')
    parser.add_argument('--json', metavar='FILE', help='write the report as JSON')
    parser.add_argument('--html', metavar='FILE', help='write the report as one HTML page')
    parser.add_argument('--workers', type=at_least_one, default=2, help='threads (default: 2)')
    parser.add_argument(
        '--registration-frames',
        type=natural,
        default=100,
        metavar='N',
        help='frames per set to judge registration by (default: 100); 0 skips it',
    )
    parser.add_argument(
        '--tolerance',
        type=share,
        default=0.01,
        metavar='SHARE',
        help='displacement that counts as registered, share of the width (default: %(default)s)',
    )
    parser.add_argument('--seed', type=natural, default=0, help='of the statistics of registration')
    parser.add_argument('--strict', action='store_true', help='exit code 1 for warnings as well')
    parser.add_argument('--quiet', action='store_true', help='no progress bars')
    return parser


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Check and report.

    Returns:
        The exit code.
    """
    parser = build_parser(prog)
    args = parser.parse_args(argv)
    start()

    from mmmask3d.inspection.check import CheckOptions, check_sets
    from mmmask3d.inspection.report import as_html, as_json, as_text, counts
    from mmmask3d.inspection.sources import SourceOptionsError, open_sources

    args.cfg_options = read_overrides(args.cfg_options)
    try:
        sources = open_sources(args, args.split)
    except SourceOptionsError as error:
        parser.error(str(error))
    options = CheckOptions(
        args.workers, args.registration_frames, args.tolerance, args.seed, not args.quiet
    )
    checked, findings = check_sets(sources, options)
    print(as_text(checked, findings))
    try:
        if args.json:
            write_file(args.json, as_json(checked, findings))
        if args.html:
            write_file(args.html, as_html(checked, findings))
    except OSError as error:
        parser.error(f'the report cannot be written: {error}')
    found = counts(findings)
    return int(bool(found['error'] or (args.strict and found['warning'])))
