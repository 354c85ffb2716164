# RGB-D frames for pre-training: what a data set's own config inherits and fills in.
# Sizes are (width, height), as everywhere in mmcv.
input_size = (320, 240)
train_pipeline = [
    dict(type='LoadRGBD'),
    dict(type='RGBDRandomResizedCrop', scale=input_size, crop_ratio_range=(0.2, 1.0)),
    dict(type='RGBDRandomFlip', prob=0.5),
    dict(type='DepthAwareMasking', patch_size=16, rgb_ratio=0.8, depth_ratio=0.8),
    dict(type='PackRGBDInputs'),
]
val_pipeline = [
    dict(type='LoadRGBD'),
    dict(type='RGBDResize', scale=input_size),
    dict(type='DepthAwareMasking', patch_size=16, rgb_ratio=0.8, depth_ratio=0.8),
    dict(type='PackRGBDInputs'),
]
data = dict(type='RGBDDataset', data_prefix=dict(img_path='rgb', depth_path='depth'))
train_dataloader = dict(
    batch_size=64,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    drop_last=True,
    sampler=dict(type='EpochIndexSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(**data, pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=64,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='EpochIndexSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    # test_mode: the same masks at every validation.
    dataset=dict(**data, test_mode=True, pipeline=val_pipeline),
)
val_evaluator = dict(type='MaskedDepthMetric')
val_cfg = dict()
test_dataloader = val_dataloader
test_evaluator = val_evaluator
test_cfg = dict()
