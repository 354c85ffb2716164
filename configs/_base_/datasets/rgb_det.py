# Boxes and masks in COCO's format: what a data set's own config inherits and fills in.
_base_ = './rgb_det_pipelines.py'
loader = dict(num_workers=2, persistent_workers=True)
data = dict(type='CocoDataset', data_prefix=dict(img='rgb/'))
train_dataloader = dict(
    **loader,
    batch_size=8,
    sampler=dict(type='DefaultSampler', shuffle=True),
    batch_sampler=dict(type='AspectRatioBatchSampler'),
    dataset=dict(
        **data,
        ann_file='annotations/instances_train.json',
        filter_cfg=dict(filter_empty_gt=True, min_size=8),
        pipeline=_base_.train_pipeline,
    ),
)
val_dataloader = dict(
    **loader,
    batch_size=1,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        **data,
        ann_file='annotations/instances_val.json',
        test_mode=True,
        pipeline=_base_.test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = test_evaluator = dict(type='CocoMetric', metric=['bbox', 'segm'])
