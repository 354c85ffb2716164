"""Keeps what a frozen network makes of an image, for data that comes again unchanged."""

import hashlib
import logging
from collections.abc import Callable

import torch
from mmengine.logging import print_log
from torch import Tensor


class FeatureCache:
    """Features by the content of their image, in memory, as 16-bit floats.

    An image is known by its values, so no augmentation makes a wrong hit: a flipped image is
    another entry, and random crops never come again. Features are rounded to 16 bits when they
    are made as well as when they are found, so a run does not depend on what is in the cache.

    Args:
        gib: memory to fill, in GiB. What comes later is computed each time.
    """

    def __init__(self, gib: float):
        self.limit = gib * 2**30
        self.size = 0
        self.hits = 0
        self._rows: dict[bytes, list[Tensor]] = {}

    def __call__(self, images: Tensor, compute: Callable[[Tensor], list[Tensor]]) -> list[Tensor]:
        """Features of images ``(B, 3, H, W)``, a list of ``(B, ...)`` in the order of ``compute``.

        Args:
            images: what the features depend on, and nothing else.
            compute: gives the features of some images.

        Raises:
            OverflowError: a feature is beyond the range of a 16-bit float.
        """
        keys = [digest(image) for image in images.detach().cpu()]
        found = {key: self._rows[key] for key in keys if key in self._rows}
        new = {key: i for i, key in enumerate(keys) if key not in found}
        self.hits += len(keys) - len(new)
        if new:
            made = [f.half() for f in compute(images[list(new.values())])]
            if not all(bool(f.isfinite().all()) for f in made):
                raise OverflowError(
                    'Features of the frozen network exceed the range of 16-bit floats, in which '
                    'they are cached. Set cache_gib=0.'
                )
            for row, key in enumerate(new):
                found[key] = [f[row].cpu() for f in made]
                self._keep(key, found[key])
        rows = [found[key] for key in keys]
        # In float32 before they are stacked: autocast on a CPU knows no float16.
        return [
            torch.stack([f.float() for f in column]).to(images.device)
            for column in zip(*rows, strict=True)
        ]

    def clear(self) -> None:
        """Forget all features: the network is another one."""
        self._rows.clear()
        self.size = 0

    def _keep(self, key: bytes, row: list[Tensor]) -> None:
        size = sum(f.nbytes for f in row)
        if self.size + size <= self.limit:
            self._rows[key] = row
            self.size += size
        elif not self.hits and self.size:
            self.hits = 1  # once
            print_log(
                f'The cache of features is full ({self.size / 2**30:.1f} GiB), and no image came '
                f'twice. It needs images that come again unchanged: no random crop or colour '
                f'change in the pipeline, and cache_gib for all frames. Otherwise set cache_gib=0.',
                'current',
                logging.WARNING,
            )


def digest(*tensors: Tensor) -> bytes:
    """What tells tensors of other shapes or values apart, 16 bytes."""
    content = hashlib.blake2b(digest_size=16)
    for tensor in tensors:
        content.update(str(tuple(tensor.shape)).encode())
        content.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return content.digest()
