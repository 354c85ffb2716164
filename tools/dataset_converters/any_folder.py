"""Convert any folder of colour and depth pairs; see docs/datasets/your_frames.md."""

import sys

from mmmask3d.conversion.command_line import run
from mmmask3d.conversion.sources.folder import FolderConverter

if __name__ == '__main__':
    sys.exit(run(FolderConverter))
