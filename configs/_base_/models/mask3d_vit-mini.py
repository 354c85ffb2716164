# Mask3D for 96x128 (height x width) with patches of 8: 192 patches, of which 38 RGB and 38 depth
# patches are kept. 2.7M parameters.
_base_ = './mask3d_vit-tiny.py'
model = dict(
    backbone=dict(
        arch=dict(
            _delete_=True, embed_dims=192, num_layers=6, num_heads=3, feedforward_channels=768
        ),
        img_size=(96, 128),
        patch_size=8,
    ),
    depth_encoder=dict(embed_dims=96, num_layers=1),
    fusion=dict(embed_dims=96),
    decoders=dict(depth=dict(embed_dims=96, num_heads=3)),
)
