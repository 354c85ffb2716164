# ViT-B + Mask R-CNN on ScanNet (18 classes) at 240x320: scannet_frames_25k, 1,201 / 312 scenes.
# 19,466 frames / batch 16 = 1,217 iterations per epoch; 40 epochs = 49k iterations.
# From an encoder:
#   --cfg-options model.backbone.init_cfg.type=Pretrained model.backbone.init_cfg.checkpoint=ENCODER
_base_ = [
    '../_base_/models/mask3d_mask-rcnn_vit-base.py',
    '../_base_/datasets/scannet_18_det.py',
    '../_base_/schedules/finetune_200e_vit-base_det.py',
    '../_base_/default_runtime_det.py',
]
model = dict(roi_head=dict(bbox_head=dict(num_classes=18), mask_head=dict(num_classes=18)))
train_dataloader = dict(batch_size=16, num_workers=8)
train_cfg = dict(max_epochs=40, val_interval=5)
