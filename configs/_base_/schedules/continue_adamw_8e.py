# Continuing strong weights: the encoder learns at 3e-4, what is new (heads) at 5e-4. An anchor allows
# such a rate: docs/results.md compares it with 1e-4.
optim_wrapper = dict(
    type='Bfloat16OptimWrapper',
    optimizer=dict(type='AdamW', lr=5e-4, betas=(0.9, 0.999), weight_decay=0.05),
    # Not mmengine's constructor: its norm_decay_mult passes over what a custom key fits.
    constructor='LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(layer_decay_rate=1.0, custom_keys=dict(backbone=dict(lr_mult=0.6))),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, begin=0, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', begin=1, convert_to_iter_based=True),
]
train_cfg = dict(type='ResumableEpochBasedTrainLoop', max_epochs=8, val_interval=8)
auto_scale_lr = dict(base_batch_size=32)
