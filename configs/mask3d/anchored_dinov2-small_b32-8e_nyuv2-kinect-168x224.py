# DINOv2 continued on NYU Depth v2 and Kinect video: docs/results.md.
# (1195 + 860) frames / 32 = 64 iterations an epoch, 8 epochs = 512.
_base_ = [
    '../_base_/models/mask3d_anchored.py',
    '../_base_/datasets/nyuv2_kinect_pretrain.py',
    '../_base_/schedules/continue_adamw_8e.py',
    '../_base_/default_runtime.py',
    '../_base_/datasets/pipelines_168x224.py',
]
masking = dict(rgb_ratio=0.0, depth_ratio=1.0)
nyuv2 = dict(**_base_.nyuv2, ann_file='splits/pretrain.txt', pipeline=_base_.whole_rgbd_train)
kinect = dict(_base_.kinect, pipeline=_base_.whole_rgbd_train)
train_dataloader = dict(dataset=dict(datasets=[nyuv2, kinect]))
val_dataloader = dict(dataset=dict(pipeline=_base_.whole_rgbd_val))
test_dataloader = val_dataloader
