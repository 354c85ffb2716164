# Depth, normals and DINOv2's features from RGB, on generated rooms at 96x128. These weights are
# shipped with the package; tools/misc/make_rooms_encoder.py makes them.
# 10,080 frames / 32 = 315 iterations an epoch, 6 epochs = 1,890.
_base_ = [
    '../_base_/models/distilled_vit-mini.py',
    '../_base_/datasets/rooms_pretrain.py',
    '../_base_/datasets/pipelines_96x128.py',
    '../_base_/schedules/pretrain_adamw_small.py',
    '../_base_/default_runtime.py',
]
masking = dict(rgb_ratio=0.0, depth_ratio=1.0)
# Whole frames: what comes again unchanged can be kept.
train_dataloader = dict(num_workers=0, dataset=dict(pipeline=_base_.small_rgbd_val))
val_dataloader = dict(num_workers=0, dataset=dict(pipeline=_base_.small_rgbd_val))
test_dataloader = val_dataloader
optim_wrapper = dict(type='Bfloat16OptimWrapper')
train_cfg = dict(max_epochs=6, val_interval=2)
default_hooks = dict(checkpoint=dict(interval=1), logger=dict(interval=15))
