"""In a resumed run the config rules: by value against runs that had the settings throughout."""

import logging
import re

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.registry import OPTIM_WRAPPERS
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import Dataset

from mmmask3d.checkpoints.files import load_checkpoint_file
from mmmask3d.engine import ResumedConfigHook
from mmmask3d.engine.resumed_config import differences
from mmmask3d.registry import DATASETS, MODELS, OPTIM_WRAPPER_CONSTRUCTORS

FRAMES = 8  # in batches of 2: four iterations an epoch
EPOCH = FRAMES // 2


class Numbers(Dataset):
    metainfo = {}

    def __len__(self):
        return FRAMES

    def __getitem__(self, index):
        return dict(inputs=torch.tensor([float(index), 1.0]) / FRAMES)


class Backbone(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(2, 2) for _ in range(2)])

    def get_layer_depth(self, name, prefix):
        return int(name.removeprefix(prefix).split('.')[1]), 3

    def forward(self, x):
        for layer in self.layers:
            x = layer(x).tanh()
        return x


class Toy(BaseModel):
    def __init__(self, frozen=False, init_cfg=None):
        super().__init__(init_cfg=init_cfg)
        self.backbone, self.head = Backbone(), nn.Linear(2, 1)
        self.backbone.layers[0].requires_grad_(not frozen)

    def forward(self, inputs, mode='loss'):
        loss = self.head(self.backbone(inputs)).square().mean()
        return {'loss': loss} if mode == 'loss' else [loss]


class Rates(Hook):
    """Notes lr and first momentum of every group before each iteration."""

    priority = 'LOWEST'

    def __init__(self):
        self.seen, self.frames = {}, {}

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        wrapper = runner.optim_wrapper
        if isinstance(wrapper, OptimWrapperDict):
            wrapper = wrapper['head']
        self.seen[runner.iter] = [
            (g['lr'], g['betas'][0] if 'betas' in g else g['momentum'])
            for g in wrapper.param_groups
        ]
        self.frames[runner.iter] = data_batch['inputs'][:, 0].mul(FRAMES).tolist()


@pytest.fixture(autouse=True)
def toys(monkeypatch):
    for registry, module in ((DATASETS, Numbers), (MODELS, Toy)):
        monkeypatch.setitem(registry._module_dict, module.__name__, module)


def config(folder, epochs=3, scheduler=None, loop='ResumableEpochBasedTrainLoop', **more):
    length = 'max_iters' if 'Iter' in loop else 'max_epochs'
    cfg = dict(
        model=dict(type='Toy'),
        work_dir=str(folder),
        train_dataloader=dict(
            batch_size=2,
            num_workers=0,
            dataset=dict(type='Numbers'),
            sampler=dict(type='InfiniteSampler' if 'Iter' in loop else 'DefaultSampler'),
            collate_fn=dict(type='default_collate'),
        ),
        train_cfg={'type': loop, length: epochs * (EPOCH if 'Iter' in loop else 1)},
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-2, weight_decay=0.1)),
        param_scheduler=scheduler,
        default_hooks=dict(
            checkpoint=dict(
                type='AtomicCheckpointHook',
                by_epoch='Iter' not in loop,
                interval=1 if 'Iter' not in loop else EPOCH,
            )
        ),
        default_scope='mmmask3d',
        randomness=dict(seed=3),
        log_level='WARNING',
    )
    cfg = Config(cfg, format_python_code=False)
    cfg.merge_from_dict(more)
    return cfg


RUNS = 0


def train(cfg, resume=None, iterations=None):
    """Train; returns the runner with what :class:`Rates` saw as `runner.rates`."""
    global RUNS
    RUNS += 1
    cfg = cfg.copy()
    cfg.experiment_name = f'run{RUNS}'
    if resume is not None:
        cfg.merge_from_dict(dict(resume=True, load_from=str(resume)))
    runner = Runner.from_cfg(cfg)
    rates = Rates()
    runner.register_hook(rates)
    if not isinstance(cfg.train_cfg.type, str) or 'Resumable' not in cfg.train_cfg.type:
        runner.register_hook(ResumedConfigHook())
    warned = []
    handler = logging.Handler(level=logging.WARNING)
    handler.addFilter(lambda record: 'deprecated' not in record.getMessage())
    handler.emit = lambda record: warned.append(record.getMessage())
    runner.logger.addHandler(handler)
    runner.train()
    runner.rates, runner.warned = rates, '\n'.join(warned)
    return runner


def newest(folder):
    return max(folder.glob('*_[0-9]*.pth'), key=lambda p: int(p.stem.split('_')[-1]))


SCHEDULES = {
    'cosine': [dict(type='CosineAnnealingLR', eta_min=1e-5)],
    'poly': [dict(type='PolyLR', power=0.9, eta_min=1e-4)],
    'multistep': [dict(type='MultiStepLR', milestones=[2, 4], gamma=0.1)],
    'one cycle': [dict(type='OneCycleLR', eta_max=0.05)],
    'restarts': [dict(type='CosineRestartLR', periods=[2, 4], restart_weights=[1, 0.5], eta_min=0)],
    'momentum': [dict(type='CosineAnnealingMomentum', eta_min=0.5), dict(type='PolyLR')],
}


@pytest.mark.parametrize(
    ('name', 'converted'),
    [*((name, False) for name in SCHEDULES), ('cosine', True), ('momentum', True)],
)
def test_longer_schedule(tmp_path, name, converted):
    """3 epochs, then 6: from the fourth on each rate is that of a straight run of 6."""
    schedule = [dict(s, by_epoch=True, convert_to_iter_based=converted) for s in SCHEDULES[name]]
    _hold_longer(tmp_path, schedule)


LAYER_DECAY = {
    'optim_wrapper.constructor': 'mmmask3d.LayerDecayOptimWrapperConstructor',
    'optim_wrapper.paramwise_cfg': dict(layer_decay_rate=0.5),
}


@pytest.mark.parametrize(
    'main',
    [
        dict(type='CosineAnnealingLR', begin=1, convert_to_iter_based=True),
        dict(type='CosineAnnealingLR', begin=0, convert_to_iter_based=True),
        dict(type='PolyLR', begin=1, power=2.0),
        dict(type='MultiStepLR', begin=0, milestones=[2, 5]),
    ],
    ids=lambda main: f'{main["type"]} from {main["begin"]}',
)
def test_longer_schedule_with_warm_up_and_layer_decay(tmp_path, main):
    """Iterations first, epochs after, as in the shipped schedules, with a rate for each layer."""
    warm_up = dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=EPOCH)
    straight = _hold_longer(tmp_path, [warm_up, dict(main, by_epoch=True)], **LAYER_DECAY)
    assert len({lr for lr, _ in straight.seen[3]}) == 3  # one rate a layer


def _hold_longer(tmp_path, schedule, **more):
    straight = train(config(tmp_path / 'straight', 6, schedule, **more)).rates
    train(config(tmp_path / 'run', 3, schedule, **more))
    load_checkpoint_file(newest(tmp_path / 'run'))  # which builds no functions
    resumed = train(config(tmp_path / 'run', 6, schedule, **more), newest(tmp_path / 'run')).rates
    assert list(resumed.seen) == list(range(3 * EPOCH, 6 * EPOCH))
    for iteration, groups in resumed.seen.items():
        assert groups == straight.seen[iteration], iteration
    return straight


@pytest.mark.parametrize('done', [3, EPOCH, EPOCH + 1])
def test_longer_schedule_from_within_an_epoch(tmp_path, done):
    """Also between the last batch of an epoch and its end, where an epoch's step is still due."""
    schedule = [
        dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=6),
        dict(type='PolyLR', by_epoch=True),
    ]
    every = {'default_hooks.checkpoint.by_epoch': False}
    straight = train(config(tmp_path / 'straight', 3, schedule, **every)).rates.seen
    train(config(tmp_path / 'run', 2, schedule, **every))
    path = tmp_path / f'run/iter_{done}.pth'
    runner = train(config(tmp_path / 'run', 3, schedule, **every), path)
    assert runner.rates.seen == {i: straight[i] for i in range(done, 3 * EPOCH)}
    assert 'iterations are counted' not in runner.warned


def test_longer_schedule_of_a_loop_by_iterations(tmp_path):
    """mmseg's way: a loop and a schedule in iterations, the hook registered by the tool."""
    schedule = [
        dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=3),
        dict(type='PolyLR', power=0.9, by_epoch=False, begin=3),
    ]
    _hold_longer(tmp_path, schedule, loop='IterBasedTrainLoop')


@pytest.mark.parametrize('loop', ['EpochBasedTrainLoop', 'IterBasedTrainLoop'])
def test_mmengines_loops_and_checkpoints_written_without_the_hook(tmp_path, loop):
    by_epoch = loop.startswith('Epoch')
    schedule = [dict(type='CosineAnnealingLR', by_epoch=by_epoch)]
    straight = train(config(tmp_path / 'straight', 4, schedule, loop=loop)).rates.seen
    train(config(tmp_path / 'run', 2, schedule, loop=loop))
    path = newest(tmp_path / 'run')
    checkpoint = load_checkpoint_file(path)
    del checkpoint['optimizer_parameters']
    torch.save(checkpoint, path)
    resumed = train(config(tmp_path / 'run', 4, schedule, loop=loop), path).rates.seen
    assert resumed == {i: straight[i] for i in range(2 * EPOCH, 4 * EPOCH)}


COSINE = [dict(type='CosineAnnealingLR', by_epoch=True, convert_to_iter_based=True)]


@pytest.fixture
def three(tmp_path):
    """Checkpoint after three of six epochs."""
    train(config(tmp_path / 'first', 6, COSINE))
    return tmp_path / 'first/epoch_3.pth'


def test_an_unchanged_run_goes_on_as_it_was_and_says_nothing(tmp_path):
    """With several groups and a schedule of the momentum, which Adam keeps in its betas."""
    schedule = [
        dict(type='CosineAnnealingMomentum', eta_min=0.5),
        dict(type='LinearLR', start_factor=1e-3, by_epoch=False, end=2 * EPOCH),
        *COSINE,
    ]
    cfg = config(tmp_path / 'run', 6, schedule, **LAYER_DECAY)
    straight = train(cfg)
    runner = train(cfg, tmp_path / 'run/epoch_3.pth')
    assert runner.warned == ''
    assert runner.rates.seen == {i: straight.rates.seen[i] for i in range(3 * EPOCH, 6 * EPOCH)}
    for name, value in straight.model.state_dict().items():
        assert torch.equal(value, runner.model.state_dict()[name])
    (one, other) = (r.optim_wrapper.state_dict() for r in (straight, runner))
    assert one['param_groups'] == other['param_groups']
    assert one['base_param_settings'] == other['base_param_settings']
    assert len(one['param_groups']) > 1


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        ({'optim_wrapper.optimizer.lr': 3e-3}, 'optim_wrapper.optimizer.lr: 0.01 -> 0.003'),
        ({'optim_wrapper.optimizer.betas': (0.8, 0.9)}, "'not set' -> \\[0.8, 0.9\\]"),
        ({'optim_wrapper.optimizer.weight_decay': 0.3}, 'weight_decay: 0.1 -> 0.3'),
        ({'optim_wrapper.paramwise_cfg': dict(bias_decay_mult=0.0)}, 'bias_decay_mult'),
        (LAYER_DECAY, "layer_decay_rate: 'not set' -> 0.5"),
        ({'auto_scale_lr': dict(enable=True, base_batch_size=8)}, 'auto_scale_lr.enable'),
        ({'train_dataloader.batch_size': 4}, r'batch_size: 2 -> 4 \(the learning rate follows it'),
        ({'train_cfg.max_epochs': 9}, 'max_epochs: 6 -> 9'),
        ({'param_scheduler': [dict(type='PolyLR', power=2.0)]}, 'CosineAnnealingLR.* -> .*PolyLR'),
        ({'param_scheduler': None}, 'param_scheduler'),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else '',
)
def test_settings_of_the_optimiser_are_those_of_a_run_that_had_them_always(
    tmp_path, three, change, said
):
    straight = train(config(tmp_path / 'straight', 6, COSINE, **change))
    runner = train(config(tmp_path / 'run', 6, COSINE, **change), three)
    (one, other) = (
        [{k: v for k, v in g.items() if k != 'params'} for g in r.optim_wrapper.param_groups]
        for r in (straight, runner)
    )
    assert one == other
    resumed = runner.rates.seen
    first = 3 * len(runner.train_dataloader)
    assert list(resumed) == list(range(first, runner.max_iters))
    assert resumed == {i: straight.rates.seen[i] for i in resumed}
    assert runner.rates.frames == {i: straight.rates.frames[i] for i in resumed}
    assert re.search(said, runner.warned)
    assert runner.message_hub.get_info('cfg') == runner.cfg.pretty_text
    settings = runner.optim_wrapper.base_param_settings, straight.optim_wrapper.base_param_settings
    assert (settings[0] or {}).get('lr') == (settings[1] or {}).get('lr')


def moments(checkpoint):
    names, state = checkpoint['optimizer_parameters'][''], checkpoint['optimizer']['state']
    return {name: state[i]['exp_avg'] for i, name in enumerate(names)}


def test_moments_stay_with_their_parameters(tmp_path, three):
    """Other groups put the parameters in another order; nothing is trained in no iteration."""
    change = {**LAYER_DECAY, 'optim_wrapper.optimizer.lr': 0.0}
    before = moments(load_checkpoint_file(three))
    runner = train(config(tmp_path / 'run', 4, None, **change), three)
    after = moments(load_checkpoint_file(tmp_path / 'run/epoch_4.pth'))
    assert list(before) != list(after)
    assert before.keys() == after.keys()
    index = load_checkpoint_file(tmp_path / 'run/epoch_4.pth')['optimizer_parameters']['']
    step = {
        name: runner.optim_wrapper.optimizer.state_dict()['state'][i]['step']
        for i, name in enumerate(index)
    }
    assert set(map(int, step.values())) == {4 * EPOCH}
    for name, value in before.items():
        assert value.shape == after[name].shape


def test_a_layer_that_was_frozen_starts_without_moments(tmp_path):
    frozen = {'model.frozen': True, **LAYER_DECAY}
    train(config(tmp_path / 'run', 3, COSINE, **frozen))
    runner = train(config(tmp_path / 'run', 4, COSINE, **LAYER_DECAY), newest(tmp_path / 'run'))
    assert '2 parameters were not trained before and start without moments' in runner.warned
    assert 'backbone.layers.0.bias' in runner.warned
    state = load_checkpoint_file(tmp_path / 'run/epoch_4.pth')
    steps = {
        name: int(state['optimizer']['state'][i]['step'])
        for i, name in enumerate(state['optimizer_parameters'][''])
    }
    assert steps.pop('backbone.layers.0.weight') == EPOCH
    assert steps.pop('backbone.layers.0.bias') == EPOCH
    assert set(steps.values()) == {4 * EPOCH}


def test_groups_that_cannot_be_matched(tmp_path, three):
    checkpoint = load_checkpoint_file(three)
    del checkpoint['optimizer_parameters']
    torch.save(checkpoint, three)
    with pytest.raises(RuntimeError, match=r'groups of \[6\] .* groups of \[1, 1, .*load_from='):
        train(config(tmp_path / 'run', 6, COSINE, **LAYER_DECAY), three)


def test_another_optimiser_is_refused(tmp_path, three):
    cfg = config(tmp_path / 'run', 6, COSINE)
    cfg.optim_wrapper.optimizer = dict(type='SGD', lr=0.1)
    with pytest.raises(RuntimeError, match=r'state of AdamW, which SGD .*load_from=<checkpoint>'):
        train(cfg, three)


def test_weights_alone_come_without_the_rest(tmp_path, three):
    """The remedy of every refusal: `load_from` and no resuming."""
    cfg = config(tmp_path / 'run', 1, COSINE, load_from=str(three))
    cfg.optim_wrapper.optimizer = dict(type='SGD', lr=0.0)
    runner = train(cfg)
    assert list(runner.rates.seen) == list(range(EPOCH))
    assert 'The config differs' not in runner.warned
    trained = load_checkpoint_file(three)['state_dict']['head.weight']
    assert torch.equal(runner.model.head.weight, trained)


@pytest.mark.parametrize(('loss_scale', 'expected'), [('dynamic', 4.0), (512.0, 512.0)])
def test_scale_of_the_loss_is_kept_unless_the_config_sets_another(
    tmp_path, monkeypatch, loss_scale, expected
):
    class Scaled(OptimWrapper):  # as AmpOptimWrapper, which needs a GPU
        def __init__(self, loss_scale, **kwargs):
            super().__init__(**kwargs)
            self.scale = 65536.0 if loss_scale == 'dynamic' else loss_scale

        def state_dict(self):
            return {**super().state_dict(), 'loss_scaler': {'scale': self.scale}}

        def load_state_dict(self, state_dict):
            self.scale = state_dict.pop('loss_scaler')['scale']
            super().load_state_dict(state_dict)

    monkeypatch.setitem(OPTIM_WRAPPERS._module_dict, 'Scaled', Scaled)
    scaled = {'optim_wrapper.type': 'Scaled', 'optim_wrapper.loss_scale': 'dynamic'}
    train(config(tmp_path / 'run', 3, COSINE, **scaled))
    path = newest(tmp_path / 'run')
    checkpoint = load_checkpoint_file(path)
    checkpoint['optimizer']['loss_scaler']['scale'] = 4.0
    torch.save(checkpoint, path)
    scaled['optim_wrapper.loss_scale'] = loss_scale
    assert (
        train(config(tmp_path / 'run', 4, COSINE, **scaled), path).optim_wrapper.scale == expected
    )


def test_iterations_cannot_become_epochs_but_the_reverse(tmp_path):
    schedule = [dict(type='PolyLR', by_epoch=False)]
    train(config(tmp_path / 'iters', 3, schedule, loop='IterBasedTrainLoop'))
    with pytest.raises(RuntimeError, match=r'counted 12 iterations and no epochs'):
        train(config(tmp_path / 'run', 6, schedule), newest(tmp_path / 'iters'))
    straight = train(config(tmp_path / 'straight', 6, schedule, loop='IterBasedTrainLoop'))
    train(config(tmp_path / 'epochs', 3, COSINE))
    resumed = train(
        config(tmp_path / 'run', 6, schedule, loop='IterBasedTrainLoop'),
        newest(tmp_path / 'epochs'),
    )
    assert resumed.rates.seen == {i: straight.rates.seen[i] for i in range(3 * EPOCH, 6 * EPOCH)}
    assert resumed.epoch == 0


def test_averaged_weights_are_not_taken_for_trained_ones(tmp_path):
    ema = {'custom_hooks': [dict(type='EMAHook', momentum=0.5)]}
    train(config(tmp_path / 'run', 3, COSINE, **ema))
    path = newest(tmp_path / 'run')
    with pytest.raises(RuntimeError, match=r'written with an EMAHook.*Resume with the config'):
        train(config(tmp_path / 'run', 6, COSINE), path)
    trained = load_checkpoint_file(path)['ema_state_dict']['module.head.weight']
    assert not torch.equal(trained, load_checkpoint_file(path)['state_dict']['head.weight'])
    lr = {**ema, 'optim_wrapper.optimizer.lr': 0.0}
    runner = train(config(tmp_path / 'run', 4, None, **lr), path)
    assert torch.equal(runner.model.head.weight, trained)


def test_a_schedule_that_follows_measured_values(tmp_path):
    """It goes on from what it has measured, and cannot be computed from other rates."""
    plateau = [dict(type='ReduceOnPlateauLR', monitor='loss', patience=1)]
    train(config(tmp_path / 'run', 3, plateau))
    path = tmp_path / 'run/epoch_2.pth'
    checkpoint = load_checkpoint_file(path)
    checkpoint['param_schedulers'][0]['num_bad_epochs'] = 1
    checkpoint['optimizer']['param_groups'][0]['lr'] = 1e-3
    torch.save(checkpoint, path)
    runner = train(config(tmp_path / 'run', 3, plateau), path)
    assert {rates[0][0] for rates in runner.rates.seen.values()} == {1e-3}
    assert runner.param_schedulers[0].num_bad_epochs == 1
    for epochs, lr in ((3, 5e-2), (4, 1e-2)):
        cfg = config(tmp_path / 'run', epochs, plateau, **{'optim_wrapper.optimizer.lr': lr})
        with pytest.raises(RuntimeError, match='ReduceOnPlateauLR follows measured values'):
            train(cfg, path)


def test_new_seed_changes_the_order_and_says_so(tmp_path, three):
    runner = train(config(tmp_path / 'run', 6, COSINE, **{'randomness.seed': 4}), three)
    other = train(config(tmp_path / 'other', 6, COSINE, **{'randomness.seed': 4})).rates.frames
    assert runner.rates.frames == {i: other[i] for i in range(3 * EPOCH, 6 * EPOCH)}
    assert runner.seed == 4
    assert 'randomness.seed=4 of the config is used from here on' in runner.warned
    assert load_checkpoint_file(tmp_path / 'run/epoch_6.pth')['meta']['seed'] == 4


def test_end_of_the_training(tmp_path, three):
    runner = train(config(tmp_path / 'run', 3, COSINE), three)
    assert 'the checkpoint has done 3 of 3 epochs. Set train_cfg.max_epochs higher' in runner.warned
    assert runner.rates.seen == {}
    for i, fixed in enumerate((dict(end=6), dict(by_epoch=False, end=6 * EPOCH))):
        fixed = [dict(type='CosineAnnealingLR', **fixed)]
        folder = tmp_path / f'fixed{i}'
        train(config(folder, 6, fixed))
        runner = train(config(folder, 8, fixed), newest(folder))
        assert 'Every entry of param_scheduler has ended by now' in runner.warned
        assert 'goes on to 8 epochs' in runner.warned


def test_best_score_of_another_metric_is_forgotten(tmp_path, three):
    checkpoint = load_checkpoint_file(three)
    checkpoint['message_hub']['runtime_info'].update(best_score=0.9, best_ckpt='best_a.pth')
    torch.save(checkpoint, three)
    kept = train(config(tmp_path / 'kept', 4, COSINE), three).message_hub.runtime_info
    assert (kept['best_score'], kept['best_ckpt']) == (0.9, 'best_a.pth')
    other = {'default_hooks.checkpoint.rule': 'less'}
    runner = train(config(tmp_path / 'run', 4, COSINE, **other), three)
    assert not {'best_score', 'best_ckpt'} & set(runner.message_hub.runtime_info)
    assert 'The best score so far was measured otherwise' in runner.warned


def test_several_optimisers_are_restored_as_they_are(tmp_path, monkeypatch):
    class Constructor:
        def __init__(self, optim_wrapper_cfg, paramwise_cfg=None):
            self.lr = optim_wrapper_cfg['lr']

        def __call__(self, model):
            return OptimWrapperDict(
                head=OptimWrapper(torch.optim.AdamW(model.head.parameters(), lr=self.lr))
            )

    class OneStep(Toy):
        def train_step(self, data, optim_wrapper):
            return super().train_step(data, optim_wrapper['head'])

    monkeypatch.setitem(OPTIM_WRAPPER_CONSTRUCTORS._module_dict, 'Constructor', Constructor)
    monkeypatch.setitem(MODELS._module_dict, 'Toy', OneStep)
    cfg = config(tmp_path / 'run', 3, COSINE)
    cfg.optim_wrapper = dict(constructor='Constructor', lr=0.01)
    train(cfg)
    cfg.merge_from_dict({'optim_wrapper.lr': 0.02, 'train_cfg.max_epochs': 4})
    runner = train(cfg, tmp_path / 'run/epoch_3.pth')
    assert 'restored as they are in the checkpoint: these changes have no effect' in runner.warned
    assert runner.optim_wrapper['head'].param_groups[0]['initial_lr'] == 0.01
    assert runner.iter == 4 * EPOCH


# ---------------------------------------------------------------- the stored config


def test_differences_of_what_decides_the_training():
    old = dict(work_dir='a', model=dict(x=1, layers=[dict(y=2)]), optim_wrapper=dict(z=[1, 2]))
    new = dict(work_dir='b', model=dict(x=1, layers=[dict(y=3)]), optim_wrapper=dict(z=[1, 3]))
    assert differences(old, new) == {
        'model.layers.0.y': (2, 3),
        'optim_wrapper.z': ([1, 2], [1, 3]),
    }
    assert differences(old, old) == {}


def test_unreadable_config_and_initial_weights_are_said(tmp_path, three):
    init = {'model.init_cfg': dict(type='Normal', layer='Linear', std=0.1)}
    runner = train(config(tmp_path / 'run', 4, COSINE, **init), three)
    assert 'no effect: the weights are those of the checkpoint' in runner.warned
    checkpoint = load_checkpoint_file(three)
    del checkpoint['meta']['cfg']
    torch.save(checkpoint, three)
    runner = train(config(tmp_path / 'run', 4, COSINE), three)
    assert 'holds no config that can be read' in runner.warned
