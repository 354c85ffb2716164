"""Pre-trainer, encoders, decoders, heads and losses."""

from importlib.util import find_spec

from .anchor import FeatureAnchor
from .contrast import RGBDContrast
from .data_preprocessor import RGBDDataPreprocessor
from .decoder import CrossAttentionDecoder, DepthDecoder, RGBDecoder
from .depth_encoder import DepthEncoder
from .depth_target import DepthTarget
from .fusion import AddFusion, ConcatFusion, CrossAttentionFusion
from .heads import DepthHead, NormalHead, RGBHead
from .lora import LoRAEncoder
from .losses import (
    DepthBerHuLoss,
    DepthGradientLoss,
    DepthL1Loss,
    DepthL2Loss,
    DepthSILogLoss,
)
from .mask3d_pyramid import Mask3DPyramid
from .mask3d_vit import Mask3DViT
from .masked_rgbd import MaskedRGBD
from .timm_vit import TimmViT

__all__ = [
    'AddFusion',
    'ConcatFusion',
    'CrossAttentionDecoder',
    'CrossAttentionFusion',
    'DepthBerHuLoss',
    'DepthDecoder',
    'DepthEncoder',
    'DepthGradientLoss',
    'DepthHead',
    'DepthL1Loss',
    'DepthL2Loss',
    'DepthSILogLoss',
    'DepthTarget',
    'FeatureAnchor',
    'LoRAEncoder',
    'Mask3DPyramid',
    'Mask3DViT',
    'MaskedRGBD',
    'NormalHead',
    'RGBDContrast',
    'RGBDDataPreprocessor',
    'RGBDecoder',
    'RGBHead',
    'TimmViT',
]

# Pre-training does not need mmseg: the parts for its models register where it is there.
if find_spec('mmseg') is not None:
    from . import depth_estimation as depth_estimation
    from . import dpt_heads as dpt_heads
