# Small DPT segmentor on the generated rooms. 384 frames / 8 = 48 iterations per epoch.
# From an encoder:
#   --cfg-options model.backbone.init_cfg.type=Pretrained model.backbone.init_cfg.checkpoint=ENCODER
_base_ = [
    '../_base_/models/mask3d_dpt_vit-tiny.py',
    '../_base_/datasets/rooms_seg.py',
    '../_base_/schedules/finetune_40e.py',
    '../_base_/default_runtime_seg.py',
]
