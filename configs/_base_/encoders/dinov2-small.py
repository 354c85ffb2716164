# DINOv2 ViT-S/14 (Oquab et al., 2023), with patches of 16 pixels (FlexiViT): timm's weights.
encoder = dict(
    type='mmmask3d.TimmViT',
    model='vit_small_patch14_dinov2.lvd142m',
    pretrained=True,
    patch_size=16,
)
