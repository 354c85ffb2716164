# The demo's segmentor: the encoder of configs/mask3d/mask3d_vit-micro_rooms_demo.py, fine-tuned on
# the first 100 labelled frames. 100 / 8 = 13 iterations per epoch (the last of 4 frames), 25 epochs =
# 325.
_base_ = ['./mask3d-tiny_fcn_rooms-240x320.py', '../_base_/datasets/pipelines_96x128.py']

model = dict(
    data_preprocessor=dict(size=_base_.small_size),
    backbone=dict(
        arch=dict(
            _delete_=True, embed_dims=144, num_layers=6, num_heads=3, feedforward_channels=576
        ),
        img_size=_base_.small_size,
        patch_size=8,
        drop_path_rate=0.0,
    ),
    decode_head=dict(in_channels=144, channels=96),
)
train_dataloader = dict(
    drop_last=False, num_workers=1, dataset=dict(indices=100, pipeline=_base_.small_seg_train)
)
val_dataloader = dict(num_workers=1, dataset=dict(pipeline=_base_.small_seg_test))
test_dataloader = val_dataloader
train_cfg = dict(max_epochs=25, val_interval=25)
default_hooks = dict(checkpoint=dict(interval=5), logger=dict(interval=13))
# A weaker layer decay than a long pre-training would ask for: with a strong one the early layers of
# the model from scratch would hardly learn, which would flatter the comparison.
optim_wrapper = dict(optimizer=dict(lr=1e-3), paramwise_cfg=dict(layer_decay_rate=0.9))
