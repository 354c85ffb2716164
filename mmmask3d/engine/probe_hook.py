"""Probe the encoder while it is pre-trained: what could be read off it if it were frozen now."""

from collections.abc import Sequence

from mmengine.dist import barrier, is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from ..datasets.sampling import sample_rng
from ..evaluation.dense_probe import probe
from ..evaluation.frozen_features import extract_features, image_normaliser
from ..registry import DATASETS, HOOKS


@HOOKS.register_module()
class ProbeHook(Hook):
    """Fit a linear map or nearest neighbours on frozen features, and log how well they do.

    The main process probes, the others wait. Data sets are built at the first probe. Neither the
    weights nor any random state of the training change, so a run with the hook and one without are
    the same run.

    Args:
        train_dataset: frames to fit on: an mmseg data set with labels, or RGB-D frames. The
            pipeline resizes to one size and draws nothing.
        val_dataset: frames to score on, of other scenes.
        interval: probe after every ``interval``-th epoch and after the last one.
        methods: 'linear', 'knn' or both.
        limit: at most so many frames of each data set, evenly spread.
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
        limit: int | None = None,
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
        self._datasets = None

    def after_train_epoch(self, runner: Runner) -> None:
        """Probe if it is time."""
        if self.every_n_epochs(runner, self.interval) or self.is_last_train_epoch(runner):
            if is_main_process():
                with sample_rng(0):
                    self._probe(runner)
            barrier()

    def _probe(self, runner: Runner) -> None:
        if self._datasets is None:
            self._datasets = [DATASETS.build(d) for d in (self.train_dataset, self.val_dataset)]
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        normalise = image_normaliser(
            dict(
                mean=model.data_preprocessor.mean.flatten().tolist(),
                std=model.data_preprocessor.std.flatten().tolist(),
                bgr_to_rgb=model.data_preprocessor.bgr_to_rgb,
            )
        )
        device = next(model.parameters()).device
        train, val = (
            extract_features(
                model.backbone, dataset, normalise, self.batch_size, self.limit, device
            )
            for dataset in self._datasets
        )
        classes = self._datasets[0].metainfo.get('classes')
        figures = {}
        for method in self.methods:
            found = probe(train, val, method, None if classes is None else len(classes))
            figures |= {f'{self.name}/{method}_{key}': value for key, value in found.items()}
        step = runner.epoch + 1
        runner.visualizer.add_scalars(figures, step=step)
        shown = '  '.join(f'{key}: {value:.4f}' for key, value in figures.items())
        runner.logger.info(f'Epoch({self.name}) [{step}]  {shown}')
