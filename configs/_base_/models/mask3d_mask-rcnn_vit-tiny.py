# mmdet's Mask R-CNN with ViT-tiny instead of the ResNet. A plain ViT has one resolution: maps of
# four layers are rescaled to strides 4, 8, 16, 32 (mmseg's Feature2Pyramid, as in its MAE configs)
# and go through mmdet's own FPN.
_base_ = ['mmdet::_base_/models/mask-rcnn_r50_fpn.py']

model = dict(
    # The padding follows the patch, so that 240x320 keeps the 15x20 grid of the pre-training.
    data_preprocessor=dict(pad_size_divisor=16),
    backbone=dict(
        _delete_=True,
        type='mmmask3d.Mask3DViT',
        arch='deit-tiny',
        img_size=(240, 320),
        patch_size=16,
        out_indices=(2, 5, 8, 11),
        drop_path_rate=0.1,
    ),
    neck=[
        dict(
            type='mmseg.Feature2Pyramid',
            embed_dim=192,
            rescales=[4, 2, 1, 0.5],
            norm_cfg=dict(type='BN', requires_grad=True),
        ),
        dict(type='FPN', in_channels=[192, 192, 192, 192], out_channels=256, num_outs=5),
    ],
    # Half of COCO's anchor size for images of 240x320: 16 to 256 pixels.
    rpn_head=dict(anchor_generator=dict(scales=[4])),
)
