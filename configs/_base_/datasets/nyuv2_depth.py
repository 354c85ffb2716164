# NYU Depth v2, official 795 / 654 split, raw depth at 480x640 (height x width), scored inside
# Eigen's crop (NeurIPS 2014), which is defined at that size.
_base_ = './rgbd_depth.py'
crop_size = (480, 640)
train_pipeline = [
    dict(type='LoadImageFromFile', color_type='color_ignore_orientation'),
    dict(type='mmmask3d.LoadDepthMap'),
    dict(type='RandomCrop', crop_size=(448, 576)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs', meta_keys={{_base_.meta_keys}}),
]
train_dataloader = dict(dataset=dict(data_root='data/nyuv2', pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(data_root='data/nyuv2', ann_file='splits/test.txt'))
test_dataloader = val_dataloader
val_evaluator = dict(crop_type='nyu_crop')
test_evaluator = val_evaluator
