# Mask3D with ViT-L.
_base_ = './mask3d_vit-base.py'
model = dict(backbone=dict(arch='large'))
