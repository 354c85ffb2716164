"""Convert TUM RGB-D: ``tum.py SOURCE OUT``; see ``docs/datasets/tum.md``."""

import sys

from mmmask3d.cli.convert import convert

if __name__ == '__main__':
    sys.exit(convert('tum'))
