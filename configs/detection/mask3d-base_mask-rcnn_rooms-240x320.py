# ViT-B; otherwise as mask3d-tiny_mask-rcnn_rooms-240x320.py.
_base_ = [
    '../_base_/models/mask3d_mask-rcnn_vit-base.py',
    '../_base_/datasets/rooms_det.py',
    '../_base_/schedules/finetune_40e.py',
    '../_base_/default_runtime_det.py',
]
model = dict(roi_head=dict(bbox_head=dict(num_classes=10), mask_head=dict(num_classes=10)))
optim_wrapper = dict(optimizer=dict(lr=1e-4), paramwise_cfg=dict(layer_decay_rate=0.7))
