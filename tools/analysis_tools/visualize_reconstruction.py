"""Draw what a pre-trained network reconstructs: one PNG per frame, and all of them on a sheet.

The same as ``mmmask3d reconstruct``.
"""

import sys

from mmmask3d.cli.reconstruct import main

if __name__ == '__main__':
    sys.exit(main())
