# Mask3D, 0.7M-parameter ViT on generated rooms at 96x128 with patches of 8: the weights that are
# shipped with the package, made by tools/misc/make_rooms_encoder.py. Small on purpose: the whole
# pre-trainer takes less than 2 MiB in float16.
# 800 frames / 16 = 50 iterations an epoch, 60 epochs = 3,000.
_base_ = './mask3d_vit-micro_rooms_demo.py'
model = dict(
    backbone=dict(
        arch=dict(
            _delete_=True, embed_dims=96, num_layers=6, num_heads=3, feedforward_channels=384
        ),
    ),
    depth_encoder=dict(embed_dims=64, num_heads=4),
    fusion=dict(embed_dims=64),
    decoders=dict(depth=dict(_delete_=True, type='DepthDecoder', num_layers=2, num_heads=4)),
)
train_cfg = dict(max_epochs=60, val_interval=20)
default_hooks = dict(checkpoint=dict(interval=5), logger=dict(interval=25))
