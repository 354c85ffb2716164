"""Check RGB-D frames: damaged files, units, duplicates, registration, labels, splits.

The same as ``mmmask3d check``.
"""

import sys

from mmmask3d.cli.check import main

if __name__ == '__main__':
    sys.exit(main())
