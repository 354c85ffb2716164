# Control: MAE (RGB to RGB, no depth anywhere) with the same classes, data and schedule.
_base_ = ['./mask3d_vit-tiny_b32-100e_rooms-240x320.py', '../_base_/mae.py']
model = _base_.mae_model
model.decoders.rgb = dict(_base_.model.decoders.depth, type='RGBDecoder')  # of the same size
masking = _base_.mae_masking
# There is no depth to evaluate.
val_dataloader = val_evaluator = val_cfg = None
test_dataloader = test_evaluator = test_cfg = None
custom_hooks = []
