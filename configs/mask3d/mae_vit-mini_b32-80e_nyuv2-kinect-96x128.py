# Control: MAE (RGB to RGB, no depth anywhere) on the frames and schedule of the Mask3D config.
# MAE's own ratio of 75 %.
_base_ = './mask3d_vit-mini_b32-80e_nyuv2-kinect-96x128.py'
model = dict(
    depth_encoder=None,
    decoders=dict(depth=None, rgb=dict(type='RGBDecoder', num_layers=2, num_heads=3)),
    heads=dict(depth=None, rgb=dict(type='RGBHead')),
)
train_pipeline = [
    dict(type='LoadRGBD'),
    dict(type='RGBDRandomResizedCrop', scale=(128, 96), crop_ratio_range=(0.3, 1.0)),
    dict(type='RGBDRandomFlip', prob=0.5),
    dict(type='DepthAwareMasking', patch_size=8, rgb_ratio=0.75, depth_ratio=1.0),
    dict(type='PackRGBDInputs'),
]
# A list of data sets cannot be changed in part, so it is written out.
data_prefix = dict(img_path='rgb', depth_path='depth')
train_dataloader = dict(
    dataset=dict(
        datasets=[
            dict(
                type='RGBDDataset',
                data_root='data/nyuv2',
                data_prefix=data_prefix,
                depth_kind='relative',
                depth_scale=255.0,
                depth_invalid=(),
                ann_file='splits/pretrain.txt',
                pipeline=train_pipeline,
            ),
            dict(
                type='RGBDDataset',
                data_root='data/kinect',
                data_prefix=data_prefix,
                depth_scale=1000.0,
                max_depth=10.0,
                pipeline=train_pipeline,
            ),
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
