# MAE's optimiser (He et al., CVPR 2022, table 8): lr = 1.5e-4 * batch / 256, here for a batch of
# 8 GPUs x 64 = 512. --auto-scale-lr rescales it for another batch.
# The cosine has no `end`: mmengine takes train_cfg.max_epochs, so that one override shortens or
# lengthens the whole schedule, also that of a run that is resumed.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1.5e-4 * 512 / 256, betas=(0.9, 0.95), weight_decay=0.05),
    # Equal rates, and no weight decay of biases, norms, position embeddings and tokens.
    constructor='LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(layer_decay_rate=1.0),
)
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-4,
        by_epoch=True,
        begin=0,
        end=5,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineAnnealingLR',
        eta_min=0.0,
        by_epoch=True,
        begin=5,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(type='ResumableEpochBasedTrainLoop', max_epochs=100, val_interval=5)
auto_scale_lr = dict(base_batch_size=512)
