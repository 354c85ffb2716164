# As mask3d_vit-micro.py with 2.7M parameters.
_base_ = './mask3d_vit-micro.py'
model = dict(backbone=dict(arch=dict(embed_dims=192, feedforward_channels=768)))
