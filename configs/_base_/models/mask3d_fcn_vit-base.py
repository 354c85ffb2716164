# As mask3d_fcn_vit-tiny.py with ViT-B: one 3x3 convolution and a 1x1 classifier on the last map.
_base_ = './mask3d_fcn_vit-tiny.py'
norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    backbone=dict(arch='base'),
    decode_head=dict(in_channels=768, channels=256, norm_cfg=norm_cfg),
)
