# ViT-B with a pyramid in place of the ResNet of Mask R-CNN, on Cityscapes (8 classes), 8 GPUs x 1.
# 2,975 frames x 8 repeats / batch 8 = 2,975 iterations per epoch; 8 epochs = 24k iterations.
# The second metric, that of the benchmark, needs cityscapesscripts.
# From an encoder:
#   --cfg-options model.backbone.init_cfg.type=Pretrained model.backbone.init_cfg.checkpoint=ENCODER
_base_ = [
    '../_base_/models/mask3d_mask-rcnn-pyramid_vit-base.py',
    'mmdet::_base_/datasets/cityscapes_instance.py',
    '../_base_/schedules/finetune_200e_vit-base_det.py',
    '../_base_/default_runtime_det.py',
]
model = dict(
    backbone=dict(img_size=(1024, 2048)),
    roi_head=dict(bbox_head=dict(num_classes=8), mask_head=dict(num_classes=8)),
)
train_cfg = dict(max_epochs=8, val_interval=1)
