# ViT-B: as finetune_40e with the learning rate and layer decay that MAE-like encoders use
# (lr 1e-4, decay 0.65 to 0.75), longer, under bf16 autocast (fp16 is known to go to NaN).
_base_ = './finetune_40e.py'

train_cfg = dict(max_epochs=200, val_interval=10)
optim_wrapper = dict(
    type='AmpOptimWrapper',
    dtype='bfloat16',
    optimizer=dict(lr=1e-4),
    paramwise_cfg=dict(layer_decay_rate=0.7),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=250),
    dict(type='CosineAnnealingLR', eta_min=0.0, by_epoch=True, begin=0, convert_to_iter_based=True),
]
