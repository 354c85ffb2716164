# SUN RGB-D, 37 classes, official 5,285 / 5,050 split, 240x320 (height x width).
_base_ = './rgb_seg.py'
# The four sensors give frames of 1.28 to 1.38 times their height; all are brought to one size,
# since the position embedding is made for it. Predictions are scored at the labels' own size.
train_pipeline = _base_.train_pipeline
train_pipeline[2].keep_ratio = False
test_pipeline = _base_.test_pipeline
test_pipeline[1].keep_ratio = False
dataset = dict(type='mmmask3d.SUNRGBDSegDataset', data_root='data/sunrgbd')
train_dataloader = dict(dataset=dict(**dataset, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(**dataset, ann_file='splits/test.txt', pipeline=test_pipeline))
test_dataloader = val_dataloader
