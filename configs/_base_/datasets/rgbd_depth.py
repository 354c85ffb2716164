# Monocular depth: RGB in, depth in metres out. What a data set's own config inherits.
# Training crops and does not scale: at another focal length the same picture has another depth.
crop_size = (240, 320)  # (height, width), as in mmseg
# Depth has no EXIF orientation, so colour is read without one.
load = dict(type='LoadImageFromFile', color_type='color_ignore_orientation')
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
loader = dict(num_workers=2, persistent_workers=True)
train_dataloader = dict(
    **loader,
    batch_size=8,
    drop_last=True,
    sampler=dict(type='mmmask3d.EpochIndexSampler', shuffle=True),
    dataset=dict(**data, ann_file='splits/train.txt', pipeline=train_pipeline),
)
val_dataloader = dict(
    **loader,
    batch_size=1,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(**data, ann_file='splits/val.txt', test_mode=True, pipeline=test_pipeline),
)
test_dataloader = val_dataloader
metric = dict(type='mmmask3d.MonocularDepthMetric', min_depth_eval=1e-3, max_depth_eval=10.0)
val_evaluator = test_evaluator = metric
