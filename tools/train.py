"""Train any model of the OpenMMLab family from a config: pre-training, segmentation, detection.

The same as ``mmmask3d train``.
"""

import sys

from mmmask3d.cli.train import main

if __name__ == '__main__':
    sys.exit(main())
