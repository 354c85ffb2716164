"""RGB-D and downstream data sets."""

from importlib.util import find_spec

# Pre-training does not need mmseg: its data sets register only where it is installed.
if find_spec('mmseg') is not None:
    from . import segmentation as segmentation
