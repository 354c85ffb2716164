# Cityscapes, metric depth from stereo, 1/256 m. For fine-tuning, the folder is read by
# mmseg::_base_/datasets/cityscapes.py and mmdet::_base_/datasets/cityscapes_instance.py.
_base_ = './rgbd_pretrain.py'
input_size = (512, 256)  # (width, height), the 2:1 of the images
train_pipeline = [
    dict(type='LoadRGBD'),
    dict(
        type='RGBDRandomResizedCrop',
        scale=input_size,
        crop_ratio_range=(0.2, 1.0),
        aspect_ratio_range=(3 / 2, 8 / 3),
    ),
    dict(type='RGBDRandomFlip', prob=0.5),
    dict(type='DepthAwareMasking'),
    dict(type='PackRGBDInputs'),
]
val_pipeline = [
    dict(type='LoadRGBD'),
    dict(type='RGBDResize', scale=input_size),
    dict(type='DepthAwareMasking'),
    dict(type='PackRGBDInputs'),
]
cityscapes = dict(
    data_root='data/cityscapes',
    data_prefix=dict(img_path='leftImg8bit', depth_path='depth'),
    img_suffix='_leftImg8bit.png',
    depth_suffix='_depth.png',
    depth_scale=256,
    # 6 pixels of disparity; an error of half a pixel is 7 m there.
    max_depth=80.0,
)
train_dataloader = dict(
    dataset=dict(**cityscapes, ann_file='splits/train.txt', pipeline=train_pipeline)
)
val_dataloader = dict(dataset=dict(**cityscapes, ann_file='splits/val.txt', pipeline=val_pipeline))
test_dataloader = val_dataloader
