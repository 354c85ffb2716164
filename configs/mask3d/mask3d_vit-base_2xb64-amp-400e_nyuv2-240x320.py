# Mask3D, ViT-B, NYU Depth v2: 795 frames / 128 = 6 iterations an epoch, 400 epochs = 2,400.
# Few frames: start from ImageNet MAE weights (see the ScanNet config) or expect little.
_base_ = [
    '../_base_/models/mask3d_vit-base.py',
    '../_base_/datasets/nyuv2_pretrain.py',
    '../_base_/schedules/pretrain_adamw_100e.py',
    '../_base_/default_runtime.py',
]
optim_wrapper = dict(
    type='AmpOptimWrapper',
    dtype='bfloat16',
    loss_scale=1.0,
    clip_grad=dict(max_norm=3.0),
    optimizer=dict(lr=1.5e-4 * 128 / 256),
)
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-4,
        by_epoch=True,
        begin=0,
        end=20,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineAnnealingLR',
        eta_min=0.0,
        by_epoch=True,
        begin=20,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(max_epochs=400, val_interval=20)
auto_scale_lr = dict(base_batch_size=128)
