# NYU Depth v2, 13 classes, official 795 / 654 split, 240x320 (height x width) as in Pri3D and Mask3D.
_base_ = './rgb_seg.py'
dataset = dict(type='mmmask3d.NYUv2SegDataset', num_classes=13, data_root='data/nyuv2')
train_dataloader = dict(dataset=dataset)
val_dataloader = dict(dataset=dict(**dataset, ann_file='splits/test.txt'))
test_dataloader = val_dataloader
