"""Masked RGB-D pre-training (Mask3D, CVPR 2023) for OpenMMLab.

Importing the package is light: no model library is imported until a registry is asked for
one of our components (see :mod:`mmmask3d.registry`).
"""

from .version import __version__

__all__ = ['__version__']
