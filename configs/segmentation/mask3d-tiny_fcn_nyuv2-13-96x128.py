# A quarter of the pixels for CPU experiments: 96x128, patches of 8 (grid 12x16). Predictions are
# scored at the labels' own size.
_base_ = ['./mask3d-tiny_fcn_nyuv2-13-240x320.py', '../_base_/datasets/pipelines_96x128.py']

model = dict(
    data_preprocessor=dict(size=_base_.small_size),
    backbone=dict(img_size=_base_.small_size, patch_size=8),
)
train_dataloader = dict(dataset=dict(pipeline=_base_.small_seg_train))
val_dataloader = dict(dataset=dict(pipeline=_base_.small_seg_test))
test_dataloader = val_dataloader
