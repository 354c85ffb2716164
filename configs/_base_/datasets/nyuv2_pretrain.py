# NYU Depth v2, the 795 training frames of the official split; raw depth in millimetres.
_base_ = './rgbd_pretrain.py'
train_dataloader = dict(dataset=dict(data_root='data/nyuv2', ann_file='splits/train.txt'))
val_dataloader = dict(dataset=dict(data_root='data/nyuv2', ann_file='splits/test.txt'))
test_dataloader = val_dataloader
