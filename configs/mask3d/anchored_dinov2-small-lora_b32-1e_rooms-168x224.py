# As anchored_dinov2-small_*, with LoRA in the last eight layers: 0.15 M parameters of the encoder are
# trained. Their average is what is kept (EMA), and the new heads learn alone for ten iterations.
# 10,080 frames / 32 = 315 iterations, one epoch; tools/misc/make_rooms_encoder.py --adapter runs it.
_base_ = './anchored_dinov2-small_b32-8e_rooms-168x224.py'
model = dict(
    backbone=dict(_delete_=True, type='LoRAEncoder', module=_base_.model.backbone, rank=8, alpha=8),
    cache_gib=0,  # no frame comes twice
)
# Matrices that start from zero take a higher rate, 1e-3.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=2.0))))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, by_epoch=False, begin=0, end=30),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=0, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=1, val_interval=1)
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='EMAHook', momentum=0.05),
    dict(type='DecoderFirstHook', iters=10),
]
