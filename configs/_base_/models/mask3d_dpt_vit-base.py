# As mask3d_dpt_vit-tiny.py with ViT-B and DPT's own widths.
_base_ = './mask3d_dpt_vit-tiny.py'
model = dict(
    backbone=dict(arch='base'),
    decode_head=dict(
        in_channels=[768] * 4,
        post_process_channels=[96, 192, 384, 768],
        channels=256,
        norm_cfg=dict(type='SyncBN', requires_grad=True),
    ),
)
