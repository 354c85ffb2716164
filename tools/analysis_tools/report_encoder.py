"""Say what frozen encoders know: labels, depth, normals, correspondence, on one page.

The same as ``mmmask3d report``.
"""

import sys

from mmmask3d.cli.report import main

if __name__ == '__main__':
    sys.exit(main())
