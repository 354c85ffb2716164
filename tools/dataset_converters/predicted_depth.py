"""Convert colour frames with predicted depth; see docs/datasets/predicted_depth.md."""

import sys

from mmmask3d.cli.convert import convert

if __name__ == '__main__':
    sys.exit(convert('predicted-depth'))
