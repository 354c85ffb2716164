"""Convert Cityscapes: ``cityscapes.py SOURCE OUT``; see ``docs/datasets/cityscapes.md``."""

import sys

from mmmask3d.cli.convert import convert

if __name__ == '__main__':
    sys.exit(convert('cityscapes'))
