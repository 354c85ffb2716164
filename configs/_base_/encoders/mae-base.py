# MAE ViT-B/16 (He et al., CVPR 2022): timm's weights.
encoder = dict(
    type='mmmask3d.TimmViT', model='vit_base_patch16_224.mae', pretrained=True, patch_size=16
)
