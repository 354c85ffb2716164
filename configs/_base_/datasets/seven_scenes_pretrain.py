# 7-Scenes, official split, depth registered to colour; millimetres.
_base_ = './rgbd_pretrain.py'
seven_scenes = dict(data_root='data/seven_scenes', img_suffix='.png', max_depth=10.0)
train_dataloader = dict(dataset=dict(**seven_scenes, ann_file='splits/train.txt'))
val_dataloader = dict(dataset=dict(**seven_scenes, ann_file='splits/test.txt'))
test_dataloader = val_dataloader
