# Segmentation: four maps of ViT-tiny through DPT's blocks. A smaller model needs narrower blocks.
_base_ = './mask3d_fcn_vit-tiny.py'
model = dict(
    backbone=dict(out_indices=(2, 5, 8, 11)),
    decode_head=dict(
        _delete_=True,
        type='mmmask3d.DPTSegHead',
        in_channels=[192] * 4,
        post_process_channels=[48, 96, 192, 384],
        channels=96,
        dropout_ratio=0.1,
        num_classes=13,
        norm_cfg=dict(type='BN', requires_grad=True),
        align_corners=False,
        loss_decode=dict(
            type='CrossEntropyLoss', use_sigmoid=False, avg_non_ignore=True, loss_weight=1.0
        ),
    ),
)
