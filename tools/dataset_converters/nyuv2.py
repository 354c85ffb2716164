"""Convert NYU Depth v2 as distributed; docs/datasets/nyuv2.md describes input and output.

python tools/dataset_converters/nyuv2.py downloads/nyu_depth_v2_labeled.mat data/nyuv2
"""

import sys

from mmmask3d.cli.convert import convert

if __name__ == '__main__':
    sys.exit(convert('nyuv2'))
