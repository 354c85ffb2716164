# ScanNet, the 20 classes of its benchmark, 240x320 (height x width).
# tools/dataset_converters/scannet.py makes the folder; splits/train_05.txt etc. hold a part of it.
_base_ = './rgb_seg.py'
dataset = dict(type='mmmask3d.ScanNetSegDataset', data_root='data/scannet')
train_dataloader = dict(dataset=dataset)
val_dataloader = dict(dataset=dataset)
test_dataloader = val_dataloader
