# RGB-D frames for pre-training: what a data set's own config inherits and fills in.
# Sizes are (width, height), as everywhere in mmcv.
input_size = (320, 240)
# For every pipeline, `--cfg-options masking.depth_ratio=1.0` included; patches are the encoder's.
masking = dict(rgb_ratio=0.8, depth_ratio=0.8, strategy='random')
train_pipeline = [
    dict(type='LoadRGBD'),
    dict(type='RGBDRandomResizedCrop', scale=input_size, crop_ratio_range=(0.2, 1.0)),
    dict(type='RGBDRandomFlip', prob=0.5),
    dict(type='DepthAwareMasking'),
    dict(type='PackRGBDInputs'),
]
val_pipeline = [
    dict(type='LoadRGBD'),
    dict(type='RGBDResize', scale=input_size),
    dict(type='DepthAwareMasking'),
    dict(type='PackRGBDInputs'),
]
data = dict(type='RGBDDataset', data_prefix=dict(img_path='rgb', depth_path='depth'))
loader = dict(batch_size=64, persistent_workers=True, collate_fn=dict(type='default_collate'))
train_dataloader = dict(
    **loader,
    num_workers=8,
    pin_memory=True,
    drop_last=True,
    sampler=dict(type='EpochIndexSampler', shuffle=True),
    dataset=dict(**data, pipeline=train_pipeline),
)
val_dataloader = dict(
    **loader,
    num_workers=4,
    sampler=dict(type='EpochIndexSampler', shuffle=False),
    # test_mode: the same masks at every validation.
    dataset=dict(**data, test_mode=True, pipeline=val_pipeline),
)
test_dataloader = val_dataloader
val_evaluator = test_evaluator = dict(type='MaskedDepthMetric')
val_cfg = test_cfg = dict()
