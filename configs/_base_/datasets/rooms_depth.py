# Generated rooms (tools/dataset_converters/generate_rooms.py), 240x320 (height x width).
_base_ = './rgbd_depth.py'
train_dataloader = dict(dataset=dict(data_root='data/rooms'))
val_dataloader = dict(dataset=dict(data_root='data/rooms'))
test_dataloader = val_dataloader
