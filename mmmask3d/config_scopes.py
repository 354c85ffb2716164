"""Lets configs inherit across packages: ``_base_ = 'mmmask3d::...'`` and ``'mmseg::...'``.

mmengine looks such names up in a fixed table of module and distribution names. The table knows
neither this package nor the distribution name under which OpenMMLab's continuation ships mmseg.
"""

import importlib.util

from mmengine.config.utils import MODULE2PACKAGE


def register_config_scopes() -> None:
    """Add ``mmmask3d`` to mmengine's table, and repair its entry for ``mmseg``.

    ``mmengine.hub.get_config`` must still not be called for ``mmseg::``: it installs packages.
    """
    MODULE2PACKAGE.setdefault('mmmask3d', 'mmmask3d')
    if importlib.util.find_spec('mmseg') is not None:
        # The module is found whichever distribution brought it.
        MODULE2PACKAGE['mmseg'] = 'mmseg'
