# SUN RGB-D, 37 classes, official 5,285 / 5,050 split, 240x320 (height x width).
_base_ = './rooms_seg.py'
data_root = 'data/sunrgbd'

# The four sensors give frames of 1.28 to 1.38 times their height; all are brought to one size,
# since the position embedding is made for it. Predictions are scored at the labels' own size.
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='mmmask3d.LoadSegLabels'),
    dict(type='RandomResize', scale=(320, 240), ratio_range=(0.75, 1.5), keep_ratio=False),
    dict(type='RandomCrop', crop_size=(240, 320), cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(320, 240), keep_ratio=False),
    dict(type='mmmask3d.LoadSegLabels'),
    dict(type='PackSegInputs'),
]
data = dict(type='mmmask3d.SUNRGBDSegDataset', data_root=data_root)
train_dataloader = dict(dataset=dict(**data, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(**data, ann_file='splits/test.txt', pipeline=test_pipeline))
test_dataloader = val_dataloader
