# Small segmentor on NYUv2 (40 classes; not comparable with 13).
_base_ = [
    '../_base_/models/mask3d_fcn_vit-tiny.py',
    '../_base_/datasets/nyuv2_40_seg.py',
    '../_base_/schedules/finetune_40e.py',
    '../_base_/default_runtime_seg.py',
]
model = dict(decode_head=dict(num_classes=40))
