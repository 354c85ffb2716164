"""Training loop, hooks and optimizer settings; importing it makes checkpoint loading strict."""

from mmmask3d.checkpoints.files import (
    CheckpointError,
    UnsafeCheckpointError,
    find_resumable_checkpoint,
    install_strict_loaders,
    load_checkpoint_file,
    save_checkpoint_atomic,
)
from mmmask3d.config_scopes import register_config_scopes

from .layer_decay import LayerDecayOptimWrapperConstructor
from .loops import ResumableEpochBasedTrainLoop
from .probe_hook import ProbeHook
from .resume_hook import AtomicCheckpointHook, RNGStateHook
from .resumed_config import ResumedConfigHook
from .visualization_hook import ReconstructionVisualizationHook

install_strict_loaders()
register_config_scopes()

__all__ = [
    'AtomicCheckpointHook',
    'CheckpointError',
    'LayerDecayOptimWrapperConstructor',
    'ProbeHook',
    'RNGStateHook',
    'ReconstructionVisualizationHook',
    'ResumableEpochBasedTrainLoop',
    'ResumedConfigHook',
    'UnsafeCheckpointError',
    'find_resumable_checkpoint',
    'install_strict_loaders',
    'load_checkpoint_file',
    'save_checkpoint_atomic',
]
