# DINOv2 ViT-S/14 continued: the whole RGB image to depth and normals through linear layers, near
# the features that the encoder started with. The last eight of its twelve layers are trained.
_base_ = '../encoders/dinov2-small.py'
model = dict(
    type='MaskedRGBD',
    data_preprocessor=dict(
        type='RGBDDataPreprocessor', depth_target=dict(mode='standardise', stats='all')
    ),
    # Patches of 14 pixels are the weights' own: nothing is resampled.
    backbone=dict(_base_.encoder, patch_size=14, img_size=(168, 224), frozen_stages=4),
    depth_encoder=None,
    fusion=dict(type='AddFusion', embed_dims=384),
    decoders=dict(
        depth=dict(type='DepthDecoder', num_layers=0),
        normal=dict(type='DepthDecoder', num_layers=0),
    ),
    heads=dict(depth=dict(type='DepthHead'), normal=dict(type='NormalHead')),
    anchor=dict(type='FeatureAnchor', weight=5.0),
    share_frozen=True,
    cache_gib=2.0,  # of what frozen layers and anchor give, for frames and their mirror images
)
