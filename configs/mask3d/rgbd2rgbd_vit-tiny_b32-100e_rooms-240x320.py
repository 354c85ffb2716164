# Control: RGB + depth to both, the variant that 2408.02245 finds weaker than depth alone.
_base_ = './mask3d_vit-tiny_b32-100e_rooms-240x320.py'
model = dict(
    decoders=dict(rgb=dict(type='RGBDecoder', num_layers=2, num_heads=6)),
    heads=dict(rgb=dict(type='RGBHead')),
)
