"""Epoch loop that continues an interrupted run exactly where it stopped, also within an epoch."""

from collections.abc import Iterator
from typing import Any

from mmengine.dist import get_rank
from mmengine.runner import EpochBasedTrainLoop
from torch.utils.data import BatchSampler

from mmmask3d.datasets.sampling import sample_rng
from mmmask3d.engine.resume_hook import RNGStateHook, restore_rng_state, sampler_of
from mmmask3d.engine.resumed_config import ResumedConfigHook
from mmmask3d.registry import LOOPS


@LOOPS.register_module()
class ResumableEpochBasedTrainLoop(EpochBasedTrainLoop):
    """``EpochBasedTrainLoop`` whose resumed runs repeat uninterrupted ones.

    A checkpoint saved within an epoch (``CheckpointHook(by_epoch=False)``) resumes at the next
    batch of that epoch: a sampler with ``set_start`` (``mmmask3d.EpochIndexSampler``) skips the
    samples already seen without loading them, with other samplers they are loaded and dropped. RNG
    states are restored right before the first batch is fetched, and neither the start of data
    workers nor validation changes the numbers that training draws. docs/training.md says under
    which conditions the repetition is exact.

    Registers :class:`RNGStateHook` and :class:`ResumedConfigHook` if the config does not. Takes
    ``EpochBasedTrainLoop``'s arguments.

    Raises:
        ValueError: There is not a single batch to train on.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if len(self.dataloader) == 0:
            raise ValueError(
                f'train_dataloader gives no batch: {len(self.dataloader.sampler)} samples for this '
                f'process are fewer than batch_size={self.dataloader.batch_size}, and '
                'drop_last=True leaves out what does not fill a batch. Lower batch_size.'
            )
        #: Batches of the current epoch done, including the one that is being trained on.
        self.batches_done = 0
        self._skip = 0
        self._rng_to_restore: dict[str, Any] | None = None
        for needed in (RNGStateHook, ResumedConfigHook):
            if not any(isinstance(hook, needed) for hook in self.runner.hooks):
                self.runner.register_hook(needed())

    def continue_from(self, saved: dict[str, Any], rng: dict[str, Any] | None) -> None:
        """Take up the position and RNG state of a checkpoint; called before training starts.

        Args:
            saved: What :class:`RNGStateHook` put into the checkpoint.
            rng: This rank's RNG state, None if there is none for it.

        Raises:
            RuntimeError: The checkpoint lies within an epoch whose number of batches has changed.
        """
        length = len(self.dataloader)
        if saved['batches_done'] and saved['epoch_length'] != length:
            raise RuntimeError(
                f'The checkpoint was saved after batch {saved["batches_done"]} of '
                f'{saved["epoch_length"]} of epoch {self._epoch + 1}, but this run has {length} '
                'batches per epoch, so the rest of that epoch is not defined. Resume with the '
                'same data, batch size and number of processes, or from a checkpoint saved at the '
                'end of an epoch.'
            )
        self._skip = saved['batches_done']
        self._rng_to_restore = rng
        # without a seed in the config each start draws one: the order must be the first run's
        sampler = sampler_of(self.dataloader)
        if saved['sampler_seed'] is not None and hasattr(sampler, 'seed'):
            sampler.seed = saved['sampler_seed']
        self.runner.logger.info(
            f'Continuing in epoch {self._epoch + 1} at batch {self._skip + 1} of {length}.'
        )

    def run_epoch(self) -> None:
        """Run one epoch, or what is left of it after resuming."""
        skip, self._skip = self._skip, 0
        self.batches_done = skip
        if skip == 0:
            self._restore_rng()
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        for idx, data_batch in enumerate(self._batches(skip), start=skip):
            self.run_iter(idx, data_batch)
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1
        self.batches_done = 0

    def run_iter(self, idx: int, data_batch: Any) -> None:
        """Train on one batch.

        Args:
            idx: Index of the batch within the epoch.
            data_batch: The batch.
        """
        self.batches_done = idx + 1
        super().run_iter(idx, data_batch)

    def _batches(self, skip: int) -> Iterator[Any]:
        """Yield the batches of this epoch from number ``skip`` on."""
        if skip >= len(self.dataloader):  # interrupted between the last batch and the epoch's end
            self._restore_rng()
            return
        loader, to_drop = self.dataloader, skip
        sampler = sampler_of(self.dataloader)
        if skip and hasattr(sampler, 'set_start') and type(loader.batch_sampler) is BatchSampler:
            sampler.set_start(min(skip * loader.batch_size, sampler.num_samples))
            to_drop = 0
        # the data loader draws the seed of its workers from the global generator
        with sample_rng(self.runner.seed, get_rank(), self._epoch):
            iterator = iter(loader)
        if to_drop:
            self.runner.logger.info(
                f'{type(sampler).__name__} cannot start in the middle of an epoch: loading and '
                f'dropping {to_drop} batches.'
            )
            for _ in range(to_drop):
                next(iterator)
        self._restore_rng()
        yield from iterator

    def _restore_rng(self) -> None:
        if self._rng_to_restore is not None:
            restore_rng_state(self._rng_to_restore)
            self._rng_to_restore = None
