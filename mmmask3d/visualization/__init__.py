"""Pictures of frames and reconstructions."""

from .colours import depth_to_rgb
from .panels import reconstruction_panel, stack_panels, write_png
from .samples import panel_of_sample

__all__ = [
    'depth_to_rgb',
    'panel_of_sample',
    'reconstruction_panel',
    'stack_panels',
    'write_png',
]
