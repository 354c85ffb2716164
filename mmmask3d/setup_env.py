"""Makes a process ready for configs of this package, as every OpenMMLab library offers it."""

from mmengine.registry import Registry
from mmengine.registry import init_default_scope as set_scope

from mmmask3d import registry
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
    for each in vars(registry).values():
        if isinstance(each, Registry):
            each.import_from_location()
    install_strict_loaders()
    register_config_scopes()
    if init_default_scope:
        set_scope('mmmask3d')
