# Pipelines for continuing strong weights at 168x224 (height x width): whole frames and their mirror
# images, no random crops, so that the output of frozen layers can be kept.
whole_rgbd_val = [
    dict(type='LoadRGBD'),
    dict(type='RGBDResize', scale=(224, 168)),
    dict(type='DepthAwareMasking'),
    dict(type='PackRGBDInputs'),
]
whole_rgbd_train = [*whole_rgbd_val[:2], dict(type='RGBDRandomFlip', prob=0.5), *whole_rgbd_val[2:]]
