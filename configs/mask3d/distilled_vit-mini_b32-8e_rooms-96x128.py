# A 2.7M-parameter ViT on generated rooms at 96x128 with patches of 8: the whole RGB image to depth
# and normals through linear layers, and to what DINOv2 ViT-S/14 makes of the same frame. These
# weights are shipped with the package; tools/misc/make_rooms_encoder.py makes them.
# 2,080 frames / 32 = 65 iterations an epoch, 8 epochs = 520.
_base_ = [
    '../_base_/models/mask3d_vit-mini.py',
    '../_base_/datasets/rooms_pretrain.py',
    '../_base_/datasets/pipelines_96x128.py',
    '../_base_/schedules/pretrain_adamw_100e.py',
    '../_base_/default_runtime.py',
]
model = dict(
    depth_encoder=None,
    fusion=dict(embed_dims=192),
    decoders=dict(
        depth=dict(_delete_=True, type='DepthDecoder', num_layers=0),
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
    cache_gib=0.7,  # the teacher's features of the frames and of their mirror images
)
masking = dict(rgb_ratio=0.0, depth_ratio=1.0)
# Whole frames and their mirror images: what comes again unchanged can be kept.
whole = _base_.small_rgbd_val
train_dataloader = dict(
    num_workers=0,
    dataset=dict(pipeline=[*whole[:2], dict(type='RGBDRandomFlip', prob=0.5), *whole[2:]]),
)
val_dataloader = dict(num_workers=0, dataset=dict(pipeline=whole))
test_dataloader = val_dataloader
optim_wrapper = dict(
    type='Bfloat16OptimWrapper', optimizer=dict(lr=1e-3), clip_grad=dict(max_norm=3.0)
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, begin=0, end=2, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', begin=2, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=8, val_interval=8)
auto_scale_lr = dict(base_batch_size=32)
default_hooks = dict(checkpoint=dict(interval=2), logger=dict(interval=13))
