# From random weights: depth and surface normals from the whole RGB image, by linear layers, which puts
# geometry into the encoder's tokens. Against MAE and Mask3D at equal epochs: docs/results.md.
_base_ = './mask3d_vit-mini_b32-80e_nyuv2-kinect-96x128.py'
masking = dict(rgb_ratio=0.0, depth_ratio=1.0)
model = dict(
    depth_encoder=None,
    decoders=dict(
        depth=dict(_delete_=True, type='DepthDecoder', num_layers=0),
        normal=dict(type='DepthDecoder', num_layers=0),
    ),
    heads=dict(normal=dict(type='NormalHead')),
)
