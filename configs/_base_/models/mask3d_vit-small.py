# Mask3D with ViT-S.
_base_ = './mask3d_vit-base.py'
model = dict(backbone=dict(arch='deit-small'))
