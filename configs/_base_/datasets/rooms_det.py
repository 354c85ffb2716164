# Generated rooms: boxes and masks of the ten countable classes, 240x320 (height x width).
_base_ = './rgb_det.py'
names = 'bed, books, chair, furniture, objects, picture, sofa, table, tv, window'
dataset = dict(data_root='data/rooms', metainfo=dict(classes=tuple(names.split(', '))))
train_dataloader = dict(dataset=dataset)
val_dataloader = dict(dataset=dataset)
test_dataloader = val_dataloader
