"""The unit of stored depth as a command line names it; one option, the same for all converters."""

import argparse
import re

UNITS = {'mm': 1000.0, 'cm': 100.0, 'm': 1.0}


def stored_per_metre(text: str) -> float:
    """Parse a unit for ``argparse``: mm, cm, m, or a number of stored units per metre."""
    text = text.strip()
    if text in UNITS:
        return UNITS[text]
    if re.fullmatch(r'\d+(\.\d+)?', text) and float(text) > 0:
        return float(text)
    raise argparse.ArgumentTypeError(
        f'expected mm, cm, m, or a number of stored units per metre, got {text!r}'
    )


def add_argument(parser: argparse._ActionsContainer, default: float) -> None:
    """Add ``--unit`` for a layout that does not prove its unit.

    Args:
        parser: Where to add it.
        default: Stored units per metre of the data set that the layout is named after.
    """
    parser.add_argument(
        '--unit',
        type=stored_per_metre,
        default=default,
        metavar='{mm,cm,m,N}',
        help='unit of the depth files; N stored units per metre. The files do not say: recordings '
        'of your own in this layout may differ from the data set',
    )
