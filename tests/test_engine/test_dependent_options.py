"""One override is enough where options depend on each other."""

import pytest
import torch
from mmengine.config import Config

from mmmask3d.engine.dependent_options import settle_dependent_options


def settled(**entries):
    cfg = Config(entries)
    settle_dependent_options(cfg)
    return cfg


@pytest.mark.parametrize('stage', ['train', 'val', 'test'])
def test_no_workers(stage):
    loader = dict(
        batch_size=2, persistent_workers=True, prefetch_factor=4, timeout=30,
        multiprocessing_context='fork',
    )  # fmt: skip
    key = f'{stage}_dataloader'
    assert settled(**{key: dict(loader, num_workers=0)})[key] == dict(batch_size=2, num_workers=0)
    assert settled(**{key: dict(loader)})[key] == dict(batch_size=2)  # torch's default is 0
    assert settled(**{key: dict(loader, num_workers=1)})[key] == dict(loader, num_workers=1)


@pytest.mark.parametrize('cuda', [False, True])
def test_pinned_memory_needs_an_accelerator(monkeypatch, cuda):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: cuda)
    loader = settled(val_dataloader=dict(pin_memory=True, num_workers=1)).val_dataloader
    assert loader == (dict(pin_memory=True, num_workers=1) if cuda else dict(num_workers=1))


def test_shuffle_and_drop_last_go_where_they_decide():
    loader = dict(
        num_workers=1, shuffle=False, drop_last=True,
        sampler=dict(type='S', shuffle=True), batch_sampler=dict(type='B'),
    )  # fmt: skip
    assert settled(train_dataloader=loader).train_dataloader == dict(
        num_workers=1,
        sampler=dict(type='S', shuffle=False),
        batch_sampler=dict(type='B', drop_last=True),
    )
    plain = dict(num_workers=1, shuffle=True, drop_last=True, sampler=None)
    assert settled(train_dataloader=plain).train_dataloader == plain


@pytest.mark.parametrize('stage', ['val', 'test'])
@pytest.mark.parametrize('part', ['dataloader', 'cfg', 'evaluator'])
def test_evaluation_is_off_as_a_whole(stage, part, capsys):
    whole = {f'{stage}_{name}': dict(type='X') for name in ('dataloader', 'cfg', 'evaluator')}
    cfg = settled(**{**whole, f'{stage}_{part}': None})
    assert {key: cfg[key] for key in whole} == dict.fromkeys(whole)
    assert settled(**whole)._cfg_dict == whole
    del whole[f'{stage}_{part}']  # forgotten, not switched off: mmengine says so
    assert settled(**whole)._cfg_dict == whole


def test_precision_follows_the_wrapper():
    amp = dict(type='AmpOptimWrapper', dtype='bfloat16', loss_scale='dynamic', clip_grad=dict(x=1))
    assert settled(optim_wrapper=amp).optim_wrapper == amp
    for kind in ('OptimWrapper', 'mmmask3d.Bfloat16OptimWrapper'):
        plain = settled(optim_wrapper=dict(amp, type=kind)).optim_wrapper
        assert plain == dict(type=kind, clip_grad=dict(x=1))
    assert settled(optim_wrapper=dict(dtype='bfloat16', optimizer={})).optim_wrapper == dict(
        optimizer={}
    )
