"""Convert TUM RGB-D: ``tum.py SOURCE OUT``; see ``docs/datasets/tum.md``."""

import sys

from mmmask3d.conversion.command_line import run
from mmmask3d.conversion.sources.tum import TUMConverter

if __name__ == '__main__':
    sys.exit(run(TUMConverter))
