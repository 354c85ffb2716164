# Monocular depth: RGB in, depth in metres out. What a data set's own config inherits.
# Training crops and flips but does not scale: at another focal length the same picture has
# another depth. `scale` is (width, height), `crop_size` (height, width) as in mmseg.
crop_size = (240, 320)
load = dict(
    type='LoadImageFromFile',
    color_type='color_ignore_orientation',  # depth has no EXIF orientation
)
meta_keys = ('img_path', 'depth_path', 'ori_shape', 'img_shape', 'pad_shape', 'scale_factor')
train_pipeline = [
    load,
    dict(type='mmmask3d.LoadDepthMap'),
    dict(type='RandomCrop', crop_size=crop_size),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs', meta_keys=meta_keys),
]
# Depth is loaded after any resize: predictions are brought back to the frame's own size.
test_pipeline = [
    load,
    dict(type='mmmask3d.LoadDepthMap'),
    dict(type='PackSegInputs', meta_keys=meta_keys),
]
data = dict(
    type='mmmask3d.RGBDDataset', data_prefix=dict(img_path='rgb', depth_path='depth'), max_depth=10
)
train_dataloader = dict(
    batch_size=8,
    num_workers=2,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='mmmask3d.EpochIndexSampler', shuffle=True),
    dataset=dict(**data, ann_file='splits/train.txt', pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(**data, ann_file='splits/val.txt', test_mode=True, pipeline=test_pipeline),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='mmmask3d.MonocularDepthMetric', min_depth_eval=1e-3, max_depth_eval=10.0)
test_evaluator = val_evaluator
