"""Convert colour frames with predicted depth; see docs/datasets/predicted_depth.md."""

import sys

from mmmask3d.conversion.command_line import run
from mmmask3d.conversion.sources.predicted_depth import PredictedDepthConverter

if __name__ == '__main__':
    sys.exit(run(PredictedDepthConverter))
