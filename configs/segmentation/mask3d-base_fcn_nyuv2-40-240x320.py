# ViT-B + one convolution (FCN head) on NYUv2 (40 classes) at 240x320, the official 795 / 654 split.
# 795 frames / batch 16 = 49 full batches per epoch; 200 epochs = 9.8k iterations.
# From an encoder:
#   --cfg-options model.backbone.init_cfg.type=Pretrained model.backbone.init_cfg.checkpoint=ENCODER
_base_ = [
    '../_base_/models/mask3d_fcn_vit-base.py',
    '../_base_/datasets/nyuv2_40_seg.py',
    '../_base_/schedules/finetune_200e_vit-base.py',
    '../_base_/default_runtime_seg.py',
]
model = dict(decode_head=dict(num_classes=40))
train_dataloader = dict(batch_size=16)
