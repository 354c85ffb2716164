# AdamW with layer decay, 50 iterations of linear warm-up, cosine to zero over 40 epochs.
# `end` is left out of the cosine on purpose: mmengine sets it to train_cfg.max_epochs, so
# `--cfg-options train_cfg.max_epochs=N` shortens or lengthens the whole schedule, also on resuming.
train_cfg = dict(type='mmmask3d.ResumableEpochBasedTrainLoop', max_epochs=40, val_interval=5)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

optim_wrapper = dict(
    type='OptimWrapper',
    constructor='mmmask3d.LayerDecayOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=5e-4, betas=(0.9, 0.999), weight_decay=0.05),
    paramwise_cfg=dict(layer_decay_rate=0.75),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', eta_min=0.0, by_epoch=True, begin=0, convert_to_iter_based=True),
]
