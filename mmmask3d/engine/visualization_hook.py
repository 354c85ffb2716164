"""Reconstruction pictures during pre-training, through every backend of the visualizer."""

import re
from collections.abc import Sequence
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner
from mmengine.structures import BaseDataElement

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
        bgr: Whether the pipeline packs BGR images, as mmcv loads them.
        panel: Options of :func:`~mmmask3d.visualization.reconstruction_panel`, such as
            ``dict(paste_kept=True)`` or ``dict(vmin=0.5, vmax=5.0)``.
    """

    priority = 'NORMAL'

    def __init__(
        self,
        num_frames: int = 4,
        interval: int = 1,
        bgr: bool = True,
        panel: dict | None = None,
    ) -> None:
        if num_frames < 1 or interval < 1:
            raise ValueError(
                f'num_frames and interval must be at least 1, got {num_frames} and {interval}; '
                'remove the hook from custom_hooks to draw nothing'
            )
        self.num_frames = num_frames
        self.interval = interval
        self.bgr = bgr
        self.panel = panel or {}
        self._validations = 0
        self._drawn = 0
        self._active = False

    def before_val_epoch(self, runner: Runner) -> None:
        """Decide whether this validation is drawn."""
        self._active = self._validations % self.interval == 0 or _is_last(runner)
        self._validations += 1
        self._drawn = 0

    def after_val_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: Sequence[BaseDataElement] | None = None,
    ) -> None:
        """Draw what is still missing of the first frames."""
        if self._active:
            self._draw(runner, 'val', data_batch, outputs, _step(runner))

    def before_test_epoch(self, runner: Runner) -> None:
        """Begin with the first frame."""
        self._drawn = 0

    def after_test_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: Sequence[BaseDataElement] | None = None,
    ) -> None:
        """Draw the first frames of a test run."""
        self._draw(runner, 'test', data_batch, outputs, 0)

    def _draw(
        self,
        runner: Runner,
        mode: str,
        data_batch: Any,
        outputs: Sequence[BaseDataElement] | None,
        step: int,
    ) -> None:
        if self._drawn >= self.num_frames or not is_main_process():
            return
        for image, sample in zip(data_batch['inputs']['img'], outputs or (), strict=True):
            if self._drawn >= self.num_frames:
                return
            picture = panel_of_sample(image, sample, self.bgr, **self.panel)
            name = f'{mode}_{self._drawn:02d}_{_file_name(sample)}'
            runner.visualizer.add_image(name, picture, step)
            self._drawn += 1


def _file_name(sample: BaseDataElement) -> str:
    """Name of a frame without what cannot stand in a file name; backends join it to a folder."""
    return re.sub(r'[^\w.-]+', '_', str(sample.get('frame', 'frame'))).strip('_')


def _train_loop(runner: Runner) -> Any | None:
    """The training loop if there is one; ``runner.train_loop`` would build it from its config."""
    loop = runner._train_loop
    return None if isinstance(loop, dict) else loop


def _step(runner: Runner) -> int:
    loop = _train_loop(runner)
    if loop is None:
        return 0
    return loop.epoch if isinstance(loop, EpochBasedTrainLoop) else loop.iter


def _is_last(runner: Runner) -> bool:
    loop = _train_loop(runner)
    if loop is None:
        return True
    if isinstance(loop, EpochBasedTrainLoop):
        return loop.epoch >= loop.max_epochs
    return loop.iter >= loop.max_iters
