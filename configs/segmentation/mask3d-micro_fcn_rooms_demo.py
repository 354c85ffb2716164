# The demo's segmentor: the encoder of configs/mask3d/mask3d_vit-micro_rooms_demo.py, fine-tuned on
# the first 100 labelled frames. 100 / 8 = 13 iterations per epoch (the last of 4 frames), 25 epochs =
# 325.
_base_ = './mask3d-tiny_fcn_rooms-240x320.py'

model = dict(
    data_preprocessor=dict(size=(96, 128)),
    backbone=dict(
        arch=dict(
            _delete_=True, embed_dims=144, num_layers=6, num_heads=3, feedforward_channels=576
        ),
        img_size=(96, 128),
        patch_size=8,
        drop_path_rate=0.0,
    ),
    decode_head=dict(in_channels=144, channels=96),
)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='mmmask3d.LoadSegLabels'),
    dict(type='RandomResize', scale=(128, 96), ratio_range=(0.75, 1.5), keep_ratio=True),
    dict(type='RandomCrop', crop_size=(96, 128), cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(128, 96), keep_ratio=True),
    dict(type='mmmask3d.LoadSegLabels'),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(
    drop_last=False, num_workers=1, dataset=dict(indices=100, pipeline=train_pipeline)
)
val_dataloader = dict(num_workers=1, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
train_cfg = dict(max_epochs=25, val_interval=25)
default_hooks = dict(checkpoint=dict(interval=5), logger=dict(interval=13))
# A weaker layer decay than a long pre-training would ask for: with a strong one the early layers of
# the model from scratch would hardly learn, which would flatter the comparison.
optim_wrapper = dict(optimizer=dict(lr=1e-3), paramwise_cfg=dict(layer_decay_rate=0.9))
