# As mask3d-mini_fcn_nyuv2-13-96x128.py with the 40 classes (not comparable with 13).
_base_ = './mask3d-mini_fcn_nyuv2-13-96x128.py'
model = dict(decode_head=dict(num_classes=40))
train_dataloader = dict(dataset=dict(num_classes=40))
val_dataloader = dict(dataset=dict(num_classes=40))
test_dataloader = val_dataloader
