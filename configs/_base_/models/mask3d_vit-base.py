# Mask3D with ViT-B: 300 patches of 16x16 at 240x320, of which 60 RGB and 60 depth patches are kept.
model = dict(
    type='MaskedRGBD',
    data_preprocessor=dict(
        type='RGBDDataPreprocessor', depth_target=dict(mode='standardise', stats='all')
    ),
    backbone=dict(type='Mask3DViT', arch='base', img_size=(240, 320), patch_size=16),
    depth_encoder=dict(type='DepthEncoder', embed_dims=384, num_layers=2, num_heads=6),
    fusion=dict(type='AddFusion', embed_dims=512),
    # A quarter of the removed patches is decoded in a training step. The heavier decoder of all of
    # them: dict(type='DepthDecoder', num_layers=4, num_heads=16).
    decoders=dict(
        depth=dict(type='CrossAttentionDecoder', embed_dims=384, num_layers=4, num_heads=12)
    ),
    heads=dict(depth=dict(type='DepthHead', loss=dict(type='DepthL2Loss'))),
)
