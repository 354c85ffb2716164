"""Convert Cityscapes: ``cityscapes.py SOURCE OUT``; see ``docs/datasets/cityscapes.md``."""

import sys

from mmmask3d.conversion.cityscapes import CityscapesConverter
from mmmask3d.conversion.command_line import run

if __name__ == '__main__':
    sys.exit(run(CityscapesConverter))
