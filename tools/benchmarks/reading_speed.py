"""Measures how fast one worker reads frames for pre-training, against decoding the same files.

    python tools/benchmarks/reading_speed.py my_config.py --packed data/my_frames.lmdb

What is compared, in turn and in one process with one thread, as a data worker has it:

- decoding: `cv2.imread` of the colour and the depth file, nothing else;
- the pipeline: the data set's `[index]`, from the file names to the tensors of a sample;
- with `--packed`, the pipeline reading from an LMDB of the same files (see `pack_lmdb.py`).

Every pass goes over the same frames, with other crops, flips and masks each time; a pass before the
first is not counted, so the files come from the page cache. Ratios are formed within a pass, from
CPU time, which does not depend on what else the machine does; given are median and range over the
passes.
"""

from __future__ import annotations

import argparse
import copy
import gc
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mmmask3d.cli.options import add_config_overrides, read_overrides
from mmmask3d.cli.start import start
from mmmask3d.conversion.options import at_least_one

DECODING, PIPELINE, PACKED = 'decoding alone', 'pipeline', 'pipeline from LMDB'


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', type=Path, help='pre-training config')
    parser.add_argument('--packed', type=Path, metavar='LMDB', help='the same files, packed')
    parser.add_argument('--frames', type=at_least_one, default=100, help='frames per pass')
    parser.add_argument('--passes', type=at_least_one, default=7, help='passes that count')
    add_config_overrides(parser)
    return parser.parse_args(argv)


# ---------------------------------------------------------------- what is measured


def packed_config(config: dict, database: Path) -> dict:
    """The same data set with `backend_args` of the packed files, in index and loader.

    Raises:
        ValueError: The sources do not share a `data_root`, which one database stands for.
    """
    config = copy.deepcopy(config)
    sources = _of_type(config, 'RGBDDataset')
    roots = {source.get('data_root', '') for source in sources}
    if len(roots) != 1:
        raise ValueError(f'--packed {database}: needs one data_root, found {sorted(roots)}.')
    arguments = dict(backend='packed_lmdb', db_path=str(database), data_root=roots.pop())
    for part in (*sources, *_of_type(config, 'LoadRGBD')):
        part['backend_args'] = arguments
    return config


def _of_type(config: dict, name: str) -> list[dict]:
    """All dicts of a config whose `type` is a class of this package."""
    from mmmask3d.config_files import nested_dicts

    return [d for d in nested_dicts(config) if d.get('type') in (name, f'mmmask3d.{name}')]


def decode(paths: Sequence[tuple[str, str]]) -> None:
    """Decode the files with OpenCV and drop the result."""
    import cv2

    for img_path, depth_path in paths:
        img = cv2.imread(img_path, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        depth = cv2.imread(depth_path, cv2.IMREAD_UNCHANGED)
        if img is None or depth is None:
            raise ValueError(f'OpenCV cannot decode {img_path} or {depth_path} (only images count)')


def timed(function: Callable[[], None], frames: int) -> float:
    """CPU seconds per frame of one pass over the frames."""
    gc.collect()
    gc.disable()
    try:
        begun = time.process_time()
        function()
        return (time.process_time() - begun) / frames
    finally:
        gc.enable()


def measure(
    variants: dict[str, Callable[[int], None]], frames: int, passes: int
) -> dict[str, list[float]]:
    """Run the variants in turn, each pass beginning with another one; the first pass is dropped."""
    found: dict[str, list[float]] = {name: [] for name in variants}
    names = list(variants)
    for number in range(passes + 1):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            result = timed(partial(variants[name], number), frames)
            if number:
                found[name].append(result)
    return found


# ---------------------------------------------------------------- report


def table(found: dict[str, list[float]]) -> str:
    """Times, and speed relative to decoding in the same pass: medians, with ranges over passes."""
    lines = ['| | ms/frame | frames/s | relative speed |', '|---|---|---|---|']
    for name, passes in found.items():
        cpu = [1000 * seconds for seconds in passes]
        ratios = [d / p for d, p in zip(found[DECODING], passes, strict=True)]
        middle = statistics.median
        lines.append(
            f'| {name} | {middle(cpu):.3f} ({min(cpu):.3f} to {max(cpu):.3f}) '
            f'| {1000 / middle(cpu):.0f} '
            f'| {middle(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |'
        )
    return '\n'.join(lines)


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    args = parse_args(argv)
    start()

    import cv2
    import torch
    from mmengine.registry import init_default_scope
    from PIL import Image

    from mmmask3d.config_files import read_config_file
    from mmmask3d.datasets import EpochIndex, resolve_masking
    from mmmask3d.inspection.measures import spread_indices
    from mmmask3d.registry import DATASETS

    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    init_default_scope('mmmask3d')
    cfg = read_config_file(args.config, read_overrides(args.cfg_options))
    resolve_masking(cfg)
    config = cfg.train_dataloader.dataset.to_dict()
    datasets = {PIPELINE: DATASETS.build(copy.deepcopy(config))}
    if args.packed is not None:
        datasets[PACKED] = DATASETS.build(packed_config(config, args.packed))
    indices = spread_indices(len(datasets[PIPELINE]), args.frames)
    infos = [datasets[PIPELINE].get_data_info(i) for i in indices]
    paths = [(info['img_path'], info['depth_path']) for info in infos]

    def reader(dataset: Any) -> Callable[[int], None]:
        def read(number: int) -> None:
            for index in indices:
                dataset[EpochIndex(index, epoch=number)]

        return read

    variants = {DECODING: lambda number: decode(paths)}
    variants |= {name: reader(dataset) for name, dataset in datasets.items()}
    found = measure(variants, len(indices), args.passes)
    size = '{}x{}'.format(*Image.open(paths[0][0]).size)
    print(
        f'{len(indices)} frames, the first {size}, {args.passes} passes, OpenCV '
        f'{cv2.__version__}, page cache warm; median (range)'
    )
    print(table(found))
    return 0


if __name__ == '__main__':
    sys.exit(main())
