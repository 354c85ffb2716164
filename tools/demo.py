"""Run Mask3D from generated frames to a comparison, in minutes on two CPU cores.

The same as ``mmmask3d demo`` and ``make demo``.
"""

import sys

from mmmask3d.cli.demo import main

if __name__ == '__main__':
    sys.exit(main())
