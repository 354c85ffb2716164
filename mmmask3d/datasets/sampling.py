"""Make every random draw of a sample a function of (seeds, epoch, index).

mmengine seeds its workers without regard to the epoch and saves no RNG state, so a resumed run
does not repeat the uninterrupted one. Here the sampler hands the epoch to the data set inside the
index, and the data set seeds the generators for that one sample: the number of workers, their
order and the place where a run was interrupted no longer matter.
"""

import random
from collections.abc import Iterator, Sized
from contextlib import contextmanager

import numpy as np
import torch
from mmengine.dataset import DefaultSampler

from mmmask3d.registry import DATA_SAMPLERS


class EpochIndex(int):
    """An index that knows the epoch it was drawn in.

    It is an ``int`` to everyone else. ``- int`` and ``% int`` keep the epoch, because mmengine's
    ``ConcatDataset`` and ``RepeatDataset`` use them to find the index inside the wrapped set; any
    other arithmetic gives a plain ``int``. ``origin`` is the index as the sampler drew it: two
    repeats of one frame in one epoch share the inner index, not the origin, and so get different
    augmentations.

    Args:
        value: The index.
        epoch: The epoch, from 0.
        origin: The index in the outermost data set; ``value`` by default.
        seed: The seed of the run, at least 0.
    """

    epoch: int
    origin: int
    seed: int

    def __new__(
        cls, value: int, epoch: int, origin: int | None = None, seed: int = 0
    ) -> 'EpochIndex':
        """Create the index (``int`` is immutable, so not in ``__init__``)."""
        index = super().__new__(cls, value)
        index.epoch = int(epoch)
        index.origin = int(value if origin is None else origin)
        index.seed = int(seed)
        return index

    def __sub__(self, other: int) -> 'EpochIndex':
        return EpochIndex(int(self) - int(other), self.epoch, self.origin, self.seed)

    def __mod__(self, other: int) -> 'EpochIndex':
        return EpochIndex(int(self) % int(other), self.epoch, self.origin, self.seed)

    def __reduce__(self) -> tuple:
        return EpochIndex, (int(self), self.epoch, self.origin, self.seed)

    def __repr__(self) -> str:
        return (
            f'EpochIndex({int(self)}, epoch={self.epoch}, origin={self.origin}, seed={self.seed})'
        )


@DATA_SAMPLERS.register_module()
class EpochIndexSampler(DefaultSampler):
    """mmengine's ``DefaultSampler``, whose indices carry the epoch and the seed of the run.

    Order, shuffling and distribution over ranks are the parent's. A loop that resumes in the
    middle of an epoch calls :meth:`set_start` with the number of samples this rank has already
    consumed; the next pass begins there, the pass after it at 0 again.

    Args:
        dataset: The data set.
        shuffle: Whether to shuffle, differently in each epoch.
        seed: Seed of the order and, through the indices, of what samples draw; the same on all
            ranks. The runner passes its own; None draws one and shares it.
    """

    def __init__(self, dataset: Sized, shuffle: bool = True, seed: int | None = None) -> None:
        super().__init__(dataset, shuffle=shuffle, seed=seed)
        self.start = 0

    def set_start(self, start: int) -> None:
        """Skip the first ``start`` samples of this rank in the next pass.

        Raises:
            ValueError: ``start`` is negative or beyond this rank's epoch.
        """
        if not 0 <= start <= self.num_samples:
            raise ValueError(
                f'EpochIndexSampler: start must lie in [0, {self.num_samples}] (the samples of '
                f'this rank in one epoch), got {start}. Was the run resumed with another data '
                f'set, batch size or number of processes?'
            )
        self.start = int(start)

    def __iter__(self) -> Iterator[EpochIndex]:
        start, self.start = self.start, 0
        epoch = self.epoch
        indices = list(super().__iter__())[start:]
        return (EpochIndex(index, epoch, seed=self.seed) for index in indices)


@contextmanager
def sample_rng(*numbers: int) -> Iterator[None]:
    """Seed the global python, numpy and torch CPU generators for one sample.

    The transforms of mmcv and mmpretrain draw from the global generators; inside this context
    those are a function of the arguments alone, and on leaving it they are as before, so
    the main process's own stream is not disturbed. One thing is not kept: the spare value that
    numpy's ``randn`` holds back of each pair it draws; the stream goes on with the next pair.

    Args:
        *numbers: What the draws depend on, each at least 0: seeds, epoch, index of the sample.
    """
    entropy: tuple[int, ...] | np.ndarray = numbers
    if min(numbers) >= 0 and max(numbers) < 2**32:
        entropy = np.array(numbers, np.uint32)  # gives the same words in half the time
    words = np.random.SeedSequence(entropy).generate_state(8)
    torch_generator = torch.default_generator  # torch.manual_seed would reach for the GPUs as well
    states = random.getstate(), torch_generator.get_state()
    # numpy's generator is exchanged, not saved and restored: that would take longer than
    # cropping a frame does (70 us).
    numpy_generator = np.random.get_bit_generator()  # type: ignore[attr-defined]
    generator = _generators.pop() if _generators else np.random.MT19937(0)
    np.random.set_bit_generator(generator)  # type: ignore[attr-defined]
    try:
        random.seed(words[:4].tobytes())
        np.random.seed(words[4:6])
        torch_generator.manual_seed(int(words[6]) << 32 | int(words[7]))
        yield
    finally:
        np.random.set_bit_generator(numpy_generator)  # type: ignore[attr-defined]
        _generators.append(generator)
        random.setstate(states[0])
        torch_generator.set_state(states[1])


_generators: list[np.random.MT19937] = []  # making one takes 90 us; nested contexts need several
