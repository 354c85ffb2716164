# Two sources at 96x128: NYU Depth v2 as relative 8-bit depth (no holes, metric scale lost), and
# Kinect video in millimetres.
_base_ = ['./rgbd_pretrain.py', './pipelines_96x128.py']
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
    pipeline=_base_.small_rgbd_train,
)
train_dataloader = dict(
    batch_size=32,
    num_workers=1,
    dataset=dict(
        _delete_=True,
        type='ConcatDataset',
        datasets=[
            dict(**nyuv2, ann_file='splits/pretrain.txt', pipeline=_base_.small_rgbd_train),
            kinect,
        ],
    ),
)
val = dict(_delete_=True, **nyuv2, ann_file='splits/finetune_val.txt', test_mode=True)
val_dataloader = dict(
    batch_size=25, num_workers=1, dataset=dict(**val, pipeline=_base_.small_rgbd_val)
)
test_dataloader = val_dataloader
