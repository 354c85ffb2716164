# The demo's segmentor: the encoder of configs/mask3d/distilled_vit-mini_b32-6e_rooms-96x128.py,
# fine-tuned on 48 labelled frames. 48 / 8 = 6 iterations an epoch, 20 epochs = 120.
_base_ = ['./mask3d-tiny_fcn_rooms-240x320.py', '../_base_/datasets/pipelines_96x128.py']

model = dict(
    data_preprocessor=dict(size=_base_.small_size),
    backbone=dict(
        arch=dict(
            _delete_=True, embed_dims=192, num_layers=6, num_heads=3, feedforward_channels=768
        ),
        img_size=_base_.small_size,
        patch_size=8,
        drop_path_rate=0.0,
    ),
    decode_head=dict(channels=96),
)
# In so short a schedule, crops and changed colours cost both starts more than they give.
train_pipeline = [
    *_base_.small_seg_train[:2],
    _base_.small_resize,
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(num_workers=0, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(num_workers=0, dataset=dict(pipeline=_base_.small_seg_test))
test_dataloader = val_dataloader
train_cfg = dict(max_epochs=20, val_interval=20)
default_hooks = dict(checkpoint=dict(interval=10), logger=dict(interval=6))
# A lower rate for the encoder. From scratch it costs nothing: docs/model_zoo.md has both.
optim_wrapper = dict(
    constructor='DefaultOptimWrapperConstructor',
    optimizer=dict(lr=2e-3),
    paramwise_cfg=dict(_delete_=True, custom_keys=dict(backbone=dict(lr_mult=0.1))),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=20),
    dict(type='CosineAnnealingLR', eta_min=0.0, by_epoch=True, begin=0, convert_to_iter_based=True),
]
