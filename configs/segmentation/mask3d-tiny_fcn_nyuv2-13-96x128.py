# A quarter of the pixels for CPU experiments: 96x128, patches of 8 (grid 12x16). Predictions are
# scored at the labels' own size.
_base_ = './mask3d-tiny_fcn_nyuv2-13-240x320.py'

model = dict(
    data_preprocessor=dict(size=(96, 128)),
    backbone=dict(img_size=(96, 128), patch_size=8),
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
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
