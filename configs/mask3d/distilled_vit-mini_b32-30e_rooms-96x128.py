# Depth, normals and DINOv2's features from RGB, on generated rooms at 96x128. These weights are
# shipped with the package; tools/misc/make_rooms_encoder.py makes them.
# 2,080 frames / 32 = 65 iterations an epoch, 30 epochs = 1,950.
_base_ = [
    '../_base_/models/distilled_vit-mini.py',
    '../_base_/datasets/rooms_pretrain.py',
    '../_base_/datasets/pipelines_96x128.py',
    '../_base_/schedules/pretrain_adamw_small.py',
    '../_base_/default_runtime.py',
]
masking = dict(rgb_ratio=0.0, depth_ratio=1.0)
# Whole frames and their mirror images: what comes again unchanged can be kept.
whole = _base_.small_rgbd_val
train_dataloader = dict(
    num_workers=0,
    dataset=dict(pipeline=[*whole[:2], dict(type='RGBDRandomFlip', prob=0.5), *whole[2:]]),
)
val_dataloader = dict(num_workers=0, dataset=dict(pipeline=whole))
test_dataloader = val_dataloader
optim_wrapper = dict(type='Bfloat16OptimWrapper')
train_cfg = dict(max_epochs=30, val_interval=10)
default_hooks = dict(checkpoint=dict(interval=5), logger=dict(interval=13))
