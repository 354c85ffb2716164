# ViT-B + UPerNet on SUN RGB-D (37 classes) at 240x320, the official 5,285 / 5,050 split.
# 5,285 frames / batch 16 = 330 full batches per epoch; 60 epochs = 20k iterations.
# From an encoder:
#   --cfg-options model.backbone.init_cfg.type=Pretrained model.backbone.init_cfg.checkpoint=ENCODER
_base_ = [
    '../_base_/models/mask3d_upernet_vit-base.py',
    '../_base_/datasets/sunrgbd_37_seg.py',
    '../_base_/schedules/finetune_200e_vit-base.py',
    '../_base_/default_runtime_seg.py',
]
model = dict(decode_head=dict(num_classes=37), auxiliary_head=dict(num_classes=37))
train_dataloader = dict(batch_size=16)
train_cfg = dict(max_epochs=60)
