# NYU Depth v2: boxes and masks of the 37 categories (40 classes without wall, floor and ceiling),
# official 795 / 654 split, 240x320 (height x width).
_base_ = './rgb_det.py'
names = (
    'cabinet, bed, chair, sofa, table, door, window, bookshelf, picture, counter, blinds, '
    'desk, shelves, curtain, dresser, pillow, mirror, floor mat, clothes, books, '
    'refridgerator, television, paper, towel, shower curtain, box, whiteboard, person, '
    'night stand, toilet, sink, lamp, bathtub, bag, otherstructure, otherfurniture, otherprop'
)
dataset = dict(data_root='data/nyuv2', metainfo=dict(classes=tuple(names.split(', '))))
train_dataloader = dict(dataset=dataset)
val_dataloader = dict(dataset=dict(**dataset, ann_file='annotations/instances_test.json'))
test_dataloader = val_dataloader
