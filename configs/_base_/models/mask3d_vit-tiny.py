# Mask3D with ViT-Ti (5.5M parameters) and a decoder to match.
_base_ = './mask3d_vit-base.py'
model = dict(
    backbone=dict(arch='deit-tiny'),
    depth_encoder=dict(embed_dims=192, num_heads=3),
    fusion=dict(embed_dims=192),
    decoders=dict(depth=dict(embed_dims=192, num_layers=2, num_heads=6)),
)
