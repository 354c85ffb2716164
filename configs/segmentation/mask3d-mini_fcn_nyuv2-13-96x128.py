# The encoder of configs/mask3d/mask3d_vit-mini_b32-80e_nyuv2-kinect-96x128.py, fine-tuned on 400
# labelled frames of NYUv2. 400 / 8 = 50 iterations an epoch, 25 epochs = 1,250: docs/results.md.
_base_ = './mask3d-tiny_fcn_nyuv2-13-96x128.py'
model = dict(
    backbone=dict(
        arch=dict(
            _delete_=True, embed_dims=192, num_layers=6, num_heads=3, feedforward_channels=768
        ),
    ),
)
train_dataloader = dict(num_workers=1, dataset=dict(ann_file='splits/finetune_train.txt'))
val_dataloader = dict(num_workers=1, dataset=dict(ann_file='splits/finetune_val.txt'))
test_dataloader = val_dataloader
# No layer decay: in so short a schedule it keeps the early layers where they are.
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=1.0))
train_cfg = dict(max_epochs=25, val_interval=25)
