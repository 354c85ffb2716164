# ViT-B + UPerNet on Cityscapes (19 classes), 2,975 / 500 frames brought to 240x480, crops of 240x320.
# 2,975 frames / batch 16 = 185 full batches per epoch; 100 epochs = 18.5k iterations.
# From an encoder:
#   --cfg-options model.backbone.init_cfg.type=Pretrained model.backbone.init_cfg.checkpoint=ENCODER
_base_ = [
    '../_base_/models/mask3d_upernet_vit-base.py',
    '../_base_/datasets/cityscapes_19_seg.py',
    '../_base_/schedules/finetune_200e_vit-base.py',
    '../_base_/default_runtime_seg.py',
]
model = dict(
    decode_head=dict(num_classes=19),
    auxiliary_head=dict(num_classes=19),
    # Two halves that overlap: a whole frame would stretch the position embedding of the crops.
    test_cfg=dict(mode='slide', crop_size=(240, 320), stride=(240, 160)),
)
train_dataloader = dict(batch_size=16)
train_cfg = dict(max_epochs=100)
