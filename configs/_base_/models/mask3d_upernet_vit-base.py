# UPerNet on ViT-B: the four maps are rescaled to strides 4, 8, 16, 32 as in mmseg's MAE configs.
_base_ = './mask3d_fcn_vit-base.py'
norm_cfg = dict(type='SyncBN', requires_grad=True)
head = dict(dropout_ratio=0.1, num_classes=13, norm_cfg=norm_cfg, align_corners=False)
loss = dict(type='CrossEntropyLoss', use_sigmoid=False, avg_non_ignore=True)
model = dict(
    backbone=dict(out_indices=(3, 5, 7, 11)),
    neck=dict(type='Feature2Pyramid', embed_dim=768, rescales=[4, 2, 1, 0.5], norm_cfg=norm_cfg),
    decode_head=dict(
        _delete_=True,
        **head,
        type='UPerHead',
        in_channels=[768, 768, 768, 768],
        in_index=[0, 1, 2, 3],
        pool_scales=(1, 2, 3, 6),
        channels=512,
        loss_decode=dict(**loss, loss_weight=1.0),
    ),
    auxiliary_head=dict(
        **head,
        type='FCNHead',
        in_channels=768,
        in_index=2,
        channels=256,
        num_convs=1,
        concat_input=False,
        loss_decode=dict(**loss, loss_weight=0.4),
    ),
)
