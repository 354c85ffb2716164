# Mask3D, ViT-B, ScanNet: masks 80 % / 80 %, 240x320, bf16.
# 1201 training scans, every 25th frame: about 78,000 frames; 78,000 / 512 = 152 iterations an
# epoch, 100 epochs = 15,200 iterations. (Our choice; the paper's schedule is not known to us.)
# The paper starts from ImageNet MAE weights; give them as
#   --cfg-options model.backbone.init_cfg.type=Pretrained model.backbone.init_cfg.checkpoint=FILE
_base_ = [
    '../_base_/models/mask3d_vit-base.py',
    '../_base_/datasets/scannet_pretrain.py',
    '../_base_/schedules/pretrain_adamw_100e.py',
    '../_base_/default_runtime.py',
]
# bf16 needs no loss scaling, and fp16 is known to end in NaN here; clipping for safety.
optim_wrapper = dict(
    type='AmpOptimWrapper', dtype='bfloat16', loss_scale=1.0, clip_grad=dict(max_norm=3.0)
)
