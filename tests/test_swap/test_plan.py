"""What a swap changes beside the backbone, on configs of a few lines."""

import pytest
import torch
from mmengine.config import Config
from timm.layers import resample_patch_embed

from mmmask3d.models import Mask3DViT, TimmViT
from mmmask3d.registry import MODELS
from mmmask3d.swap.backbone import probe_backbone
from mmmask3d.swap.plan import MEAN, STD, SwapOptions, plan_swap, refine_swap
from mmmask3d.swap.proof import Proof
from mmmask3d.weights.export import FORMAT, write_encoder

ARCH = dict(embed_dims=48, num_layers=2, num_heads=3, feedforward_channels=96)
RESNET = dict(type='mmseg.ResNet', depth=18)
SGD = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01, momentum=0.9))
CAFFE = dict(type='X', mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], bgr_to_rgb=False)
OURS = dict(mean=MEAN, std=STD, bgr_to_rgb=True)


def plan(cfg=None, model=None, **options):
    model = dict(type='X', backbone=RESNET, **(model or {}))
    cfg = Config(dict(model=model, **(cfg or {})))
    return plan_swap(cfg, SwapOptions(**{'arch': ARCH, **options}))


def changes(swap):
    return {change.key: change.new for change in swap.changes}


def test_backbone_alone_where_nothing_else_is_wrong():
    swap = plan(model=dict(data_preprocessor=dict(type='X', **OURS)))
    (change,) = swap.changes
    assert change.key == 'model.backbone'
    assert change.replaces
    assert change.new == dict(
        type='mmmask3d.Mask3DPyramid', arch=ARCH, patch_size=16, img_size=224,
        out_strides=(4, 8, 16, 32), out_channels=(64, 128, 256, 512), out_indices=(0, 1, 2, 3),
        drop_path_rate=0.1, window_size=14, global_attn_indexes=(-1,),
    )  # fmt: skip
    assert any('starts at random' in note for note in swap.notes)
    assert any('trains nothing' in note for note in swap.notes)


# ---------------------------------------------------------------- the backbone's settings


def crop(*size):
    return dict(type='RandomCrop', crop_size=size)


def resize(*size):
    return dict(type='RandomResize', scale=size)


@pytest.mark.parametrize(
    ('pipeline', 'window'),
    [
        ([resize(2048, 512), crop(512, 512)], 0),
        ([crop(512, 1024)], 0),
        ([crop(769, 769)], 14),
        ([dict(type='Resize', scale=(1333, 800), keep_ratio=True)], 14),
        ([dict(type='RandomChoiceResize', scales=[(320, 240), (1333, 640)])], 14),
        ([crop(0.5, 0.5), resize(320, 240)], 0),
        ([dict(type='Mixup'), dict(type='Y', transforms=[[resize(320, 240)]])], 0),
        # DETR's: one of two branches crops, and enlarges what it has cropped.
        (
            [
                dict(
                    type='RandomChoice',
                    transforms=[[resize(480, 640)], [crop(384, 600), resize(1333, 800)]],
                )
            ],
            14,
        ),
        ([resize(1333, 800), dict(type='RandomChoice', transforms=[crop(64, 64)] * 2)], 0),
        ([dict(type='RandomResizedCrop', scale=224)], 0),
        ([dict(type='ResizeEdge', scale=900), dict(type='CenterCrop', crop_size=512)], 0),
        ([dict(type='Resize', scale=1024)], 14),
        ([dict(resize(512, 512), ratio_range=(0.5, 2.0))], 14),
        ([dict(type='RandomResizedCrop', scale=(0.08, 1.0))], 14),
        ([], 14),
    ],
)
def test_windows_for_large_images(pipeline, window):
    loader = dict(dataset=dict(type='D', datasets=[dict(type='E', pipeline=pipeline)]))
    new = changes(plan(dict(train_dataloader=loader)))['model.backbone']
    assert new.get('window_size', 0) == window
    assert 'window_size' not in changes(plan(window_size=0))['model.backbone']
    known = pipeline and dict(type='RandomResizedCrop', scale=(0.08, 1.0)) not in pipeline
    (reason,) = [c.reason for c in plan(dict(train_dataloader=loader)).changes][:1]
    assert ('do not tell how large' in reason) == (window == 14 and not known)
    assert changes(plan(window_size=7))['model.backbone']['window_size'] == 7


def test_the_largest_of_several_data_sets():
    several = [dict(type='E', pipeline=[one]) for one in (resize(1333, 800), crop(64, 64))]
    loader = dict(dataset=dict(type='ConcatDataset', datasets=several))
    assert changes(plan(dict(train_dataloader=loader)))['model.backbone']['window_size'] == 14


@pytest.mark.parametrize(
    'old',
    [
        dict(RESNET),
        dict(RESNET, type='mmseg.ResNetV1c', strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4)),
        dict(RESNET, type='mmseg.ResNetV1c', strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2)),
        dict(RESNET, num_stages=3, strides=(1, 2, 2), dilations=(1, 1, 1), out_indices=(2,)),
        dict(RESNET, strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2), out_indices=(3,)),
        dict(RESNET, out_indices=(3,)),
    ],
    ids=['plain', 'd8', 'd16', 'C4', 'DC5', 'DETR'],
)
@pytest.mark.parametrize('kind', ['Mask3DViT', 'TimmViT'])
def test_patches_of_14_pixels_become_16(kind, old, tmp_path):
    """The maps of the ResNet, from the resampled weights of an exported encoder."""
    settings: dict = dict(img_size=(42, 70), patch_size=14)
    if kind == 'Mask3DViT':
        settings |= dict(arch=ARCH)
        encoder, name = Mask3DViT(**settings), 'patch_embed.projection.weight'
        state = encoder.state_dict()
    else:
        small = dict(embed_dim=48, depth=2, num_heads=3)
        settings |= dict(model='vit_small_patch14_dinov2', model_args=small)
        encoder, name = TimmViT(**settings), 'trunk.patch_embed.proj.weight'
        state = encoder.trunk.state_dict()
    meta = dict(format=FORMAT, backbone=dict(type=kind, **settings), patch_grid=(3, 5))
    write_encoder(tmp_path / 'p14.safetensors', state, meta)
    file = str(tmp_path / 'p14.safetensors')
    cfg = Config(dict(model=dict(type='X', backbone=old)))
    swap = plan_swap(cfg, SwapOptions(checkpoint=file))
    assert any('patches of 14 pixels' in n and 'become 16' in n for n in swap.notes)
    new = changes(swap)['model.backbone']
    assert (new.get('encoder') or new)['img_size'] == (48, 80)
    pyramid = MODELS.build(new)
    pyramid.init_weights()
    weight = encoder.state_dict()[name]
    found = pyramid.vit.state_dict()[name]
    torch.testing.assert_close(found, resample_patch_embed(weight, [16, 16]))
    shapes = [m.shape for m in pyramid(torch.rand(1, 3, 97, 65))]
    assert shapes == list(probe_backbone(old, (97, 65))[1])


def test_what_is_taken_from_the_old_backbone_and_what_is_not():
    backbone = dict(RESNET, with_cp=True, frozen_stages=1, norm_eval=True)
    cfg = Config(dict(model=dict(type='X', backbone=backbone)))
    swap = plan_swap(cfg, SwapOptions(arch=ARCH))
    new = changes(swap)['model.backbone']
    assert new['with_cp'] is True
    assert not {'frozen_stages', 'norm_eval', 'depth'} & set(new)
    assert any('frozen_stages=1' in note for note in swap.notes)


def test_settings_by_size():
    large = changes(plan(dict(optim_wrapper=SGD), arch='large'))
    assert large['model.backbone']['drop_path_rate'] == 0.4
    assert large['optim_wrapper']['paramwise_cfg'] == dict(layer_decay_rate=0.8)
    base = changes(plan(dict(optim_wrapper=SGD), arch='base', drop_path_rate=0.0))
    assert base['model.backbone']['drop_path_rate'] == 0.0
    assert base['optim_wrapper']['paramwise_cfg'] == dict(layer_decay_rate=0.7)
    tiny = changes(plan(dict(optim_wrapper=SGD), arch='deit-tiny', layer_decay=0.9))
    assert tiny['optim_wrapper']['paramwise_cfg'] == dict(layer_decay_rate=0.9)


# ---------------------------------------------------------------- weights and colours


def test_weights_of_the_old_backbone():
    swap = plan(dict(load_from='a.pth'), dict(pretrained='torchvision://resnet18'))
    assert changes(swap)['model.pretrained'] is None
    assert any("load_from='a.pth' stays" in note for note in swap.notes)
    assert 'model.pretrained' not in changes(plan(model=dict(pretrained=None)))
    whole = dict(init_cfg=dict(type='Pretrained', checkpoint='b.pth'))
    assert any('model.init_cfg loads b.pth' in note for note in plan(model=whole).notes)


def test_caffe_colours():
    swap = plan(model=dict(data_preprocessor=CAFFE))
    (change,) = [c for c in swap.changes if c.key == 'model.data_preprocessor']
    assert change.new == OURS
    assert not change.replaces
    assert change.old == {k: v for k, v in CAFFE.items() if k != 'type'}
    assert 'caffe' in change.reason


def test_colours_in_every_preprocessor_on_the_way():
    """Semi-supervised: one for the branches, which wraps another, and one of the detector."""
    model = dict(
        type='X',
        data_preprocessor=dict(type='MultiBranchDataPreprocessor', data_preprocessor=CAFFE),
        detector=dict(type='Y', data_preprocessor=CAFFE, backbone=RESNET, pretrained='x'),
        other=dict(type='Z', data_preprocessor=CAFFE, backbone=dict(RESNET, depth=34)),
    )
    swap = plan_swap(
        Config(dict(model=model)), SwapOptions(arch=ARCH, path='model.detector.backbone')
    )
    new = changes(swap)
    assert set(new) == {
        'model.detector.backbone',
        'model.detector.pretrained',
        'model.detector.data_preprocessor',
        'model.data_preprocessor.data_preprocessor',
    }
    assert new['model.detector.data_preprocessor'] == OURS
    assert any('model.other.backbone (mmseg.ResNet) stays' in note for note in swap.notes)


def test_colours_beside_the_model_and_under_another_name():
    beside = dict(type='mmpretrain.ClsDataPreprocessor', mean=[0], std=[1])
    assert changes(plan(dict(data_preprocessor=beside)))['data_preprocessor'] == dict(
        mean=MEAN, std=STD, to_rgb=True
    )
    inside = dict(data_preprocessor=dict(type='Y', to_rgb=True, mean=MEAN, std=STD))
    assert set(changes(plan(dict(data_preprocessor=beside), inside))) == {'model.backbone'}
    swapped = dict(
        data_preprocessor=dict(type='X', **{**OURS, 'bgr_to_rgb': False}, rgb_to_bgr=True)
    )
    new = changes(plan(model=swapped))['model.data_preprocessor']
    assert new == dict(OURS, rgb_to_bgr=False)


def test_colours_of_a_tracker_that_normalises_for_itself():
    norm = dict(mean=[0, 0, 0], std=[1, 1, 1], to_rgb=False)
    model = dict(
        type='X', data_preprocessor=CAFFE, reid=dict(type='R', backbone=RESNET),
        tracker=dict(type='T', reid=dict(img_norm_cfg=norm)),
    )  # fmt: skip
    swap = plan_swap(Config(dict(model=model)), SwapOptions(arch=ARCH, path='model.reid.backbone'))
    assert changes(swap)['model.tracker.reid.img_norm_cfg'] == dict(mean=MEAN, std=STD, to_rgb=True)
    assert 'model.data_preprocessor' not in changes(swap)


# ---------------------------------------------------------------- optimiser and schedule


def test_sgd_becomes_adamw_and_the_rest_of_the_wrapper_stays():
    old = dict(
        type='AmpOptimWrapper', loss_scale='dynamic', accumulative_counts=4,
        optimizer=dict(type='SGD', lr=0.02, momentum=0.9, weight_decay=1e-4),
        clip_grad=dict(max_norm=35, norm_type=2),
        paramwise_cfg=dict(norm_decay_mult=0.0, custom_keys={'backbone': dict(lr_mult=0.1)}),
    )  # fmt: skip
    swap = plan(dict(optim_wrapper=old))
    assert changes(swap)['optim_wrapper'] == dict(
        type='AmpOptimWrapper', loss_scale='dynamic', accumulative_counts=4,
        optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
        clip_grad=dict(max_norm=35, norm_type=2),
        constructor='mmmask3d.LayerDecayOptimWrapperConstructor',
        paramwise_cfg=dict(layer_decay_rate=0.75),
    )  # fmt: skip
    (note,) = [note for note in swap.notes if note.startswith('dropped')]
    assert 'norm_decay_mult=0.0' in note
    assert "custom_keys['backbone']" in note
    without = changes(plan(dict(optim_wrapper=dict(SGD, clip_grad=None)), lr=3e-4))['optim_wrapper']
    assert without['clip_grad'] == dict(max_norm=1.0)
    assert without['optimizer']['lr'] == 3e-4


def test_adamw_is_theirs():
    queries = dict(lr_mult=1.0, decay_mult=0.0)
    old = dict(
        optimizer=dict(type='AdamW', lr=2e-4, weight_decay=1e-4, eps=1e-7),
        paramwise_cfg=dict(custom_keys=dict(query=queries, backbone=dict(lr_mult=0.1))),
        constructor='TheirOwn',
    )
    new = changes(plan(dict(optim_wrapper=old)))['optim_wrapper']
    assert new['optimizer'] == dict(
        type='AdamW', lr=2e-4, betas=(0.9, 0.999), weight_decay=1e-4, eps=1e-7
    )
    assert new['paramwise_cfg'] == dict(layer_decay_rate=0.75, custom_keys=dict(query=queries))
    assert new['type'] == 'OptimWrapper'
    assert new['constructor'] == 'mmmask3d.LayerDecayOptimWrapperConstructor'
    assert any('constructor TheirOwn' in note for note in plan(dict(optim_wrapper=old)).notes)
    lower = changes(plan(dict(optim_wrapper=old), lr=1e-5))['optim_wrapper']
    assert lower['optimizer']['lr'] == 1e-5


def test_a_high_rate_is_kept_and_named():
    high = dict(optimizer=dict(type='AdamW', lr=4e-3))
    swap = plan(dict(optim_wrapper=high))
    assert changes(swap)['optim_wrapper']['optimizer']['lr'] == 4e-3
    assert any('the learning rate 0.004 of the config is kept' in note for note in swap.notes)
    assert not any('is kept' in note for note in plan(dict(optim_wrapper=high), lr=1e-4).notes)


def test_other_optimisers_with_adam_in_their_name_are_replaced():
    free = dict(optimizer=dict(type='DAdaptAdam', lr=1.0, growth_rate=2.0))
    new = changes(plan(dict(optim_wrapper=free)))['optim_wrapper']['optimizer']
    assert new == dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05)


def test_several_optimisers_are_left_alone():
    several = dict(constructor='Multi', generator=dict(optimizer=dict(type='Adam')))
    swap = plan(dict(optim_wrapper=several))
    assert 'optim_wrapper' not in changes(swap)
    assert any('no single optimiser' in note for note in swap.notes)


def schedule_of(schedule, loop=None, optim_wrapper=SGD):
    cfg = dict(param_scheduler=schedule, train_cfg=loop, optim_wrapper=optim_wrapper)
    swap = plan(cfg)
    return changes(swap).get('param_scheduler'), swap.notes


ADAMW = dict(optimizer=dict(type='AdamW', lr=1e-4))
WARMUP = dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=1500)


def test_final_rate_becomes_zero_and_the_rest_of_the_schedule_stays():
    """Else layers below would rise to the SGD's final rate: 1e-4 is above their own start."""
    poly = dict(type='PolyLR', eta_min=1e-4, power=0.9, begin=0, end=40000, by_epoch=False)
    new, _ = schedule_of(poly, dict(type='IterBasedTrainLoop', max_iters=40000))
    assert new == [WARMUP, dict(poly, eta_min=0.0)]
    assert poly['eta_min'] == 1e-4


@pytest.mark.parametrize('above_zero', [(0,), (1,), (2,), (0, 2), (0, 1, 2)])
def test_every_rate_of_a_schedule_in_parts_ends_at_zero(above_zero):
    """Wherever the absolute final rates stand; what has none, and momentum, is left alone."""
    old = [
        dict(type='LinearLR', start_factor=0.1, begin=0, end=2),
        dict(type='CosineAnnealingLR', T_max=8, begin=2, end=10),
        dict(type='mmdet.PolyLR', power=0.9, begin=10, end=12),
    ]
    momentum = dict(type='CosineAnnealingMomentum', eta_min=0.85, begin=0, end=12)
    for i in above_zero:
        old[i]['eta_min'] = 1e-5 * (i + 1)
    new, _ = schedule_of([*old, momentum])
    expected = [dict(e, eta_min=0.0) if i in above_zero else e for i, e in enumerate(old)]
    assert new == [*expected, momentum]
    assert schedule_of([old[0], momentum], optim_wrapper=ADAMW)[0] == (
        [expected[0], momentum] if 0 in above_zero else None
    )


def test_warm_up_is_theirs_or_short_in_a_short_training():
    steps = dict(type='MultiStepLR', milestones=[8, 11])
    theirs = dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500)
    assert schedule_of([theirs, steps])[0] is None
    new, _ = schedule_of([steps], dict(type='IterBasedTrainLoop', max_iters=200))
    assert new == [dict(WARMUP, end=10), steps]
    epochs = dict(WARMUP, by_epoch=True, convert_to_iter_based=True)
    for count, end in ((3, 1), (12, 1), (36, 2), (300, 5)):
        new, _ = schedule_of(None, dict(type='EpochBasedTrainLoop', max_epochs=count))
        assert new == [dict(epochs, end=end)]
    assert schedule_of(None)[0] == [WARMUP]
    quadratic = dict(type='mmdet.QuadraticWarmupLR', by_epoch=True, begin=0, end=5)
    assert schedule_of([quadratic, steps])[0] is None
    assert schedule_of([steps], optim_wrapper=ADAMW)[0] is None


def test_one_cycle_is_named():
    new, notes = schedule_of([dict(type='OneCycleLR', eta_max=0.1)])
    assert new is None
    assert any('OneCycleLR, which sets absolute rates' in note for note in notes)


# ---------------------------------------------------------------- backbone only, refinement


def test_backbone_only_warns_of_the_rest():
    swap = plan(dict(optim_wrapper=SGD), dict(data_preprocessor=CAFFE), backbone_only=True)
    assert set(changes(swap)) == {'model.backbone'}
    left = [note for note in swap.notes if note.startswith('left as it is')]
    assert [note.split(': ')[1].split(' = ')[0] for note in left] == [
        'model.data_preprocessor', 'optim_wrapper', 'param_scheduler',
    ]  # fmt: skip


def refined(proof, cfg=None, **options):
    cfg = dict(dict(optim_wrapper=SGD), **(cfg or {}))
    swap = plan(cfg)
    refine_swap(swap, Config(cfg), proof, **options)
    return swap


def test_levels_that_nothing_uses():
    unused = ['backbone.pyramid.levels.0.norm.weight', 'backbone.pyramid.levels.1.norm.weight']
    swap = refined(Proof(unused=unused))
    (change,) = [c for c in swap.changes if c.key == 'find_unused_parameters']
    assert change.new is True
    assert 'levels 0, 1 of the pyramid' in change.reason
    assert 'find_unused_parameters' not in changes(refined(Proof()))
    assert 'find_unused_parameters' in changes(refined(None))  # not run: the worst
    told = dict(find_unused_parameters=True)
    assert 'find_unused_parameters' not in changes(refined(Proof(unused=unused), told))
    wrapped = dict(model_wrapper_cfg=dict(type='MMDistributedDataParallel'))
    assert changes(refined(Proof(unused=unused), wrapped))[
        'model_wrapper_cfg.find_unused_parameters'
    ]
    sharded = dict(model_wrapper_cfg=dict(type='MMFullyShardedDataParallel'))
    assert not any('unused' in key for key in changes(refined(Proof(unused=unused), sharded)))
    only = refined(Proof(unused=unused), backbone_only=True)
    assert any('find_unused_parameters' in note for note in only.notes)


def test_settings_by_name_that_fit_nothing():
    keys = dict(query=dict(decay_mult=0.0), absolute_pos_embed=dict(decay_mult=0.0))
    wrapper = dict(optimizer=dict(type='AdamW', lr=1e-4), paramwise_cfg=dict(custom_keys=keys))
    swap = refined(Proof(parameters=['head.query.weight']), dict(optim_wrapper=wrapper))
    assert changes(swap)['optim_wrapper']['paramwise_cfg'] == dict(
        layer_decay_rate=0.75, custom_keys=dict(query=dict(decay_mult=0.0))
    )
    assert any('fit no parameter: absolute_pos_embed' in note for note in swap.notes)
    swap = refined(Proof(parameters=['x']), dict(optim_wrapper=wrapper))
    assert changes(swap)['optim_wrapper']['paramwise_cfg'] == dict(layer_decay_rate=0.75)
