# Pipelines at 96x128 (height x width), a sixth of the pixels of 240x320: small models on a CPU. A
# config names this file in `_base_` next to another one, and takes what it needs from here.
small_size = (96, 128)
small_scale = small_size[::-1]  # (width, height), as mmcv has it
small_rgbd_train = [
    dict(type='LoadRGBD'),
    dict(type='RGBDRandomResizedCrop', scale=small_scale, crop_ratio_range=(0.3, 1.0)),
    dict(type='RGBDRandomFlip', prob=0.5),
    dict(type='DepthAwareMasking'),
    dict(type='PackRGBDInputs'),
]
small_rgbd_val = [
    dict(type='LoadRGBD'),
    dict(type='RGBDResize', scale=small_scale),
    dict(type='DepthAwareMasking'),
    dict(type='PackRGBDInputs'),
]
small_random_resize = dict(
    type='RandomResize', scale=small_scale, ratio_range=(0.75, 1.5), keep_ratio=True
)
small_resize = dict(type='Resize', scale=small_scale, keep_ratio=True)
small_seg_train = [
    dict(type='LoadImageFromFile', color_type='color_ignore_orientation'),
    dict(type='mmmask3d.LoadSegLabels'),
    small_random_resize,
    dict(type='RandomCrop', crop_size=small_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
small_seg_test = [
    dict(type='LoadImageFromFile', color_type='color_ignore_orientation'),
    small_resize,
    dict(type='mmmask3d.LoadSegLabels'),
    dict(type='PackSegInputs'),
]
