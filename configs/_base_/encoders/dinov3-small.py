# DINOv3 ViT-S/16 (Simeoni et al., 2025): rotary positions, four registers: timm's weights.
encoder = dict(
    type='mmmask3d.TimmViT',
    model='vit_small_patch16_dinov3.lvd1689m',
    pretrained=True,
    patch_size=16,
)
