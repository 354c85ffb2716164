# Mask3D, ViT-large, ScanNet; schedule as for ViT-B.
_base_ = [
    '../_base_/models/mask3d_vit-large.py',
    '../_base_/datasets/scannet_pretrain.py',
    '../_base_/schedules/pretrain_adamw_100e.py',
    '../_base_/default_runtime.py',
]
optim_wrapper = dict(
    type='AmpOptimWrapper', dtype='bfloat16', loss_scale=1.0, clip_grad=dict(max_norm=3.0)
)
