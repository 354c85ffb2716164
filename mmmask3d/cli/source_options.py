"""Options by which commands open a data folder or a config."""

import argparse

from mmmask3d.cli.options import add_config_overrides


def add_source_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the tools need to open a folder or a config."""
    parser.add_argument('source', help='data folder, or config file (.py)')
    group = parser.add_argument_group(
        'data folder (what is not given is taken from its manifest.json, if it has one)'
    )
    group.add_argument('--rgb', metavar='FOLDER', help='colour files (default: rgb)')
    group.add_argument('--depth', metavar='FOLDER', help='depth files (default: depth)')
    group.add_argument('--img-suffix', metavar='SUFFIX', help='of colour files (default: .jpg)')
    group.add_argument('--depth-suffix', metavar='SUFFIX', help='of depth files (default: .png)')
    group.add_argument(
        '--depth-scale', type=float, metavar='S', help='stored units per metre (default: 1000)'
    )
    group.add_argument('--depth-kind', choices=['metric', 'relative'])
    group.add_argument(
        '--depth-invalid',
        type=float,
        nargs='*',
        metavar='VALUE',
        help='stored values that mean "no reading" (default: 0; no value for none)',
    )
    group.add_argument('--min-depth', type=float, metavar='METRES')
    group.add_argument('--max-depth', type=float, metavar='METRES')
    group.add_argument('--confidence', metavar='FOLDER', help='confidence maps (default: none)')
    group.add_argument(
        '--confidence-suffix', metavar='SUFFIX', help='of confidence maps (default: .png)'
    )
    group.add_argument(
        '--min-confidence',
        type=float,
        metavar='VALUE',
        help='drop readings of less confidence, in the values as stored',
    )
    group.add_argument('--ann-file', metavar='FILE', help='index file (default: all files)')
    group.add_argument(
        '--labels',
        action='append',
        default=[],
        metavar='FOLDER=CLASSES',
        help='folder of label maps; CLASSES is nyu13, nyu40, scannet20, a number, or a text file '
        'with one name per line',
    )
    group = parser.add_argument_group('config file')
    add_config_overrides(group)
