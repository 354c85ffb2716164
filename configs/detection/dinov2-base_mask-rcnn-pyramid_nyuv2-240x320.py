# DINOv2 ViT-B/14 in place of the ResNet-50 of mmdet's Mask R-CNN, on NYUv2 (37 categories).
# 795 frames / batch 16 = 50 iterations per epoch; 100 epochs = 5k iterations.
# After Mask3D: --cfg-options model.backbone.encoder.pretrained=ENCODER
_base_ = [
    '../_base_/models/mask3d_mask-rcnn-pyramid_vit-base.py',
    '../_base_/datasets/nyuv2_40_det.py',
    '../_base_/schedules/finetune_200e_vit-base_det.py',
    '../_base_/default_runtime_det.py',
    '../_base_/encoders/dinov2-base.py',
]
encoder = dict(img_size=(240, 320), drop_path_rate=0.1, **_base_.encoder)
model = dict(
    backbone=dict(_delete_=True, type='mmmask3d.Mask3DPyramid', encoder=encoder),
    roi_head=dict(bbox_head=dict(num_classes=37), mask_head=dict(num_classes=37)),
)
train_dataloader = dict(batch_size=16)
train_cfg = dict(max_epochs=100)
