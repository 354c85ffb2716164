# DINOv3 ViT-S/16 + UPerNet on NYUv2 (40 classes); data and schedule are those of Mask3D's ViT-B.
# After Mask3D: --cfg-options model.backbone.pretrained=ENCODER
_base_ = ['./mask3d-base_upernet_nyuv2-40-240x320.py', '../_base_/encoders/dinov3-small.py']
maps = dict(img_size=(240, 320), out_indices=(3, 5, 7, 11), drop_path_rate=0.1)
model = dict(
    backbone=dict(_delete_=True, **_base_.encoder, **maps),
    neck=dict(embed_dim=384),
    decode_head=dict(in_channels=[384] * 4),
    auxiliary_head=dict(in_channels=384),
)
