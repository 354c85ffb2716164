# The demo: a 1.6M-parameter ViT on generated rooms at 96x128 with patches of 8, minutes on 2 cores.
# 384 frames / 16 = 24 iterations an epoch, 45 epochs = 1,080.
_base_ = [
    '../_base_/models/mask3d_vit-micro.py',
    '../_base_/datasets/rooms_pretrain.py',
    '../_base_/datasets/pipelines_96x128.py',
    '../_base_/schedules/pretrain_adamw_100e.py',
    '../_base_/default_runtime.py',
]
train_dataloader = dict(
    batch_size=16, num_workers=1, dataset=dict(pipeline=_base_.small_rgbd_train)
)
val_dataloader = dict(num_workers=1, dataset=dict(pipeline=_base_.small_rgbd_val))
test_dataloader = val_dataloader
optim_wrapper = dict(optimizer=dict(lr=1e-3), clip_grad=dict(max_norm=3.0))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, begin=0, end=2, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', begin=2, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=45, val_interval=15)
auto_scale_lr = dict(base_batch_size=16)
default_hooks = dict(checkpoint=dict(interval=5), logger=dict(interval=12))
