# Mask3D, a 2.7M-parameter ViT, two sources in one run: NYU Depth v2 as relative 8-bit depth (no
# holes, metric scale lost) and Kinect video in millimetres. 96x128, patches of 8: 192 patches, of
# which 38 RGB and 38 depth patches are kept. 45 minutes on one CPU core: docs/results.md.
# (1195 + 860) frames / 32 = 64 iterations an epoch, 80 epochs = 5,120.
_base_ = './mask3d_vit-tiny_b32-100e_rooms-240x320.py'
max_epochs = 80
model = dict(
    backbone=dict(
        arch=dict(
            _delete_=True, embed_dims=192, num_layers=6, num_heads=3, feedforward_channels=768
        ),
        img_size=(96, 128),
        patch_size=8,
    ),
    depth_encoder=dict(embed_dims=96, num_layers=1),
    fusion=dict(embed_dims=96),
    decoders=dict(depth=dict(num_heads=3)),
)
train_pipeline = [
    dict(type='LoadRGBD'),
    dict(type='RGBDRandomResizedCrop', scale=(128, 96), crop_ratio_range=(0.3, 1.0)),
    dict(type='RGBDRandomFlip', prob=0.5),
    dict(type='DepthAwareMasking', patch_size=8, rgb_ratio=0.8, depth_ratio=0.8),
    dict(type='PackRGBDInputs'),
]
val_pipeline = [
    dict(type='LoadRGBD'),
    dict(type='RGBDResize', scale=(128, 96)),
    dict(type='DepthAwareMasking', patch_size=8, rgb_ratio=0.8, depth_ratio=0.8),
    dict(type='PackRGBDInputs'),
]
data_prefix = dict(img_path='rgb', depth_path='depth')
nyuv2 = dict(
    type='RGBDDataset',
    data_root='data/nyuv2',
    data_prefix=data_prefix,
    depth_kind='relative',
    depth_scale=255.0,
    depth_invalid=(),  # 0 is a depth here
)
kinect = dict(
    type='RGBDDataset',
    data_root='data/kinect',
    data_prefix=data_prefix,
    depth_scale=1000.0,
    max_depth=10.0,
    pipeline=train_pipeline,
)
train_dataloader = dict(
    num_workers=1,
    dataset=dict(
        _delete_=True,
        type='ConcatDataset',
        datasets=[
            dict(**nyuv2, ann_file='splits/pretrain.txt', pipeline=train_pipeline),
            kinect,
        ],
    ),
)
val_dataloader = dict(
    batch_size=25,
    num_workers=1,
    dataset=dict(
        _delete_=True,
        **nyuv2,
        ann_file='splits/finetune_val.txt',
        test_mode=True,
        pipeline=val_pipeline,
    ),
)
test_dataloader = val_dataloader
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, begin=0, end=2, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', begin=2, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=max_epochs, val_interval=10)
default_hooks = dict(checkpoint=dict(interval=5), logger=dict(interval=16))
