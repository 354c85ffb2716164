# Control: RGB + depth to both, the variant that 2408.02245 finds weaker than depth alone.
_base_ = './mask3d_vit-base_8xb64-amp-100e_scannet-240x320.py'
model = dict(
    decoders=dict(rgb=dict(type='RGBDecoder', num_layers=4, num_heads=16)),
    heads=dict(rgb=dict(type='RGBHead')),
)
