# Mask3D on ScanNet that starts from DINOv3 ViT-S/16; a fifth of the rate for random weights keeps it near.
_base_ = [
    './mask3d_vit-small_8xb64-amp-100e_scannet-240x320.py',
    '../_base_/encoders/dinov3-small.py',
]
model = dict(backbone=dict(_delete_=True, img_size=(240, 320), **_base_.encoder))
optim_wrapper = dict(optimizer=dict(lr=3e-4 / 5))
