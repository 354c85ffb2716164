# Generated rooms, 13 classes, 240x320 (height x width).
dataset_type = 'mmmask3d.RoomsSegDataset'
data_root = 'data/rooms'
crop_size = (240, 320)

# Every `scale` is (width, height) as in mmcv; `crop_size` is (height, width) as in mmseg.
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='mmmask3d.LoadSegLabels'),
    dict(type='RandomResize', scale=(320, 240), ratio_range=(0.75, 1.5), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
# Labels are loaded after the resize: predictions are brought back to the labels' own size.
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(320, 240), keep_ratio=True),
    dict(type='mmmask3d.LoadSegLabels'),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(
    drop_last=True,  # batch norms over one image of one cell, as in UPerNet's pooling, cannot be
    batch_size=8,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='splits/train.txt',
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='splits/val.txt',
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
