# mmdet's Mask R-CNN with Mask3DPyramid in place of its ResNet-50; neck and heads are untouched.
# Windows of 14x14 patches, four layers attend globally, for images of about 1024 pixels.
_base_ = ['mmdet::_base_/models/mask-rcnn_r50_fpn.py']
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmmask3d.Mask3DPyramid',
        arch='base',
        img_size=(1024, 1024),
        patch_size=16,
        window_size=14,
        global_attn_indexes=(2, 5, 8, 11),
        drop_path_rate=0.1,
    ),
)
