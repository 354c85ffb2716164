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
    return done.stdout


@pytest.mark.parametrize('library', ['mmpretrain', 'mmseg', 'mmdet'])
def test_components_resolve_in_every_scope(library):
    # One process each: a registry imports its modules once, so the order must not matter.
    blocks = [
        CODE.format(library=library, registry=registry, name=name, own=own)
        for registry, name, own in NAMES
    ]
    run('\n'.join(blocks))


def test_each_component_resolves_first_thing_in_a_process():
    code = (
        "from mmengine.registry import MODELS\nprint(MODELS.get('mmmask3d.MaskedRGBD').__name__)\n"
    )
    # The libraries print a line of their own where an optional package is missing.
    assert run('import mmmask3d.registry\n' + code).splitlines()[-1] == 'MaskedRGBD'


def test_importing_the_package_imports_neither_mmdet_nor_mmseg():
    listing = "import sys; print([m for m in ('mmdet', 'mmseg', 'mmpretrain') if m in sys.modules])"
    assert run(f'import mmmask3d; {listing}').strip() == '[]'
    # mmpretrain imports mmdet where it can, so that what hangs on mmpretrain is asked otherwise:
    # does it work where mmdet cannot be imported?
    run(
        "import sys; sys.modules['mmdet'] = None\n"
        'import mmmask3d.models, mmmask3d.engine, mmmask3d.evaluation, mmmask3d.datasets\n'
        'import mmmask3d.visualization, mmmask3d.apis'
    )


def test_building_in_our_scope_warns_of_no_missing_registry():
    code = """
from mmengine.registry import init_default_scope, OPTIM_WRAPPERS, VISUALIZERS
from mmengine.runner import Runner  # brings mmengine's own components, as in every run
import torch
init_default_scope('mmmask3d')
VISUALIZERS.build(dict(type='Visualizer', name='probe', vis_backends=[dict(type='LocalVisBackend')],
                       save_dir='unused'))
parameter = torch.nn.Parameter(torch.zeros(1))
OPTIM_WRAPPERS.build(dict(type='OptimWrapper', optimizer=torch.optim.SGD([parameter], lr=1.0)))
"""
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 'Failed to search registry' not in done.stdout + done.stderr


def test_register_all_modules_registers_everything_and_sets_the_scope():
    code = """
import mmmask3d
mmmask3d.register_all_modules()
from mmengine.registry import DefaultScope
from mmmask3d import registry
print(DefaultScope.get_current_instance().scope_name,
      [n for n in ('DATASETS', 'TRANSFORMS', 'MODELS', 'METRICS', 'HOOKS', 'LOOPS')
       if not getattr(registry, n).module_dict])
"""
    assert run(code).splitlines()[-1] == 'mmmask3d []'
