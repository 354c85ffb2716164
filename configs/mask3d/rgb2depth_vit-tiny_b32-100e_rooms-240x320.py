# Control: RGB to depth, no depth input; every depth patch is removed and to be predicted.
_base_ = './mask3d_vit-tiny_b32-100e_rooms-240x320.py'
model = dict(depth_encoder=None)
train_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type='LoadRGBD'),
            dict(type='RGBDRandomResizedCrop', scale=(320, 240), crop_ratio_range=(0.2, 1.0)),
            dict(type='RGBDRandomFlip', prob=0.5),
            dict(type='DepthAwareMasking', patch_size=16, rgb_ratio=0.8, depth_ratio=1.0),
            dict(type='PackRGBDInputs'),
        ]
    )
)
val_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type='LoadRGBD'),
            dict(type='RGBDResize', scale=(320, 240)),
            dict(type='DepthAwareMasking', patch_size=16, rgb_ratio=0.8, depth_ratio=1.0),
            dict(type='PackRGBDInputs'),
        ]
    )
)
test_dataloader = val_dataloader
