# DINOv2 continued on generated rooms: inherit from this for your own frames.
# 384 frames / 32 = 12 iterations an epoch, 8 epochs = 96.
_base_ = [
    '../_base_/models/mask3d_anchored.py',
    '../_base_/datasets/rooms_pretrain.py',
    '../_base_/schedules/continue_adamw_8e.py',
    '../_base_/default_runtime.py',
    '../_base_/datasets/pipelines_168x224.py',
]
masking = dict(rgb_ratio=0.0, depth_ratio=1.0)
train_dataloader = dict(dataset=dict(pipeline=_base_.whole_rgbd_train))
val_dataloader = dict(dataset=dict(pipeline=_base_.whole_rgbd_val))
test_dataloader = val_dataloader
