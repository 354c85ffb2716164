# Control: MAE (RGB to RGB, no depth anywhere) with the same classes, data and schedule.
# MAE's own ratio of 75 %.
_base_ = './mask3d_vit-base_8xb64-amp-100e_scannet-240x320.py'
model = dict(
    depth_encoder=None,
    decoders=dict(depth=None, rgb=dict(type='RGBDecoder', num_layers=4, num_heads=16)),
    heads=dict(depth=None, rgb=dict(type='RGBHead')),
)
train_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type='LoadRGBD'),
            dict(type='RGBDRandomResizedCrop', scale=(320, 240), crop_ratio_range=(0.2, 1.0)),
            dict(type='RGBDRandomFlip', prob=0.5),
            dict(type='DepthAwareMasking', patch_size=16, rgb_ratio=0.75, depth_ratio=1.0),
            dict(type='PackRGBDInputs'),
        ]
    )
)
# There is no depth to evaluate.
val_dataloader = None
val_evaluator = None
val_cfg = None
test_dataloader = None
test_evaluator = None
test_cfg = None
custom_hooks = []
