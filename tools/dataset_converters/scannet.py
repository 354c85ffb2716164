"""Convert ScanNet, as .sens streams or as scannet_frames_25k.

    python tools/dataset_converters/scannet.py SCANNET data/scannet \
        --splits ScanNet/Tasks/Benchmark --label-map SCANNET/scannetv2-labels.combined.tsv

docs/datasets/scannet.md describes where to get it, the options and the output.
"""

import sys

from mmmask3d.cli.convert import convert

if __name__ == '__main__':
    sys.exit(convert('scannet'))
