# ViT-B + Mask R-CNN in the style of ViTDet on COCO at 1024x1024, large-scale jitter, 8 GPUs x 8.
# About 117,000 images / batch 64 = 1,830 iterations per epoch; 100 epochs = 183k iterations.
# From an encoder:
#   --cfg-options model.backbone.init_cfg.type=Pretrained model.backbone.init_cfg.checkpoint=ENCODER
_base_ = [
    '../_base_/models/mask3d_vitdet_vit-base.py',
    '../_base_/datasets/coco_lsj_det.py',
    '../_base_/schedules/finetune_200e_vit-base_det.py',
    '../_base_/default_runtime_det.py',
]
model = dict(
    data_preprocessor=dict(
        batch_augments=[dict(type='BatchFixedSizePad', size=(1024, 1024), pad_mask=True)]
    )
)
# ViTDet, appendix: lr 1e-4 at a batch of 64, layer decay 0.7, weight decay 0.1, drop path 0.1.
optim_wrapper = dict(optimizer=dict(weight_decay=0.1))
train_dataloader = dict(batch_size=8, num_workers=8)
train_cfg = dict(max_epochs=100)
