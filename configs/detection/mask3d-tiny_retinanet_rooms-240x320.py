# RetinaNet (boxes only) on the generated rooms. 384 frames / 8 = 48 iterations per epoch.
# From an encoder:
#   --cfg-options model.backbone.init_cfg.type=Pretrained model.backbone.init_cfg.checkpoint=ENCODER
_base_ = [
    '../_base_/models/mask3d_retinanet-pyramid_vit-tiny.py',
    '../_base_/datasets/rooms_det.py',
    '../_base_/schedules/finetune_40e.py',
    '../_base_/default_runtime_det.py',
]
model = dict(bbox_head=dict(num_classes=10))
optim_wrapper = dict(optimizer=dict(lr=2e-4))
val_evaluator = dict(metric=['bbox'])
test_evaluator = val_evaluator
default_hooks = dict(checkpoint=dict(save_best='coco/bbox_mAP'))
