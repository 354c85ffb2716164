# TUM RGB-D, colour as distributed, 1/5000 m; some sequences held out with --val.
_base_ = './rgbd_pretrain.py'
tum = dict(data_root='data/tum', img_suffix='.png', depth_scale=5000, max_depth=10.0)
train_dataloader = dict(dataset=dict(**tum, ann_file='splits/train.txt'))
val_dataloader = dict(dataset=dict(**tum, ann_file='splits/val.txt'))
test_dataloader = val_dataloader
