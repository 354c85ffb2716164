# Mask3D, a 2.7M-parameter ViT, two sources in one run: NYU Depth v2 as relative 8-bit depth and
# Kinect video in millimetres. 45 minutes on one CPU core: docs/results.md.
# (1195 + 860) frames / 32 = 64 iterations an epoch, 80 epochs = 5,120.
_base_ = [
    '../_base_/models/mask3d_vit-mini.py',
    '../_base_/datasets/nyuv2_kinect_pretrain.py',
    '../_base_/schedules/pretrain_adamw_100e.py',
    '../_base_/default_runtime.py',
]
optim_wrapper = dict(optimizer=dict(lr=1e-3), clip_grad=dict(max_norm=3.0))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, begin=0, end=2, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', begin=2, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=80, val_interval=10)
auto_scale_lr = dict(base_batch_size=32)
default_hooks = dict(checkpoint=dict(interval=5), logger=dict(interval=16))
