"""Leaves the encoder as it is while a new decoder learns to read it."""

from typing import Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapperDict
from mmengine.runner import Runner

from mmmask3d.registry import HOOKS


@HOOKS.register_module()
class DecoderFirstHook(Hook):
    """Train everything but the backbone for the first iterations, then all of it.

    The decoder starts at random, and what it sends back through the encoder at first is noise,
    which strong weights are better spared (linear probing before fine-tuning, Kumar et al., arXiv
    2202.10054). Gradients of the backbone are dropped before the optimiser's step, so that it gets
    no update, no weight decay and no moments. They still count where gradients are clipped. Works
    with several processes too, and a resumed run goes on in the same way.

    Args:
        iters: number of iterations.

    Raises:
        ValueError: ``iters`` is below 1; or, at the start, the model has no ``backbone``.
    """

    def __init__(self, iters: int) -> None:
        if iters < 1:
            raise ValueError(f'DecoderFirstHook.iters={iters}: expected 1 or more.')
        self.iters = iters
        self._handles: list[Any] = []

    def before_train(self, runner: Runner) -> None:
        """Look at every step of the optimiser from here on."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        if not hasattr(model, 'backbone'):
            raise ValueError(
                f'DecoderFirstHook: {type(model).__name__} has no backbone that could wait.'
            )
        parameters = list(model.backbone.parameters())

        def drop(*_: Any) -> None:
            if runner.iter < self.iters:
                for parameter in parameters:
                    parameter.grad = None

        wrapper = runner.optim_wrapper
        several = isinstance(wrapper, OptimWrapperDict)
        for one in wrapper.values() if several else [wrapper]:
            self._handles.append(one.optimizer.register_step_pre_hook(drop))

    def after_train(self, runner: Runner) -> None:
        """Stop looking."""
        while self._handles:
            self._handles.pop().remove()
