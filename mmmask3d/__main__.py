"""``python -m mmmask3d`` is ``mmmask3d``."""

import sys

from mmmask3d.cli.main import main

if __name__ == '__main__':
    sys.exit(main())
