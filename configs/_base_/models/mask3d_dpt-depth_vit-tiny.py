# Monocular depth: four maps of a ViT through DPT's blocks. Depth is 1 mm to 10 m, by a sigmoid.
model = dict(
    type='DepthEstimator',
    pretrained=None,
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        size=(240, 320),
        seg_pad_val=0,  # padded depth is no reading
        test_cfg=dict(size_divisor=16),  # whole patches; what an encoder pads by itself stays in
    ),
    backbone=dict(
        type='mmmask3d.Mask3DViT',
        arch='deit-tiny',
        img_size=(240, 320),
        patch_size=16,
        out_indices=(2, 5, 8, 11),
        drop_path_rate=0.1,
    ),
    decode_head=dict(
        type='mmmask3d.DPTDepthHead',
        in_channels=[192] * 4,
        post_process_channels=[48, 96, 192, 384],
        channels=96,
        norm_cfg=dict(type='BN', requires_grad=True),
        max_depth=10.0,
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
