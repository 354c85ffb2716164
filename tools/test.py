"""Evaluate a checkpoint with the test settings of a config: any model of the OpenMMLab family.

The same as ``mmmask3d test``.
"""

import sys

from mmmask3d.cli.test import main

if __name__ == '__main__':
    sys.exit(main())
