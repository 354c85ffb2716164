"""Convert SUN RGB-D as distributed; docs/datasets/sunrgbd.md describes input and output.

python tools/dataset_converters/sunrgbd.py downloads/sunrgbd data/sunrgbd
"""

import sys

from mmmask3d.cli.convert import convert

if __name__ == '__main__':
    sys.exit(convert('sunrgbd'))
