# Generated rooms: tools/dataset_converters/generate_rooms.py. Depth in millimetres.
_base_ = './rgbd_pretrain.py'
train_dataloader = dict(
    batch_size=32,
    num_workers=2,
    dataset=dict(data_root='data/rooms', ann_file='splits/train.txt'),
)
val_dataloader = dict(
    batch_size=32,
    num_workers=2,
    dataset=dict(data_root='data/rooms', ann_file='splits/val.txt'),
)
test_dataloader = val_dataloader
