"""Makes a process ready for configs of this package, as every OpenMMLab library offers it."""

from mmengine import registry

import mmmask3d.datasets
import mmmask3d.engine
import mmmask3d.evaluation
import mmmask3d.models
import mmmask3d.weights.index  # noqa: F401
from mmmask3d.checkpoints.locations import install_strict_loaders
from mmmask3d.config_scopes import register_config_scopes


def register_all_modules(init_default_scope: bool = True) -> None:
    """Register every component, and make mmengine read checkpoints without unpickling them.

    Our own tools call it. In a program that starts an mmengine ``Runner`` itself, call it first:
    ``load_from``, ``resume`` and every ``init_cfg`` are safe from then on, names such as
    ``mmmask3d://NAME`` are known, and configs inherit from ``mmmask3d::`` and ``mmseg::``.

    Args:
        init_default_scope: Look components without a scope up in ``mmmask3d``.
    """
    install_strict_loaders()
    register_config_scopes()
    if init_default_scope:
        registry.init_default_scope('mmmask3d')
