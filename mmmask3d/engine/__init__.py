"""Training loop, hooks and optimizer settings."""

from .bf16_optim_wrapper import Bfloat16OptimWrapper
from .decoder_first_hook import DecoderFirstHook
from .layer_decay import LayerDecayOptimWrapperConstructor
from .loops import ResumableEpochBasedTrainLoop
from .masking_hook import MaskingHook
from .probe_hook import ProbeHook
from .resume_hook import AtomicCheckpointHook, RNGStateHook
from .resumed_config import ResumedConfigHook
from .visualization_hook import ReconstructionVisualizationHook

__all__ = [
    'AtomicCheckpointHook',
    'Bfloat16OptimWrapper',
    'DecoderFirstHook',
    'LayerDecayOptimWrapperConstructor',
    'MaskingHook',
    'ProbeHook',
    'RNGStateHook',
    'ReconstructionVisualizationHook',
    'ResumableEpochBasedTrainLoop',
    'ResumedConfigHook',
]
