"""Score frozen encoders: labels or depth, by a linear map or by nearest neighbours.

The same as ``mmmask3d probe``.
"""

import sys

from mmmask3d.cli.probe import main

if __name__ == '__main__':
    sys.exit(main())
