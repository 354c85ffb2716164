"""Draw contact sheets of RGB-D frames: colour, depth, its contours on colour, labels, instances.

The same as ``mmmask3d browse``.
"""

import sys

from mmmask3d.cli.browse import main

if __name__ == '__main__':
    sys.exit(main())
