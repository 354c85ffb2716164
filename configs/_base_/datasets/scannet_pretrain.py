# ScanNet, every 25th frame (tools/dataset_converters/scannet.py); millimetres, 0 = none.
_base_ = './rgbd_pretrain.py'
train_dataloader = dict(dataset=dict(data_root='data/scannet', ann_file='splits/train.txt'))
val_dataloader = dict(dataset=dict(data_root='data/scannet', ann_file='splits/val.txt'))
test_dataloader = val_dataloader
