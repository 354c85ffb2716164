# ScanNet, boxes and masks of the 18 countable classes of its benchmark, 240x320 (height x width).
# tools/dataset_converters/scannet.py makes the folder; annotations/instances_train_05.json etc. hold
# a part of it.
_base_ = './rgb_det.py'
names = (
    'cabinet, bed, chair, sofa, table, door, window, bookshelf, picture, counter, desk, '
    'curtain, refridgerator, shower curtain, toilet, sink, bathtub, otherfurniture'
)
dataset = dict(data_root='data/scannet', metainfo=dict(classes=tuple(names.split(', '))))
train_dataloader = dict(dataset=dataset)
val_dataloader = dict(dataset=dataset)
test_dataloader = val_dataloader
