"""Generate RGB-D frames of furnished rooms; docs/datasets/rooms.md describes options and output.

python tools/dataset_converters/generate_rooms.py --out data/rooms --seed 0 --rooms 60 --views 8
"""

import sys

from mmmask3d.cli.convert import convert

if __name__ == '__main__':
    sys.exit(convert('rooms'))
