"""Registries of mmmask3d.

They are children of mmengine's root registries, not of mmpretrain's, so that ``mmmask3d.X``
resolves from mmpretrain, mmseg and mmdet configs alike. ``locations`` lets a registry import the
modules that hold its components the first time it is asked for one, so neither ``custom_imports``
in a config nor an import of mmseg or mmdet at start-up is needed.
"""

from importlib.util import find_spec

from mmengine import registry as root
from mmengine.registry import Registry

from mmmask3d.noise import silence_noise

silence_noise()  # before a registry imports the packages that make it
_SCOPE = 'mmmask3d'

# Pre-training does not need mmseg: the segmentation data sets register where it is installed.
_segmentation = ['mmmask3d.datasets.segmentation'] if find_spec('mmseg') else []

DATASETS = Registry(
    'dataset',
    parent=root.DATASETS,
    scope=_SCOPE,
    locations=['mmmask3d.datasets.rgbd_dataset', *_segmentation],
)
DATA_SAMPLERS = Registry(
    'data sampler',
    parent=root.DATA_SAMPLERS,
    scope=_SCOPE,
    locations=['mmmask3d.datasets.sampling'],
)
TRANSFORMS = Registry(
    'transform',
    parent=root.TRANSFORMS,
    scope=_SCOPE,
    locations=['mmmask3d.datasets.transforms', *_segmentation],
)
# The index makes the checkpoints of the zoo known: `mmmask3d://NAME` in a backbone's init_cfg.
MODELS = Registry(
    'model',
    parent=root.MODELS,
    scope=_SCOPE,
    locations=['mmmask3d.models', 'mmmask3d.weights.index'],
)
METRICS = Registry('metric', parent=root.METRICS, scope=_SCOPE, locations=['mmmask3d.evaluation'])
HOOKS = Registry('hook', parent=root.HOOKS, scope=_SCOPE, locations=['mmmask3d.engine'])
LOOPS = Registry('loop', parent=root.LOOPS, scope=_SCOPE, locations=['mmmask3d.engine'])
OPTIM_WRAPPER_CONSTRUCTORS = Registry(
    'optimizer wrapper constructor',
    parent=root.OPTIM_WRAPPER_CONSTRUCTORS,
    scope=_SCOPE,
    locations=['mmmask3d.engine'],
)
OPTIM_WRAPPERS = Registry(
    'optim_wrapper', parent=root.OPTIM_WRAPPERS, scope=_SCOPE, locations=['mmmask3d.engine']
)

# Nothing of ours lives in these. They exist so that `default_scope = 'mmmask3d'` finds our scope in
# every tree; where it does not, mmengine builds from the root all the same, but warns each time.
_bare = dict(scope=_SCOPE, locations=[_SCOPE])
OPTIMIZERS = Registry('optimizer', parent=root.OPTIMIZERS, **_bare)
PARAM_SCHEDULERS = Registry('parameter scheduler', parent=root.PARAM_SCHEDULERS, **_bare)
VISUALIZERS = Registry('visualizer', parent=root.VISUALIZERS, **_bare)
VISBACKENDS = Registry('vis_backend', parent=root.VISBACKENDS, **_bare)
LOG_PROCESSORS = Registry('log_processor', parent=root.LOG_PROCESSORS, **_bare)
EVALUATORS = Registry('evaluator', parent=root.EVALUATOR, **_bare)
MODEL_WRAPPERS = Registry('model_wrapper', parent=root.MODEL_WRAPPERS, **_bare)
RUNNERS = Registry('runner', parent=root.RUNNERS, **_bare)
