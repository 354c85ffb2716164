# Generated rooms, 13 classes, 240x320 (height x width).
_base_ = './rgb_seg.py'
dataset = dict(type='mmmask3d.RoomsSegDataset', data_root='data/rooms')
train_dataloader = dict(dataset=dataset)
val_dataloader = dict(dataset=dataset)
test_dataloader = val_dataloader
