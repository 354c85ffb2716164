# As mask3d_mask-rcnn_vit-tiny.py with ViT-B.
_base_ = './mask3d_mask-rcnn_vit-tiny.py'
channels = 768
model = dict(
    backbone=dict(arch='base'),
    neck=[
        dict(
            type='mmseg.Feature2Pyramid',
            embed_dim=channels,
            rescales=[4, 2, 1, 0.5],
            norm_cfg=dict(type='BN', requires_grad=True),
        ),
        dict(type='FPN', in_channels=[channels] * 4, out_channels=256, num_outs=5),
    ],
)
