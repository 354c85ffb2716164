"""Probe the encoder while it is pre-trained: what could be read off it if it were frozen now."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import torch.distributed as dist
from mmengine.dist import is_distributed, is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from mmmask3d.datasets.sampling import sample_rng
from mmmask3d.evaluation.bootstrap import means
from mmmask3d.evaluation.dense_probe import fit_probe
from mmmask3d.evaluation.frames import (
    Frame,
    Targets,
    depth_targets,
    label_targets,
    normal_targets,
    read_frames,
)
from mmmask3d.evaluation.frozen_features import encode, image_normaliser, with_targets
from mmmask3d.registry import DATASETS, HOOKS

_LONGEST = timedelta(hours=12)  # that a probe may take


@HOOKS.register_module()
class ProbeHook(Hook):
    """Fit a linear map or nearest neighbours on frozen features, and log how well they do.

    Labels are probed where the frames have some, else depth, and surface normals linearly.

    The main process probes, the others wait; what goes wrong there ends all of them. Data sets are
    built, and a frame of each is read, before the training. Neither the weights nor any random
    state of the training change, so a run with the hook and one without are the same run.
    With an ``EMAHook`` it is the weights that train which are probed, not their average.

    Args:
        train_dataset: frames to fit on: an mmseg data set with labels, or RGB-D frames. The
            pipeline resizes to one size and draws nothing.
        val_dataset: frames to score on, of other scenes.
        interval: probe after every ``interval``-th epoch and after the last one.
        methods: 'linear', 'knn' or both.
        limit: at most so many frames of each data set, evenly spread; None for all, which takes
            memory and time (docs/report_card.md).
        batch_size: frames encoded at a time.
        name: first part of the figures' names.
    """

    priority = 'LOW'

    def __init__(
        self,
        train_dataset: dict,
        val_dataset: dict,
        interval: int = 10,
        methods: Sequence[str] = ('linear', 'knn'),
        limit: int | None = 400,
        batch_size: int = 16,
        name: str = 'probe',
    ) -> None:
        if interval < 1:
            raise ValueError(f'ProbeHook: interval must be at least 1, got {interval}.')
        self.train_dataset = train_dataset
        self.val_dataset = val_dataset
        self.interval = interval
        self.methods = tuple(methods)
        self.limit = limit
        self.batch_size = batch_size
        self.name = name
        self._datasets: list = []
        self._group: Any = None

    def before_train(self, runner: Runner) -> None:
        """Build the data sets, and read a frame of each: now rather than in ten epochs."""
        if is_distributed():
            # The others wait here while one probes on the CPU: longer than NCCL's ten minutes.
            self._group = dist.new_group(backend='gloo', timeout=_LONGEST)
        with sample_rng(0):
            self._datasets = [DATASETS.build(d) for d in (self.train_dataset, self.val_dataset)]
            for dataset in self._datasets:
                dataset[0]

    def after_train_epoch(self, runner: Runner) -> None:
        """Probe if it is time."""
        if not (self.every_n_epochs(runner, self.interval) or self.is_last_train_epoch(runner)):
            return
        failure: list[str | None] = [None]
        if is_main_process():
            try:
                with sample_rng(0):
                    self._probe(runner)
            except Exception as error:  # of any kind: the other processes must not wait for ever
                if self._group is None:
                    raise
                failure = [f'{type(error).__name__}: {error}']
        if self._group is not None:
            dist.broadcast_object_list(failure, src=0, group=self._group)
        if failure[0] is not None:
            raise RuntimeError(f'the probe failed in the main process: {failure[0]}')

    def _probe(self, runner: Runner) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        normalise = image_normaliser(model.data_preprocessor)
        device = next(model.parameters()).device
        frames = [read_frames([dataset], self.limit) for dataset in self._datasets]
        features = [
            encode(model.backbone, some, normalise, None, self.batch_size, device)
            for some in frames
        ]
        classes = self._datasets[0].metainfo.get('classes')
        count = None if classes is None else len(classes)
        figures: dict[str, float] = {}
        for part, targets in _targets(frames).items():
            train, val = map(with_targets, features, targets)
            for method in self.methods:
                if train.kind == 'normals' and method != 'linear':
                    continue  # normals are read linearly, as in the report card
                found = means(fit_probe(train, method, count).score(val, count))
                figures |= {f'{self.name}/{part}{method}_{key}': v for key, v in found.items()}
        step = runner.epoch + 1
        runner.visualizer.add_scalars(figures, step=step)
        shown = '  '.join(f'{key}: {value:.4f}' for key, value in figures.items())
        runner.logger.info(f'Epoch({self.name}) [{step}]  {shown}')


def _targets(frames: Sequence[list[Frame]]) -> dict[str, list[Targets]]:
    """Labels where there are some, else depth and its normals: of each split, by prefix."""
    labels = [kind for some in frames for kind in list(label_targets(some).values())[:1]]
    if len(labels) == len(frames):
        return {'': labels}
    found = {'': [depth_targets(some) for some in frames]}
    normals = [normal_targets(some) for some in frames]
    if all(targets.any() for targets in normals):
        found['normals_'] = normals  # sparse depth may have no plane anywhere
    return found
