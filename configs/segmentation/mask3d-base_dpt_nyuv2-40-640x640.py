# ViT-B + DPT on NYUv2 (40 classes) at 640x640, MultiMAE's protocol with DPT for its ConvNeXt head.
# 795 frames / batch 8 = 99 full batches per epoch; 200 epochs = 19.8k iterations.
# From an encoder:
#   --cfg-options model.backbone.init_cfg.type=Pretrained model.backbone.init_cfg.checkpoint=ENCODER
_base_ = [
    '../_base_/models/mask3d_dpt_vit-base.py',
    '../_base_/datasets/nyuv2_40_seg_640.py',
    '../_base_/schedules/finetune_200e_vit-base.py',
    '../_base_/default_runtime_seg.py',
]
model = dict(
    data_preprocessor=dict(size=(640, 640), test_cfg=dict(_delete_=True, size=(640, 640))),
    backbone=dict(img_size=(640, 640)),
    decode_head=dict(num_classes=40),
)
# MultiMAE, cfgs/finetune/semseg/nyu: lr 1e-4, layer decay 0.75, drop path 0.1, 200 epochs.
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.75))
