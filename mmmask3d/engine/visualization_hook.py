"""Reconstruction pictures during pre-training, through every backend of the visualizer."""

import re
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, Runner

from mmmask3d.registry import HOOKS
from mmmask3d.visualization import panel_of_sample


@HOOKS.register_module()
class ReconstructionVisualizationHook(Hook):
    """Draw the first frames of a validation (or test) run: given, predicted, true, error.

    The pictures go to ``runner.visualizer``, so ``LocalVisBackend`` writes PNG files and
    ``TensorboardVisBackend`` or ``WandbVisBackend`` show them along the training. Only the main
    process draws, from its own share of the frames.

    Args:
        num_frames: Frames per validation; always the same ones, as validation does not shuffle.
        interval: Draw at every ``interval``-th validation of this process, the first included,
            and at the last of a training.
    """

    priority = 'NORMAL'

    def __init__(self, num_frames: int = 4, interval: int = 1) -> None:
        if num_frames < 1 or interval < 1:
            raise ValueError(
                f'num_frames and interval must be at least 1, got {num_frames} and {interval}; '
                'remove the hook from custom_hooks to draw nothing'
            )
        self.num_frames = num_frames
        self.interval = interval
        self._validations = 0
        self._drawn = 0
        self._step = 0
        self._active = False

    def _before_epoch(self, runner: Runner, mode: str = 'train') -> None:
        """Decide whether this validation or test is drawn."""
        loop: Any = runner._train_loop  # as it is: `runner.train_loop` would build it
        built = isinstance(loop, BaseLoop)
        last = not built or loop.iter >= loop.max_iters
        self._step = (loop.epoch or loop.iter) if built and mode == 'val' else 0
        self._active = mode == 'test' or self._validations % self.interval == 0 or last
        self._validations += mode == 'val'
        self._drawn = 0

    def _after_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
        mode: str = 'train',
    ) -> None:
        """Draw what is still missing of the first frames."""
        if mode == 'train' or not self._active or not is_main_process():
            return
        for image, sample in zip(data_batch['inputs']['img'], outputs or (), strict=True):
            if self._drawn >= self.num_frames:
                return
            picture = panel_of_sample(image, sample)
            # The name of a frame without what cannot stand in a file name.
            frame = re.sub(r'[^\w.-]+', '_', str(sample.get('frame', 'frame'))).strip('_')
            runner.visualizer.add_image(f'{mode}_{self._drawn:02d}_{frame}', picture, self._step)
            self._drawn += 1
