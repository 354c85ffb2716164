"""Every config under configs/: parses, names only classes that exist, and builds its model."""

import copy
import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import (
    DATA_SAMPLERS,
    DATASETS,
    EVALUATOR,
    FUNCTIONS,
    HOOKS,
    LOG_PROCESSORS,
    LOOPS,
    METRICS,
    MODELS,
    OPTIM_WRAPPER_CONSTRUCTORS,
    OPTIM_WRAPPERS,
    OPTIMIZERS,
    PARAM_SCHEDULERS,
    TASK_UTILS,
    TRANSFORMS,
    VISBACKENDS,
    VISUALIZERS,
    init_default_scope,
)

from mmmask3d.engine.run_config import load_config

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(
    path
    for path in (ROOT / 'configs').rglob('*.py')
    if '_base_' not in path.relative_to(ROOT / 'configs').parts
)
IDS = [str(path.relative_to(ROOT / 'configs')) for path in CONFIGS]
# Where in a config the components of each registry stand, the longest fitting path first.
REGISTRIES = {
    'model': (MODELS, TASK_UTILS),
    'optim_wrapper.constructor': (OPTIM_WRAPPER_CONSTRUCTORS,),
    'optim_wrapper.optimizer': (OPTIMIZERS,),
    'optim_wrapper': (OPTIM_WRAPPERS,),
    'param_scheduler': (PARAM_SCHEDULERS,),
    'train_cfg': (LOOPS,),
    'val_cfg': (LOOPS,),
    'test_cfg': (LOOPS,),
    'default_hooks': (HOOKS,),
    'custom_hooks': (HOOKS,),
    'visualizer': (VISUALIZERS, VISBACKENDS),
    'vis_backends': (VISBACKENDS,),
    'log_processor': (LOG_PROCESSORS,),
    **{
        f'{split}_dataloader{part}': registries
        for split in ('train', 'val', 'test')
        for part, registries in {
            '.dataset': (DATASETS, TRANSFORMS),
            '.sampler': (DATA_SAMPLERS,),
            '.batch_sampler': (DATA_SAMPLERS,),
            '.collate_fn': (FUNCTIONS,),
        }.items()
    },
    'val_evaluator': (METRICS, EVALUATOR),
    'test_evaluator': (METRICS, EVALUATOR),
}


def load(path):
    cfg = load_config(path)
    init_default_scope(cfg.default_scope)
    return cfg


def named_types(value, place=''):
    """(dotted place, name) of every `type` and `constructor` in a config."""
    if isinstance(value, dict):
        for key, entry in value.items():
            if key in ('type', 'constructor') and isinstance(entry, str):
                yield (f'{place}.constructor' if key == 'constructor' else place), entry
            else:
                yield from named_types(entry, f'{place}.{key}' if place else str(key))
    elif isinstance(value, list | tuple):
        for entry in value:
            yield from named_types(entry, place)


def registries_of(place):
    fitting = [key for key in REGISTRIES if f'{place}.'.startswith(f'{key}.')]
    return REGISTRIES[max(fitting, key=len)] if fitting else ()


def knows(registry, name):
    with registry.switch_scope_and_registry(None) as scoped:  # the default scope
        return scoped.get(name) is not None


def test_there_are_configs_of_every_kind():
    assert {Path(name).parts[0] for name in IDS} == {'mask3d', 'segmentation', 'detection', 'depth'}


def test_no_config_is_longer_than_40_lines():
    lengths = {p: len(p.read_text().splitlines()) for p in (ROOT / 'configs').rglob('*.py')}
    assert {path.name: length for path, length in lengths.items() if length > 40} == {}


@pytest.mark.parametrize('path', CONFIGS, ids=IDS)
def test_names_resolve(path):
    cfg = load(path)
    found = 0
    # Variables that a config builds others from (train_pipeline, data) count where they are used.
    used = {key: cfg[key] for key in cfg if any(r.split('.')[0] == key for r in REGISTRIES)}
    for place, name in named_types(Config(used).to_dict()):
        # Layers that the libraries look up by other means than a registry.
        if re.search(r'(init_cfg|norm_cfg|act_cfg|conv_cfg|roi_layer|nms)$', place):
            continue
        registries = registries_of(place)
        assert registries, f'{place}: {name}: say in REGISTRIES where this belongs'
        assert any(knows(registry, name) for registry in registries), f'{place}: {name}?'
        found += 1
    assert found > 15


@pytest.mark.parametrize('path', CONFIGS, ids=IDS)
def test_model_builds(path):
    cfg = load(path)
    with torch.device('meta'):
        model = MODELS.build(shallow(cfg.model))
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trainable > 1e5
    encoder = getattr(model.backbone, 'vit', model.backbone)  # of a pyramid: its transformer
    assert encoder.num_layers
    pre = cfg.model.get('data_preprocessor', {})
    for key, value in (encoder.normalisation or {}).items():
        assert list(pre.get(key) or value) == pytest.approx(list(value), abs=0.05)


def shallow(model):
    """The model with a single-digit depth: widths, heads and connections stay as they are.

    The layers of a transformer are alike; building hundreds of them shows nothing more.
    """
    model = copy.deepcopy(model)
    encoder = model.backbone.get('encoder', model.backbone)
    encoder = encoder.get('module', encoder)  # of a LoRAEncoder
    if encoder.type.endswith('TimmViT'):
        if not {'out_indices', 'frozen_stages'} & set(encoder):
            encoder.model_args = dict(depth=2)
        return model
    # Nothing asks for a layer by its number.
    if not {'out_indices', 'global_attn_indexes'} & set(model.backbone):
        arch = model.backbone.arch
        if isinstance(arch, str):
            from mmpretrain.models import VisionTransformer

            arch = VisionTransformer.arch_zoo[arch]
        model.backbone.arch = ConfigDict(arch, num_layers=2)
    return model


@pytest.mark.parametrize('path', CONFIGS, ids=IDS)
def test_last_learning_rate_is_that_of_the_last_epoch(path):
    """A schedule that ends before or after the training is a mistake in the arithmetic."""
    cfg = load(path)
    *_, last = cfg.param_scheduler
    epochs = cfg.train_cfg.max_epochs
    assert last.type == 'CosineAnnealingLR'
    assert last.get('end', epochs) == epochs
    assert last.get('T_max', epochs - last.begin) == epochs - last.begin


def documented_configs():
    """The Python blocks of docs/transfer.md."""
    text = (ROOT / 'docs/transfer.md').read_text()
    return re.findall(r'```python\n(.*?)```', text, re.S)


@pytest.mark.parametrize('block', documented_configs(), ids=lambda text: text[:30])
def test_documented_configs_build(block, tmp_path):
    path = tmp_path / 'documented.py'
    path.write_text(block)
    cfg = load_config(path)
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    assert cfg.model.backbone.pop('init_cfg').type == 'Pretrained'
    with torch.device('meta'):
        model = MODELS.build(shallow(cfg.model))
    assert type(model.backbone).__name__ == cfg.model.backbone.type.split('.')[-1]


@pytest.mark.parametrize(
    'base',
    [
        'segmentation/mask3d-tiny_fcn_rooms-240x320.py',
        'detection/mask3d-tiny_mask-rcnn_rooms-240x320.py',
        'mask3d/mask3d_vit-tiny_b32-100e_rooms-240x320.py',
    ],
)
def test_a_config_that_inherits_by_the_name_of_the_package(base, tiny_rooms, tmp_path):
    """mmengine gives what it brings the package's scope, which is not that of mmseg or mmdet."""
    path = tmp_path / 'mine.py'
    path.write_text(
        f"_base_ = 'mmmask3d::{base}'\n"
        f"val_dataloader = dict(dataset=dict(data_root='{tiny_rooms}'))\n"
    )
    cfg = load_config(path)
    init_default_scope(cfg.default_scope)
    dataset = DATASETS.build(cfg.val_dataloader.dataset)
    assert len(dataset) == 2
    assert dataset[0]['inputs'] is not None
    assert VISUALIZERS.build({**cfg.visualizer, 'name': base}) is not None
