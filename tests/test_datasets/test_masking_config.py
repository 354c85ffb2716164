"""`masking` of a config reaches the masks of every pipeline, however the config is run."""

from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from mmmask3d.datasets import DepthAwareMasking, RGBDDataset, resolve_masking
from mmmask3d.engine.run_config import load_config
from mmmask3d.registry import DATASETS

ROOT = Path(__file__).parents[2]
PRETRAINING = sorted((ROOT / 'configs/mask3d').glob('*.py'))
LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
# (rgb_ratio, depth_ratio) of the published controls; every other config is Mask3D.
RATIOS = {
    'mae': (0.75, 1.0),
    'rgb2depth': (0.8, 1.0),
    'rgb2geometry': (0.0, 1.0),
    'anchored': (0.0, 1.0),
    'distilled': (0.0, 1.0),
}


def built_steps(cfg):
    """The masking steps of every loader, as a run builds them."""
    init_default_scope('mmmask3d')
    steps = []
    for name in LOADERS:
        dataset = (cfg.get(name) or {}).get('dataset')
        for part in (dataset or {}).get('datasets', [dataset] if dataset else []):
            pipeline = RGBDDataset(
                **{k: v for k, v in part.items() if k not in ('type', '_scope_')}, lazy_init=True
            ).pipeline
            steps += [t for t in pipeline.transforms if isinstance(t, DepthAwareMasking)]
    return steps


def numbers(step):
    return step.patch_size, step.rgb_ratio, step.depth_ratio, step.strategy


@pytest.mark.parametrize('path', PRETRAINING, ids=[p.stem for p in PRETRAINING])
def test_one_option_reaches_every_pipeline(path):
    cfg = load_config(path)
    backbone, encoder = cfg.model.backbone, 'model.backbone'
    if 'module' in backbone:  # LoRA
        backbone, encoder = backbone.module, 'model.backbone.module'
    expected = (backbone.patch_size, *RATIOS.get(path.stem.split('_')[0], (0.8, 0.8)), 'random')
    steps = built_steps(cfg)
    assert len(steps) == (len(LOADERS) if cfg.val_dataloader else 1) + ('kinect' in path.stem)
    assert {numbers(step) for step in steps} == {expected}
    options = {
        'masking.rgb_ratio': 0.6,
        'masking.depth_ratio': 0.95,
        'masking.strategy': 'block',
        f'{encoder}.patch_size': 4,
    }
    changed = built_steps(load_config(path, cfg_options=options))
    assert len(changed) == len(steps)
    assert {numbers(step) for step in changed} == {(4, 0.6, 0.95, 'block')}


def test_a_config_that_inherits_from_the_installed_package(tmp_path):
    """mmengine marks what such a base brings with scopes."""
    path = tmp_path / 'mine.py'
    path.write_text(
        "_base_ = 'mmmask3d::mask3d/mask3d_vit-tiny_b32-100e_rooms-240x320.py'\n"
        'masking = dict(depth_ratio=0.9)\n'
    )
    assert {numbers(s) for s in built_steps(load_config(path))} == {(16, 0.8, 0.9, 'random')}


def test_a_written_out_config_can_be_changed_again(tmp_path):
    path = tmp_path / 'dumped.py'
    load_config(PRETRAINING[-1], cfg_options={'masking.depth_ratio': 0.5}).dump(path)
    cfg = load_config(path, cfg_options={'masking.depth_ratio': 0.7})
    assert {step.depth_ratio for step in built_steps(cfg)} == {0.7}


# ---------------------------------------------------------------- a step's own numbers


def config(*pipelines, **settings):
    """Training on as many concatenated data sets as there are masking steps."""
    return Config(
        dict(
            model=dict(backbone=dict(patch_size=8)),
            train_dataloader=dict(
                dataset=dict(
                    type='ConcatDataset',
                    datasets=[dict(type='RGBDDataset', pipeline=[step]) for step in pipelines],
                )
            ),
            **settings,
        )
    )


def test_own_numbers_go_first():
    cfg = config(
        dict(type='DepthAwareMasking'),
        dict(type='mmmask3d.DepthAwareMasking', depth_ratio=0.9),
        dict(
            type='DepthAwareMasking', patch_size=8, rgb_ratio=0, depth_ratio=0.5, strategy='block'
        ),
        masking=dict(rgb_ratio=0.7, depth_ratio=0.6),
    )
    resolve_masking(cfg)
    parts = cfg.train_dataloader.dataset.datasets
    steps = [{k: v for k, v in part.pipeline[0].items() if k != 'type'} for part in parts]
    assert [numbers(DepthAwareMasking(**step)) for step in steps] == [
        (8, 0.7, 0.6, 'random'),
        (8, 0.7, 0.9, 'random'),
        (8, 0, 0.5, 'block'),
    ]


def test_a_config_without_masking_keeps_its_numbers():
    """As configs were written before `masking`."""
    step = dict(type='DepthAwareMasking', patch_size=8, rgb_ratio=0.75)
    cfg = config(step)
    resolve_masking(cfg)
    found = dict(cfg.train_dataloader.dataset.datasets[0].pipeline[0])
    found.pop('type')
    assert numbers(DepthAwareMasking(**found)) == (8, 0.75, 0.8, 'random')
    step.pop('type')
    assert numbers(DepthAwareMasking(**step)) == (8, 0.75, 0.8, 'random')


def test_an_option_that_some_steps_ignore_is_said(warnings_logged_by_mmengine):
    own = dict(type='DepthAwareMasking', depth_ratio=0.9)
    cfg = config(dict(type='DepthAwareMasking'), own, masking=dict(depth_ratio=0.5))
    resolve_masking(cfg, asked=['depth_ratio'])
    assert (
        'train_dataloader.dataset.datasets.1.pipeline.0.depth_ratio=0.9'
        in (warnings_logged_by_mmengine[-1])
    )


# ---------------------------------------------------------------- mistakes

STEP = dict(type='DepthAwareMasking')


@pytest.mark.parametrize(
    ('cfg', 'asked', 'said'),
    [
        (
            config(STEP, masking=dict(depht_ratio=1.0)),
            (),
            ['masking.depht_ratio=1.0', 'DepthAwareMasking', 'Did you mean depth_ratio?'],
        ),
        (
            config(STEP, masking=dict(patch_size=4)),
            (),
            ['masking.patch_size=4', 'model.backbone.patch_size'],
        ),
        (config(STEP, masking=dict(rgb_ratio=80)), (), ['rgb_ratio', '[0, 1], got 80']),
        (config(STEP, masking=0.8), (), ['masking is 0.8', 'rgb_ratio, depth_ratio, strategy']),
        (
            config(dict(type='LoadRGBD'), masking=dict(depth_ratio=1.0)),
            (),
            ["masking={'depth_ratio': 1.0} has no effect", 'train_dataloader'],
        ),
        (
            config(dict(STEP, patch_size=16)),
            (),
            ['datasets.0.pipeline.0.patch_size=16', 'model.backbone.patch_size=8'],
        ),
        (
            config(dict(STEP, depth_ratio=0.5), masking=dict(depth_ratio=1.0)),
            ['depth_ratio'],
            ['masking.depth_ratio=1.0 has no effect', 'pipeline.0.depth_ratio=0.5'],
        ),
    ],
)
def test_mistakes_name_both_places(cfg, asked, said):
    with pytest.raises(ValueError, match=said[0].split('=')[0]) as error:
        resolve_masking(cfg, asked)
    for part in said:
        assert part in str(error.value)


def test_options_are_what_was_asked_for(tiny_config):
    text = tiny_config.read_text()
    assert "type='DepthAwareMasking')" in text
    tiny_config.write_text(
        text.replace("type='DepthAwareMasking')", "type='DepthAwareMasking', depth_ratio=0.5)")
    )
    load_config(tiny_config, cfg_options={'masking.rgb_ratio': 0.6})
    with pytest.raises(ValueError, match=r'masking\.depth_ratio=1\.0 has no effect'):
        load_config(tiny_config, cfg_options={'masking.depth_ratio': 1.0})


def test_without_a_patch_size_the_first_frame_says_what_to_do(tiny_config):
    cfg = Config.fromfile(tiny_config)
    init_default_scope('mmmask3d')
    dataset = DATASETS.build(cfg.val_dataloader.dataset)
    with pytest.raises(ValueError, match=r'resolve_masking\(cfg\)'):
        dataset[0]


# ---------------------------------------------------------------- runs by mmengine's own means


class Counts(Hook):
    """Patches removed of (RGB, depth) in the batches of a run."""

    def __init__(self):
        self.seen = {'train': set(), 'val': set(), 'test': set()}

    def _add(self, mode, batch):
        masks = batch['inputs']
        self.seen[mode] |= {
            (int(rgb.sum()), int(depth.sum()))
            for rgb, depth in zip(masks['rgb_mask'], masks['depth_mask'], strict=True)
        }

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self._add('train', data_batch)

    def before_val_iter(self, runner, batch_idx, data_batch=None):
        self._add('val', data_batch)

    def before_test_iter(self, runner, batch_idx, data_batch=None):
        self._add('test', data_batch)


@pytest.mark.parametrize('workers', [0, 1])
def test_a_plain_runner_takes_the_masking(tiny_config, tmp_path, workers):
    """Config.fromfile and Runner.from_cfg, with data workers of which each holds a copy."""
    cfg = Config.fromfile(tiny_config)
    cfg.merge_from_dict({'masking.rgb_ratio': 0.25, 'masking.depth_ratio': 1.0})
    del cfg.model.backbone['patch_size']  # 16, the encoder's own default
    cfg.train_cfg = dict(by_epoch=True, max_epochs=1, val_interval=1)
    for name in LOADERS:
        cfg[name].num_workers = workers
        cfg[name].persistent_workers = bool(workers)
    cfg.work_dir = str(tmp_path / 'work')
    runner = Runner.from_cfg(cfg)
    counts = Counts()
    runner.register_hook(counts)
    runner.train()
    runner.test()
    # A quarter, and all, of 2 x 3 patches; round(1.5) is 2.
    assert counts.seen == {mode: {(2, 6)} for mode in ('train', 'val', 'test')}


def test_a_plain_runner_refuses_mistakes_before_training(tiny_config, tmp_path):
    cfg = Config.fromfile(tiny_config)
    cfg.work_dir = str(tmp_path / 'work')
    cfg.test_dataloader.dataset.pipeline[2].patch_size = 4
    runner = Runner.from_cfg(cfg)
    counts = Counts()
    runner.register_hook(counts)
    with pytest.raises(ValueError, match=r'test_dataloader.*=4 contradicts .*patch_size=8'):
        runner.train()
    assert not counts.seen['train']
