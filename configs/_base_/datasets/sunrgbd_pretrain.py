# SUN RGB-D, the 5,285 training frames of the official split; raw depth in millimetres. None of them
# is a test frame of NYUv2: docs/datasets/sunrgbd.md.
_base_ = './rgbd_pretrain.py'
train_dataloader = dict(dataset=dict(data_root='data/sunrgbd', ann_file='splits/train.txt'))
val_dataloader = dict(dataset=dict(data_root='data/sunrgbd', ann_file='splits/test.txt'))
test_dataloader = val_dataloader
