# NYU Depth v2: boxes and masks of the 37 categories (40 classes without wall, floor and ceiling),
# official 795 / 654 split, 240x320 (height x width).
_base_ = './rooms_det.py'
data_root = 'data/nyuv2'
metainfo = dict(
    _delete_=True,
    classes=(
        'cabinet',
        'bed',
        'chair',
        'sofa',
        'table',
        'door',
        'window',
        'bookshelf',
        'picture',
        'counter',
        'blinds',
        'desk',
        'shelves',
        'curtain',
        'dresser',
        'pillow',
        'mirror',
        'floor mat',
        'clothes',
        'books',
        'refridgerator',
        'television',
        'paper',
        'towel',
        'shower curtain',
        'box',
        'whiteboard',
        'person',
        'night stand',
        'toilet',
        'sink',
        'lamp',
        'bathtub',
        'bag',
        'otherstructure',
        'otherfurniture',
        'otherprop',
    ),
)
train_dataloader = dict(dataset=dict(data_root=data_root, metainfo=metainfo))
val_dataloader = dict(
    dataset=dict(data_root=data_root, metainfo=metainfo, ann_file='annotations/instances_test.json')
)
test_dataloader = val_dataloader
