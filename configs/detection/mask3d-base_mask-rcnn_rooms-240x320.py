# ViT-B; otherwise as mask3d-tiny_mask-rcnn_rooms-240x320.py.
_base_ = './mask3d-tiny_mask-rcnn_rooms-240x320.py'
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
optim_wrapper = dict(optimizer=dict(lr=1e-4), paramwise_cfg=dict(layer_decay_rate=0.7))
