# As mask3d_retinanet-pyramid_vit-tiny.py with ViT-B.
_base_ = './mask3d_retinanet-pyramid_vit-tiny.py'
model = dict(backbone=dict(arch='base'))
