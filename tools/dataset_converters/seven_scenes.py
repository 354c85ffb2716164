"""Convert 7-Scenes: ``seven_scenes.py SOURCE OUT``; see ``docs/datasets/seven_scenes.md``."""

import sys

from mmmask3d.conversion.command_line import run
from mmmask3d.conversion.sources.seven_scenes import SevenScenesConverter

if __name__ == '__main__':
    sys.exit(run(SevenScenesConverter))
