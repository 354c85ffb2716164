"""Options that several converters have; numbers and units on any command line."""

import argparse
import math
import re
from collections.abc import Callable
from typing import Any

UNITS = {'mm': 1000.0, 'cm': 100.0, 'm': 1.0}


def number(
    kind: type[int] | type[float], fits: Callable[[Any], bool], expected: str
) -> Callable[[str], Any]:
    """Type of an option that takes a number which ``fits``; ``expected`` says which do."""

    def read(text: str) -> Any:
        value = kind(text)
        if not fits(value):
            raise argparse.ArgumentTypeError(f'expected {expected}, got {text}')
        return value

    read.__name__ = kind.__name__  # what argparse calls it where the text is no number
    return read


at_least_one = number(int, lambda value: value >= 1, 'at least 1')
natural = number(int, lambda value: value >= 0, '0 or more')
share = number(float, lambda value: 0 < value < 1, 'a share between 0 and 1')
above_zero = number(float, lambda value: 0 < value < math.inf, 'a number above 0')


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
