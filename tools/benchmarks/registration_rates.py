"""Measure how often the registration check is right: known displacements, random sub-samples.

Example:
    python tools/benchmarks/registration_rates.py data/rooms --frames 10 30 --shift 0 2 4 8

Depth of every frame is displaced by a known amount, and the verdict is asked for on random
sub-samples of the set. Without --shift and --scale the set is judged as it is: for a registered
set, anything but 'registered' is then a false alarm or a missed answer.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from mmmask3d.cli.options import read_overrides
from mmmask3d.cli.source_options import add_source_arguments
from mmmask3d.cli.start import start

if TYPE_CHECKING:
    import numpy as np

    from mmmask3d.inspection.registration import Registration
    from mmmask3d.inspection.sources import Source
    from mmmask3d.visualization.edges import EdgePair


def build_parser() -> argparse.ArgumentParser:
    """Build the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_source_arguments(parser)
    parser.add_argument('--split', help='frames of this split only')
    parser.add_argument('--pool', type=int, default=200, help='frames to draw from (default: 200)')
    parser.add_argument('--frames', type=int, nargs='+', default=[10, 30], help='of a sub-sample')
    parser.add_argument('--draws', type=int, default=30, help='sub-samples (default: 30)')
    parser.add_argument('--shift', type=float, nargs='*', default=[], help='pixels to the right')
    parser.add_argument('--shift-down', type=float, nargs='*', default=[], help='pixels down')
    parser.add_argument('--scale', type=float, nargs='*', default=[], help='about the centre')
    parser.add_argument(
        '--clips', action='store_true', help='consecutive frames instead of random ones'
    )
    parser.add_argument('--seed', type=int, default=0)
    return parser


def displaced(
    depth: np.ndarray, valid: np.ndarray, shift: tuple[float, float], scale: float
) -> tuple[np.ndarray, np.ndarray]:
    """Move depth by a shift (right, down) in pixels after enlarging it about the centre."""
    import cv2
    import numpy as np

    height, width = depth.shape
    matrix = np.array(
        [
            [scale, 0, (width - 1) / 2 * (1 - scale) + shift[0]],
            [0, scale, (height - 1) / 2 * (1 - scale) + shift[1]],
        ]
    )
    moved = [
        cv2.warpAffine(a, matrix, (width, height), flags=cv2.INTER_NEAREST)
        for a in (depth, valid.view(np.uint8))
    ]
    return moved[0], moved[1] > 0


def load_pairs(
    source: Source, pool: int, clips: bool, shift: tuple[float, float], scale: float
) -> list[EdgePair]:
    """Edges of the frames that have contours, with depth displaced."""
    from mmmask3d.datasets.transforms.loading import LoadRGBD
    from mmmask3d.inspection.measures import spread_indices
    from mmmask3d.inspection.registration import has_contours
    from mmmask3d.visualization.edges import edge_pair

    loader = LoadRGBD(backend_args=source.backend_args)
    total = len(source.frames)
    pairs = []
    for index in range(min(pool, total)) if clips else spread_indices(total, pool):
        frame = loader(source.frames.get_data_info(index))
        pair = edge_pair(frame['img'], *displaced(frame['depth'], frame['valid'], shift, scale))
        if has_contours(pair):
            pairs.append(pair)
    return pairs


def sub_samples(total: int, size: int, draws: int, clips: bool, seed: int) -> Iterator[list[int]]:
    """Positions of each sub-sample, rising."""
    import numpy as np

    rng = np.random.default_rng(seed)
    for _ in range(draws):
        if clips:
            start = int(rng.integers(0, total - size + 1))
            yield list(range(start, start + size))
        else:
            yield sorted(rng.choice(total, size, replace=False).tolist())


def verdicts_of(
    pairs: list[EdgePair], surfaces: list[np.ndarray], size: int, args: argparse.Namespace
) -> list[Registration]:
    """Verdicts on sub-samples of one size, of pairs that are measured already."""
    from mmmask3d.inspection.registration import registration

    samples = sub_samples(len(pairs), min(size, len(pairs)), args.draws, args.clips, args.seed)
    return [
        registration(
            [pairs[i] for i in chosen],
            seed=number,
            run=lambda _, used, chosen=chosen: [surfaces[i] for i in chosen],
        )
        for number, chosen in enumerate(samples)
    ]


def main(argv: list[str] | None = None) -> None:
    """Measure and print."""
    parser = build_parser()
    args = parser.parse_args(argv)
    start()

    import numpy as np

    from mmmask3d.inspection.registration import Correlator
    from mmmask3d.inspection.sources import SourceOptionsError, open_sources

    args.cfg_options = read_overrides(args.cfg_options)
    try:
        (source,) = open_sources(args, args.split)
    except SourceOptionsError as error:
        parser.error(str(error))
    except ValueError:
        parser.error('several sets; name one folder, or one --split')
    cases = [((right, 0.0), 1.0) for right in args.shift]
    cases += [((0.0, down), 1.0) for down in args.shift_down]
    cases += [((0.0, 0.0), scale) for scale in args.scale]
    for shift, scale in cases or [((0.0, 0.0), 1.0)]:
        pairs = load_pairs(source, args.pool, args.clips, shift, scale)
        correlator = Correlator(pairs)
        surfaces = [correlator.surfaces(pair, pair) for pair in pairs]
        for size in args.frames:
            found = verdicts_of(pairs, surfaces, size, args)
            verdicts = Counter(one.verdict for one in found)
            shifts = np.array([one.shift for one in found])
            low, middle, high = np.quantile(shifts, [0, 0.5, 1], axis=0).round(1).tolist()
            scales = [one.scale for one in found]
            print(
                f'shift {shift[0]:g}, {shift[1]:g} scale {scale:g}, {size} frames, '
                f'{len(found)} draws: {dict(verdicts)}; correction found: {middle} px '
                f'({low} to {high}), x{min(scales):.2f} to x{max(scales):.2f}',
                flush=True,
            )


if __name__ == '__main__':
    main()
