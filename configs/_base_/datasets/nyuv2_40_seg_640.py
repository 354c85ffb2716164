# NYU Depth v2 at 640x640 (height x width): the longer side is brought to 640 and the rest filled,
# in training after large-scale jitter of 0.1 to 2, as in MultiMAE (Bachmann et al., ECCV 2022;
# utils/datasets_semseg.py). The data preprocessor fills; size and test_cfg are set with the model.
_base_ = './nyuv2_40_seg.py'
crop_size = (640, 640)
train_pipeline = [
    dict(type='LoadImageFromFile', color_type='color_ignore_orientation'),
    dict(type='mmmask3d.LoadSegLabels'),
    dict(type='RandomResize', scale=crop_size, ratio_range=(0.1, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
# Predictions are scored at the labels' own size.
test_pipeline = [
    dict(type='LoadImageFromFile', color_type='color_ignore_orientation'),
    dict(type='Resize', scale=crop_size, keep_ratio=True),
    dict(type='mmmask3d.LoadSegLabels'),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
