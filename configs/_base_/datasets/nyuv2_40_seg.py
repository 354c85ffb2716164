# NYU Depth v2 as in nyuv2_13_seg.py with the 40 classes (not comparable with 13).
_base_ = './nyuv2_13_seg.py'
train_dataloader = dict(dataset=dict(num_classes=40))
val_dataloader = dict(dataset=dict(num_classes=40))
test_dataloader = val_dataloader
