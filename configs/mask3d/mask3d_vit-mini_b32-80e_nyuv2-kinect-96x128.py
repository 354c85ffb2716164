# Mask3D, a 2.7M-parameter ViT, two sources in one run: NYU Depth v2 as relative 8-bit depth and
# Kinect video in millimetres. 45 minutes on one CPU core: docs/results.md.
# (1195 + 860) frames / 32 = 64 iterations an epoch, 80 epochs = 5,120.
_base_ = [
    '../_base_/models/mask3d_vit-mini.py',
    '../_base_/datasets/nyuv2_kinect_pretrain.py',
    '../_base_/schedules/pretrain_adamw_small.py',
    '../_base_/default_runtime.py',
]
train_cfg = dict(max_epochs=80, val_interval=10)
default_hooks = dict(checkpoint=dict(interval=5), logger=dict(interval=16))
