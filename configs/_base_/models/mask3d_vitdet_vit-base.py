# Mask R-CNN in the style of ViTDet (Li et al., ECCV 2022): windowed attention with four global
# layers; levels made from the last map independently of each other, each with a 1x1 and a 3x3
# convolution and no top-down path; LayerNorm and deeper heads. Without ViTDet's relative positions;
# its coarsest level is a max pooling, here a convolution of stride 2 (mmdet's ChannelMapper).
_base_ = './mask3d_mask-rcnn-pyramid_vit-base.py'
norm_cfg = dict(type='mmpretrain.LN2d', eps=1e-6)
model = dict(
    backbone=dict(out_channels=(256, 256, 256, 256)),
    neck=dict(
        _delete_=True,
        type='ChannelMapper',
        in_channels=[256] * 4,
        kernel_size=3,
        out_channels=256,
        norm_cfg=norm_cfg,
        act_cfg=None,
        num_outs=5,
    ),
    rpn_head=dict(num_convs=2),
    roi_head=dict(
        bbox_head=dict(type='Shared4Conv1FCBBoxHead', conv_out_channels=256, norm_cfg=norm_cfg),
        mask_head=dict(norm_cfg=norm_cfg),
    ),
)
