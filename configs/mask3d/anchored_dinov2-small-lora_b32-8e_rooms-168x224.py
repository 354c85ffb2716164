# As anchored_dinov2-small_*, with LoRA in the last eight layers: 0.15 M parameters of the encoder are
# trained. Their average is what is kept (EMA), and the new heads learn alone for ten iterations.
_base_ = './anchored_dinov2-small_b32-8e_rooms-168x224.py'
model = dict(
    backbone=dict(_delete_=True, type='LoRAEncoder', module=_base_.model.backbone, rank=8, alpha=8)
)
# Matrices that start from zero take the full rate.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=1.0))))
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='EMAHook', momentum=0.05),
    dict(type='DecoderFirstHook', iters=10),
]
