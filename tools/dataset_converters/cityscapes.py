"""Convert Cityscapes: ``cityscapes.py SOURCE OUT``; see ``docs/datasets/cityscapes.md``."""

import sys

from mmmask3d.conversion.command_line import run
from mmmask3d.conversion.sources.cityscapes import CityscapesConverter

if __name__ == '__main__':
    sys.exit(run(CityscapesConverter))
