# Monocular depth on NYU Depth v2 by Eigen's protocol. 795 / 8 = 99 iterations an epoch.
_base_ = [
    '../_base_/models/mask3d_dpt-depth_vit-base.py',
    '../_base_/datasets/nyuv2_depth.py',
    '../_base_/schedules/finetune_200e_vit-base.py',
    '../_base_/default_runtime_depth.py',
]
model = dict(
    data_preprocessor=dict(size=(448, 576)),
    backbone=dict(img_size=(480, 640)),
)
train_cfg = dict(max_epochs=50, val_interval=5)
