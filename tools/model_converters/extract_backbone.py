"""Write the encoder of a pre-training checkpoint to a separate file, and prove that it loads.

The same as ``mmmask3d extract``.
"""

import sys

from mmmask3d.cli.extract import main

if __name__ == '__main__':
    sys.exit(main())
