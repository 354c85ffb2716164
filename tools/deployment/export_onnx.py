"""Write an encoder, a pyramid or a segmentor as an ONNX file, checked with onnxruntime.

The same as ``mmmask3d export-onnx``.
"""

import sys

from mmmask3d.cli.export_onnx import main

if __name__ == '__main__':
    sys.exit(main())
