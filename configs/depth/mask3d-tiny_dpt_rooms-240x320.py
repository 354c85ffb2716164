# Monocular depth on the generated rooms. From an encoder:
#   --cfg-options model.backbone.init_cfg.type=Pretrained model.backbone.init_cfg.checkpoint=ENCODER
_base_ = [
    '../_base_/models/mask3d_dpt-depth_vit-tiny.py',
    '../_base_/datasets/rooms_depth.py',
    '../_base_/schedules/finetune_40e.py',
    '../_base_/default_runtime_depth.py',
]
