# Mask3D on NYU Depth v2 that starts from DINOv2 ViT-S/14; a fifth of the rate for random weights.
_base_ = [
    './mask3d_vit-base_2xb64-amp-400e_nyuv2-240x320.py',
    '../_base_/encoders/dinov2-small.py',
]
model = dict(backbone=dict(_delete_=True, img_size=(240, 320), **_base_.encoder))
optim_wrapper = dict(optimizer=dict(lr=1.5e-4 * 128 / 256 / 5))
