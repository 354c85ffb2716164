# Control: RGB to depth, no depth input; every depth patch is removed and to be predicted.
_base_ = './mask3d_vit-tiny_b32-100e_rooms-240x320.py'
model = dict(depth_encoder=None)
masking = dict(depth_ratio=1.0)
