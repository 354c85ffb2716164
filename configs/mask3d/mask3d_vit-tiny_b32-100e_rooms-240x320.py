# Mask3D, ViT-Ti, generated rooms, fp32: runs on a CPU, a step towards your own data.
# 384 frames / 32 = 12 iterations an epoch, 100 epochs = 1,200.
_base_ = [
    '../_base_/models/mask3d_vit-tiny.py',
    '../_base_/datasets/rooms_pretrain.py',
    '../_base_/schedules/pretrain_adamw_100e.py',
    '../_base_/default_runtime.py',
]
# A higher rate than the rule's 1.9e-5 for a batch of 32: the model is small and starts from noise.
optim_wrapper = dict(optimizer=dict(lr=1e-3), clip_grad=dict(max_norm=3.0))
auto_scale_lr = dict(base_batch_size=32)
