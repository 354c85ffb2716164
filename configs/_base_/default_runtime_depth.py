# Runtime of monocular depth: as segmentation, the best checkpoint by RMSE.
_base_ = './default_runtime_seg.py'
default_hooks = dict(checkpoint=dict(save_best='rmse', rule='less'))
