"""Publish weights: strip what is not weights, put the hash in the name, write a model card.

The same as ``mmmask3d publish``.
"""

import sys

from mmmask3d.cli.publish import main

if __name__ == '__main__':
    sys.exit(main())
