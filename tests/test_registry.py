"""`mmmask3d.X` resolves from every OpenMMLab scope, and at no more cost than it must."""

import subprocess
import sys

import pytest

CODE = """
import sys, warnings
warnings.simplefilter('ignore')
from mmengine.registry import init_default_scope
from {library}.registry import {registry} as REGISTRY
init_default_scope('{library}')
found = REGISTRY.get('mmmask3d.{name}')
assert found is not None and found.__name__ == '{name}', found
assert found.__module__.startswith('mmmask3d.'), found
# what another library calls by the same name is still its own
assert REGISTRY.get('{own}').__module__.startswith(('{library}', 'mmengine', 'mmcv'))
"""

NAMES = [
    ('DATASETS', 'RGBDDataset', 'ConcatDataset'),
    ('TRANSFORMS', 'DepthAwareMasking', 'RandomFlip'),
    ('MODELS', 'Mask3DViT', 'BaseDataPreprocessor'),
    ('METRICS', 'MaskedDepthMetric', 'DumpResults'),
    ('HOOKS', 'ReconstructionVisualizationHook', 'CheckpointHook'),
    ('LOOPS', 'ResumableEpochBasedTrainLoop', 'EpochBasedTrainLoop'),
    ('DATA_SAMPLERS', 'EpochIndexSampler', 'DefaultSampler'),
    (
        'OPTIM_WRAPPER_CONSTRUCTORS',
        'LayerDecayOptimWrapperConstructor',
        'DefaultOptimWrapperConstructor',
    ),
]


def run(code):
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize('library', ['mmpretrain', 'mmseg', 'mmdet'])
def test_components_resolve_in_every_scope(library):
    # One process each: a registry imports its modules once, so the order must not matter.
    blocks = [
        CODE.format(library=library, registry=registry, name=name, own=own)
        for registry, name, own in NAMES
    ]
    run('\n'.join(blocks))


ALONE = """
import sys
from mmengine.runner.checkpoint import CheckpointLoader
loaders = dict(CheckpointLoader._schemes)
import mmmask3d
assert not {'mmdet', 'mmseg', 'mmpretrain'} & set(sys.modules)
# mmpretrain imports mmdet where it can: does everything work where it cannot?
sys.modules['mmdet'] = None

import mmmask3d.registry
from mmengine.registry import MODELS  # a component resolves first thing
assert MODELS.get('mmmask3d.MaskedRGBD').__name__ == 'MaskedRGBD'

import mmmask3d.engine, mmmask3d.evaluation, mmmask3d.datasets, mmmask3d.visualization
import mmmask3d.apis.inferencer, mmmask3d.weights.zoo
assert CheckpointLoader._schemes == loaders  # those of mmengine are left alone

import torch
from mmengine.registry import DefaultScope, OPTIM_WRAPPERS, VISUALIZERS, init_default_scope
from mmengine.runner import Runner  # brings mmengine's own components, as in every run
init_default_scope('mmmask3d')
VISUALIZERS.build(dict(type='Visualizer', name='probe', vis_backends=[dict(type='LocalVisBackend')],
                       save_dir='unused'))
parameter = torch.nn.Parameter(torch.zeros(1))
OPTIM_WRAPPERS.build(dict(type='OptimWrapper', optimizer=torch.optim.SGD([parameter], lr=1.0)))

init_default_scope('mmengine')
mmmask3d.register_all_modules()
assert DefaultScope.get_current_instance().scope_name == 'mmmask3d'
for name in ('DATASETS', 'TRANSFORMS', 'MODELS', 'METRICS', 'HOOKS', 'LOOPS'):
    assert getattr(mmmask3d.registry, name).module_dict, name
modules = {loader.__module__ for loader in CheckpointLoader._schemes.values()}
assert modules == {'mmmask3d.checkpoints.locations'}
"""


def test_the_package_alone():
    """Without mmdet; nothing of mmengine is changed before it is asked for."""
    assert 'Failed to search registry' not in run(ALONE)
