# The 2.7M-parameter ViT of mask3d_vit-mini.py from the whole RGB image to depth (a decoder of two
# layers) and normals (a linear one), and to what DINOv2 ViT-S/14 makes of the same frame.
_base_ = './mask3d_vit-mini.py'
model = dict(
    depth_encoder=None,
    fusion=dict(embed_dims=192),
    decoders=dict(
        depth=dict(_delete_=True, type='DepthDecoder', num_layers=2, num_heads=6),
        normal=dict(type='DepthDecoder', num_layers=0),
    ),
    heads=dict(normal=dict(type='NormalHead')),
    # With patches of 14, 168x224 has the grid of 96x128 with patches of 8.
    anchor=dict(
        type='FeatureAnchor',
        weight=3.0,
        teacher=dict(
            type='mmmask3d.TimmViT',
            model='vit_small_patch14_dinov2.lvd142m',
            pretrained=True,
            img_size=(168, 224),
        ),
        img_size=(168, 224),
    ),
    cache_gib=1.5,  # the teacher's features of 10,000 frames
)
