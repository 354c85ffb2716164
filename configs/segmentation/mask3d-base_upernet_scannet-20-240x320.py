# ViT-B + UPerNet on ScanNet (20 classes) at 240x320: scannet_frames_25k, 1,201 / 312 scenes.
# 19,466 frames / batch 16 = 1,216 full batches per epoch; 60 epochs = 73k iterations.
# From an encoder:
#   --cfg-options model.backbone.init_cfg.type=Pretrained model.backbone.init_cfg.checkpoint=ENCODER
# With the labels of 5 % of the training scenes:
#   --cfg-options train_dataloader.dataset.ann_file=splits/train_05.txt
_base_ = [
    '../_base_/models/mask3d_upernet_vit-base.py',
    '../_base_/datasets/scannet_20_seg.py',
    '../_base_/schedules/finetune_200e_vit-base.py',
    '../_base_/default_runtime_seg.py',
]
model = dict(decode_head=dict(num_classes=20), auxiliary_head=dict(num_classes=20))
train_dataloader = dict(batch_size=16, num_workers=8)
train_cfg = dict(max_epochs=60, val_interval=5)
