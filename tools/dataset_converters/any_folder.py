"""Convert any folder of colour and depth pairs; see docs/datasets/your_frames.md."""

import sys

from mmmask3d.cli.convert import convert

if __name__ == '__main__':
    sys.exit(convert('folder'))
