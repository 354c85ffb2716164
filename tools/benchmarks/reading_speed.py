"""Measures how fast one worker reads frames for pre-training, against decoding the same files.

    python tools/benchmarks/reading_speed.py data/my_frames
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
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmmask3d.cli.options import add_config_overrides, read_overrides
from mmmask3d.cli.start import start

BASE_CONFIG = Path(__file__).resolve().parents[2] / 'configs/_base_/datasets/rgbd_pretrain.py'
DECODING, PIPELINE, PACKED = 'decoding alone', 'pipeline', 'pipeline from LMDB'


class Pass(NamedTuple):
    """Seconds per frame of one pass."""

    cpu: float
    wall: float


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('source', type=Path, help='pre-training config, or folder with rgb, depth')
    parser.add_argument('--packed', type=Path, metavar='LMDB', help='the same files, packed')
    parser.add_argument('--frames', type=int, default=100, help='frames per pass')
    parser.add_argument('--passes', type=int, default=7, help='passes that count')
    add_config_overrides(parser)
    folder = parser.add_argument_group('of a folder (a config says it itself)')
    folder.add_argument('--img-suffix', default='.jpg')
    folder.add_argument('--depth-suffix', default='.png')
    folder.add_argument('--depth-scale', type=float, default=1000.0)
    folder.add_argument('--depth-kind', choices=['metric', 'relative'], default='metric')
    folder.add_argument('--size', type=int, nargs=2, default=(320, 240), metavar=('W', 'H'))
    args = parser.parse_args(argv)
    for name in ('frames', 'passes'):
        if getattr(args, name) < 1:
            parser.error(f'--{name} must be at least 1, got {getattr(args, name)}')
    return args


# ---------------------------------------------------------------- what is measured


def dataset_config(args: argparse.Namespace) -> dict:
    """Config of the data set: the config's own, or that of a folder with the usual pipeline."""
    from mmmask3d.config_files import read_config_file
    from mmmask3d.datasets import resolve_masking

    if args.source.is_dir():
        config = BASE_CONFIG
        settings = {
            'data_root': str(args.source),
            'img_suffix': args.img_suffix,
            'depth_suffix': args.depth_suffix,
            'depth_scale': args.depth_scale,
            'depth_kind': args.depth_kind,
            'pipeline.1.scale': tuple(args.size),
        }
        options = {f'train_dataloader.dataset.{key}': value for key, value in settings.items()}
        options['model.backbone.patch_size'] = 16
    else:
        config, options = args.source, {}
    cfg = read_config_file(config, {**options, **read_overrides(args.cfg_options)})
    resolve_masking(cfg)
    return cfg.train_dataloader.dataset.to_dict()


def packed_config(config: dict, database: Path) -> dict:
    """The same data set with `backend_args` of the packed files, in index and loader.

    Raises:
        ValueError: The sources do not share a `data_root`, which one database stands for.
    """
    config = copy.deepcopy(config)
    sources = list(_dicts(config, 'RGBDDataset'))
    roots = {source.get('data_root', '') for source in sources}
    if len(roots) != 1:
        raise ValueError(f'--packed {database}: needs one data_root, found {sorted(roots)}.')
    arguments = dict(backend='packed_lmdb', db_path=str(database), data_root=roots.pop())
    for part in (*sources, *_dicts(config, 'LoadRGBD')):
        part['backend_args'] = arguments
    return config


def _dicts(value: Any, name: str) -> Iterator[dict]:
    """All dicts of a config whose `type` is a class of this package."""
    if isinstance(value, dict):
        if value.get('type') in (name, f'mmmask3d.{name}'):
            yield value
        for inner in value.values():
            yield from _dicts(inner, name)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _dicts(inner, name)


def decode(paths: Sequence[tuple[str, str]]) -> None:
    """Decode the files with OpenCV and drop the result."""
    import cv2

    for img_path, depth_path in paths:
        img = cv2.imread(img_path, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        depth = cv2.imread(depth_path, cv2.IMREAD_UNCHANGED)
        if img is None or depth is None:
            raise ValueError(f'OpenCV cannot decode {img_path} or {depth_path} (only images count)')


def timed(function: Callable[[], None], frames: int) -> Pass:
    """Time one pass over the frames."""
    gc.collect()
    gc.disable()
    try:
        wall, cpu = time.perf_counter(), time.process_time()
        function()
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    finally:
        gc.enable()
    return Pass(cpu / frames, wall / frames)


def measure(
    variants: dict[str, Callable[[int], None]], frames: int, passes: int
) -> dict[str, list[Pass]]:
    """Run the variants in turn, each pass beginning with another one; the first pass is dropped."""
    found = {name: [] for name in variants}
    names = list(variants)
    for number in range(passes + 1):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            result = timed(lambda name=name, number=number: variants[name](number), frames)
            if number:
                found[name].append(result)
    return found


# ---------------------------------------------------------------- report


def summary(found: dict[str, list[Pass]]) -> dict[str, dict]:
    """Median and range of the times, and of the speed relative to decoding in the same pass."""
    result = {}
    for name, passes in found.items():
        ratios = [d.cpu / p.cpu for d, p in zip(found[DECODING], passes, strict=True)]
        result[name] = {
            'cpu_ms': [round(1000 * f([p.cpu for p in passes]), 4) for f in _STATISTICS],
            'wall_ms': [round(1000 * f([p.wall for p in passes]), 4) for f in _STATISTICS],
            'ratio': [round(f(ratios), 4) for f in _STATISTICS],
        }
    return result


_STATISTICS = statistics.median, min, max


def table(result: dict[str, dict]) -> str:
    """The summary as text."""
    lines = [
        f'{"":20}{"CPU ms/frame":>24}{"wall ms/frame":>16}{"frames/s":>10}{"relative speed":>24}'
    ]
    for name, row in result.items():
        cpu, wall, ratio = row['cpu_ms'], row['wall_ms'], row['ratio']
        lines.append(
            f'{name:20}{cpu[0]:10.3f} ({cpu[1]:.3f}-{cpu[2]:.3f}){wall[0]:14.3f}'
            f'{1000 / cpu[0]:10.0f}{ratio[0]:10.2f} ({ratio[1]:.2f}-{ratio[2]:.2f})'
        )
    return '\n'.join(lines)


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    args = parse_args(argv)
    start()

    import cv2
    import torch
    from mmengine.registry import init_default_scope

    from mmmask3d.datasets import EpochIndex
    from mmmask3d.inspection.measures import spread_indices
    from mmmask3d.registry import DATASETS

    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    init_default_scope('mmmask3d')
    config = dataset_config(args)
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
    result = summary(measure(variants, len(indices), args.passes))
    size = '{1}x{0}'.format(*cv2.imread(paths[0][0]).shape)
    print(
        f'{len(indices)} frames, the first {size}, {args.passes} passes, OpenCV '
        f'{cv2.__version__}, page cache warm; median (range)'
    )
    print(table(result))
    return 0


if __name__ == '__main__':
    sys.exit(main())
