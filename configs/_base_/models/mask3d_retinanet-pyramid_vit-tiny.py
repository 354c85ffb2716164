# mmdet's RetinaNet with Mask3DPyramid in place of its ResNet-50. Anchors are of half COCO's size, for
# images of 240x320: 16 to 256 pixels and up to 1.6 times that.
_base_ = ['mmdet::_base_/models/retinanet_r50_fpn.py']
model = dict(
    # The padding follows the patch, so that 240x320 keeps the 15x20 grid of the pre-training.
    data_preprocessor=dict(pad_size_divisor=16),
    backbone=dict(
        _delete_=True,
        type='mmmask3d.Mask3DPyramid',
        arch='deit-tiny',
        img_size=(240, 320),
        patch_size=16,
        out_indices=(1, 2, 3),  # the stage of stride 4 is not used, and so not built
        drop_path_rate=0.1,
    ),
    neck=dict(in_channels=[512, 1024, 2048], start_level=0),
    bbox_head=dict(anchor_generator=dict(octave_base_scale=2)),
)
