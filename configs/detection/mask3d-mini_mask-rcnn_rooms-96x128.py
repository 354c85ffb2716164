# Mask R-CNN for CPU experiments, on the encoder of
# configs/mask3d/mask3d_vit-mini_b32-80e_nyuv2-kinect-96x128.py: generated rooms at 96x128, narrow
# neck and heads. 384 frames / 8 = 48 iterations an epoch, 8 epochs = 384: docs/results.md.
_base_ = './mask3d-tiny_mask-rcnn_rooms-240x320.py'
model = dict(
    data_preprocessor=dict(pad_size_divisor=8),
    backbone=dict(
        _delete_=True,
        type='mmmask3d.Mask3DPyramid',
        arch=dict(embed_dims=192, num_layers=6, num_heads=3, feedforward_channels=768),
        img_size=(96, 128),
        patch_size=8,
        out_channels=(96, 96, 96, 96),
        drop_path_rate=0.1,
    ),
    neck=dict(_delete_=True, type='FPN', in_channels=[96] * 4, out_channels=64, num_outs=5),
    # A quarter of COCO's anchor size: 8 to 128 pixels.
    rpn_head=dict(in_channels=64, feat_channels=64, anchor_generator=dict(scales=[2])),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=64, finest_scale=14),
        bbox_head=dict(in_channels=64, fc_out_channels=256),
        mask_roi_extractor=dict(out_channels=64, finest_scale=14),
        mask_head=dict(num_convs=2, in_channels=64, conv_out_channels=48),
    ),
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=200, max_per_img=100), rcnn=dict(sampler=dict(num=64))
    ),
    test_cfg=dict(rpn=dict(nms_pre=200, max_per_img=100)),
)
train_pipeline, test_pipeline = _base_.train_pipeline, _base_.test_pipeline
train_pipeline[2].scale = test_pipeline[1].scale = (128, 96)
train_pipeline[3].crop_size = (96, 128)
train_dataloader = dict(num_workers=1, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(num_workers=1, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
# No layer decay, as in the segmentation configs of this encoder.
optim_wrapper = dict(optimizer=dict(lr=5e-4), paramwise_cfg=dict(layer_decay_rate=1.0))
train_cfg = dict(max_epochs=8, val_interval=8)
