"""Options that several converters have, and what ``argparse`` makes of numbers and units."""

import argparse
import math
import re

UNITS = {'mm': 1000.0, 'cm': 100.0, 'm': 1.0}


def above_zero(text: str) -> float:
    """Parse a number above 0."""
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f'expected a number above 0, got {text}')
    return value


def at_least_one(text: str) -> int:
    """Parse a whole number of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f'expected at least 1, got {text}')
    return value


def add_every(parser: argparse._ActionsContainer, default: int, what: str) -> None:
    """Add ``--every``, which thins out recordings; ``what`` is one of those."""
    parser.add_argument(
        '--every',
        type=at_least_one,
        default=default,
        metavar='N',
        help=f'take every Nth frame of {what}',
    )


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


def add_unit(parser: argparse._ActionsContainer, default: float) -> None:
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
