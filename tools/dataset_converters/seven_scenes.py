"""Convert 7-Scenes: ``seven_scenes.py SOURCE OUT``; see ``docs/datasets/seven_scenes.md``."""

import sys

from mmmask3d.cli.convert import convert

if __name__ == '__main__':
    sys.exit(convert('seven-scenes'))
