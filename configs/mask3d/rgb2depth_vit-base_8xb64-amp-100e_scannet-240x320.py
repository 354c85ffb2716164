# Control: RGB to depth, no depth input; every depth patch is removed and to be predicted.
_base_ = './mask3d_vit-base_8xb64-amp-100e_scannet-240x320.py'
model = dict(depth_encoder=None)
masking = dict(depth_ratio=1.0)
