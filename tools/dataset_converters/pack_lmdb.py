"""Packs a data set into one LMDB file for network file systems, and unpacks or checks it.

The same as ``mmmask3d pack``.
"""

import sys

from mmmask3d.cli.pack import main

if __name__ == '__main__':
    sys.exit(main())
