# The same for detectors, in fp16 with loss scaling, as in mmdet's own configs: mmcv's RoIAlign, NMS
# and focal loss do not know bf16, whose eight bits would not hold coordinates of boxes either.
_base_ = './finetune_200e_vit-base.py'
optim_wrapper = dict(dtype='float16', loss_scale='dynamic')
