"""Convert a ViT encoder between MAE, timm, DINOv2, MultiMAE, mmpretrain and this project.

The same as ``mmmask3d convert-weights``.
"""

import sys

from mmmask3d.cli.convert_weights import main

if __name__ == '__main__':
    sys.exit(main())
