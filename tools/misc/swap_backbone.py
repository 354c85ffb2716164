"""Replace the backbone of an mmseg, mmdet or mmpretrain config by the encoder.

The same as ``mmmask3d swap``.
"""

import sys

from mmmask3d.cli.swap import main

if __name__ == '__main__':
    sys.exit(main())
