# A small segmentor: ViT-tiny (5.5M parameters) with one 3x3 convolution on its last map.
# `pretrained=None` is needed: without it tools that read mmseg's base configs put a ResNet there.
norm_cfg = dict(type='BN', requires_grad=True)
loss = dict(type='CrossEntropyLoss', use_sigmoid=False, avg_non_ignore=True, loss_weight=1.0)
model = dict(
    type='EncoderDecoder',
    pretrained=None,
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        seg_pad_val=255,
        size=(240, 320),
        test_cfg=dict(size_divisor=16),  # whole patches; what an encoder pads by itself stays in
    ),
    backbone=dict(
        type='mmmask3d.Mask3DViT',
        arch='deit-tiny',
        img_size=(240, 320),
        patch_size=16,
        out_type='featmap',
        drop_path_rate=0.1,
    ),
    decode_head=dict(
        type='FCNHead',
        in_channels=192,
        in_index=-1,
        channels=128,
        num_convs=1,
        concat_input=False,
        dropout_ratio=0.1,
        num_classes=13,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=loss,
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
