# ViT-B + Mask R-CNN on NYUv2 (37 categories) at 240x320, the official 795 / 654 split.
# 795 frames / batch 16 = 50 iterations per epoch; 100 epochs = 5k iterations.
# From an encoder:
#   --cfg-options model.backbone.init_cfg.type=Pretrained model.backbone.init_cfg.checkpoint=ENCODER
_base_ = [
    '../_base_/models/mask3d_mask-rcnn_vit-base.py',
    '../_base_/datasets/nyuv2_40_det.py',
    '../_base_/schedules/finetune_200e_vit-base_det.py',
    '../_base_/default_runtime_det.py',
]
model = dict(roi_head=dict(bbox_head=dict(num_classes=37), mask_head=dict(num_classes=37)))
train_dataloader = dict(batch_size=16)
train_cfg = dict(max_epochs=100)
