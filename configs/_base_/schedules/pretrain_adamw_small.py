# A small model on few frames: the schedule of pretrain_adamw_100e.py with a rate of 1e-3 for 32
# frames a step, two epochs of warm-up and clipped gradients.
_base_ = './pretrain_adamw_100e.py'
optim_wrapper = dict(optimizer=dict(lr=1e-3), clip_grad=dict(max_norm=3.0))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, begin=0, end=2, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', begin=2, convert_to_iter_based=True),
]
auto_scale_lr = dict(base_batch_size=32)
