# Segmentation of frames with label maps: what a data set's own config inherits and fills in.
# `crop_size` is (height, width) as in mmseg, `scale` (width, height) as in mmcv.
crop_size = (240, 320)
scale = crop_size[::-1]
train_pipeline = [
    dict(type='LoadImageFromFile', color_type='color_ignore_orientation'),
    dict(type='mmmask3d.LoadSegLabels'),
    dict(type='RandomResize', scale=scale, ratio_range=(0.75, 1.5), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
# Labels are loaded after the resize: predictions are brought back to the labels' own size.
test_pipeline = [
    dict(type='LoadImageFromFile', color_type='color_ignore_orientation'),
    dict(type='Resize', scale=scale, keep_ratio=True),
    dict(type='mmmask3d.LoadSegLabels'),
    dict(type='PackSegInputs'),
]
loader = dict(num_workers=2, persistent_workers=True)
train_dataloader = dict(
    **loader,
    drop_last=True,  # batch norms over one image of one cell, as in UPerNet's pooling, cannot be
    batch_size=8,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(ann_file='splits/train.txt', pipeline=train_pipeline),
)
val_dataloader = dict(
    **loader,
    batch_size=1,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(ann_file='splits/val.txt', test_mode=True, pipeline=test_pipeline),
)
test_dataloader = val_dataloader
val_evaluator = test_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
