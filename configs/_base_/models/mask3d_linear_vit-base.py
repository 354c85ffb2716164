# A linear classifier of each patch: a 1x1 convolution on the last map of ViT-B, and nothing else.
_base_ = './mask3d_fcn_vit-base.py'
# Without convolutions mmseg's FCNHead passes the map on, so both widths are the encoder's.
model = dict(decode_head=dict(num_convs=0, channels=768, dropout_ratio=0.0))
