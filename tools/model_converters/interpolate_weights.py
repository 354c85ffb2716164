"""Write encoders between two others: a share of the weights of each (WiSE-FT).

The same as ``mmmask3d interpolate``.
"""

import sys

from mmmask3d.cli.interpolate import main

if __name__ == '__main__':
    sys.exit(main())
