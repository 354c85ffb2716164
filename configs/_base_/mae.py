# The control MAE (He et al., CVPR 2022): RGB to RGB, no depth anywhere, its own ratio of 75 %. A
# config names this file in `_base_` next to that of Mask3D, and takes both from here.
mae_model = dict(
    depth_encoder=None,
    decoders=dict(depth=None, rgb=dict(type='RGBDecoder')),
    heads=dict(depth=None, rgb=dict(type='RGBHead')),
)
mae_masking = dict(rgb_ratio=0.75, depth_ratio=1.0)
