"""Numbers on the command line of a converter, for ``argparse``."""

import argparse
import math


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
