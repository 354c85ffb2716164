"""Registries of mmmask3d.

They are children of mmengine's root registries, not of mmpretrain's, so that ``mmmask3d.X``
resolves from mmpretrain, mmseg and mmdet configs alike. ``locations`` lets a registry import the
modules that hold its components the first time it is asked for one, so neither ``custom_imports``
in a config nor an import of mmseg or mmdet at start-up is needed.
"""

from mmengine.registry import DATA_SAMPLERS as MMENGINE_DATA_SAMPLERS
from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import LOOPS as MMENGINE_LOOPS
from mmengine.registry import METRICS as MMENGINE_METRICS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS as MMENGINE_OPTIM_WRAPPER_CONSTRUCTORS
from mmengine.registry import TRANSFORMS as MMENGINE_TRANSFORMS
from mmengine.registry import Registry

_SCOPE = 'mmmask3d'

DATASETS = Registry(
    'dataset', parent=MMENGINE_DATASETS, scope=_SCOPE, locations=['mmmask3d.datasets']
)
DATA_SAMPLERS = Registry(
    'data sampler',
    parent=MMENGINE_DATA_SAMPLERS,
    scope=_SCOPE,
    locations=['mmmask3d.datasets.sampling'],
)
TRANSFORMS = Registry(
    'transform',
    parent=MMENGINE_TRANSFORMS,
    scope=_SCOPE,
    locations=['mmmask3d.datasets.transforms'],
)
MODELS = Registry('model', parent=MMENGINE_MODELS, scope=_SCOPE, locations=['mmmask3d.models'])
METRICS = Registry(
    'metric', parent=MMENGINE_METRICS, scope=_SCOPE, locations=['mmmask3d.evaluation']
)
HOOKS = Registry('hook', parent=MMENGINE_HOOKS, scope=_SCOPE, locations=['mmmask3d.engine'])
LOOPS = Registry('loop', parent=MMENGINE_LOOPS, scope=_SCOPE, locations=['mmmask3d.engine'])
OPTIM_WRAPPER_CONSTRUCTORS = Registry(
    'optimizer wrapper constructor',
    parent=MMENGINE_OPTIM_WRAPPER_CONSTRUCTORS,
    scope=_SCOPE,
    locations=['mmmask3d.engine'],
)
