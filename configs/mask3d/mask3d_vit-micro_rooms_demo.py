# The demo: a 1.6M-parameter ViT on generated rooms at 96x128 with patches of 8, minutes on 2 cores.
# 192 patches, of which 38 RGB and 38 depth patches are kept. 384 frames / 16 = 24 iterations an
# epoch, 45 epochs = 1,080.
_base_ = './mask3d_vit-tiny_b32-100e_rooms-240x320.py'
model = dict(
    backbone=dict(
        arch=dict(
            _delete_=True, embed_dims=144, num_layers=6, num_heads=3, feedforward_channels=576
        ),
        img_size=(96, 128),
        patch_size=8,
    ),
    depth_encoder=dict(embed_dims=96, num_layers=1),
    fusion=dict(embed_dims=96),
    decoders=dict(depth=dict(num_heads=3)),
)
train_dataloader = dict(
    batch_size=16,
    num_workers=1,
    dataset=dict(
        pipeline=[
            dict(type='LoadRGBD'),
            dict(type='RGBDRandomResizedCrop', scale=(128, 96), crop_ratio_range=(0.3, 1.0)),
            dict(type='RGBDRandomFlip', prob=0.5),
            dict(type='DepthAwareMasking', patch_size=8, rgb_ratio=0.8, depth_ratio=0.8),
            dict(type='PackRGBDInputs'),
        ]
    ),
)
val_dataloader = dict(
    num_workers=1,
    dataset=dict(
        pipeline=[
            dict(type='LoadRGBD'),
            dict(type='RGBDResize', scale=(128, 96)),
            dict(type='DepthAwareMasking', patch_size=8, rgb_ratio=0.8, depth_ratio=0.8),
            dict(type='PackRGBDInputs'),
        ]
    ),
)
test_dataloader = val_dataloader
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, begin=0, end=2, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', begin=2, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=45, val_interval=15)
auto_scale_lr = dict(base_batch_size=16)
default_hooks = dict(checkpoint=dict(interval=5), logger=dict(interval=12))
