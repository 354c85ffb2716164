"""Training in bfloat16 on any machine."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.optim import OptimWrapper
from mmengine.runner import autocast
from torch import nn

from mmmask3d.registry import OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module()
class Bfloat16OptimWrapper(OptimWrapper):
    """Forward passes in bfloat16 (autocast); weights, gradients and the optimiser in float32.

    What mmengine's ``AmpOptimWrapper(dtype='bfloat16')`` does on a GPU, without its gradient
    scaler: bfloat16 needs none, and for its sake that class refuses to work on a CPU. CPUs with
    bfloat16 units (AMX, AVX512-BF16) multiply matrices several times as fast as in float32;
    others are slower.

    Args: those of mmengine's ``OptimWrapper``.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Autocast around what ``train_step`` computes."""
        with super().optim_context(model), autocast(dtype=torch.bfloat16):
            yield
