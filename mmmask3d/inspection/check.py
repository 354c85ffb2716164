"""Check whole sets: read the frames in parallel, judge registration, apply all rules."""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
from tqdm import tqdm

from mmmask3d.inspection.depth_rules import check_depth
from mmmask3d.inspection.duplicates import check_duplicates
from mmmask3d.inspection.file_rules import check_files
from mmmask3d.inspection.findings import Finding, Findings, by_level
from mmmask3d.inspection.measures import Measures, measure, spread_indices
from mmmask3d.inspection.registration import (
    TOLERANCE,
    Registration,
    has_contours,
    registration,
)
from mmmask3d.inspection.registration_rules import check_registration
from mmmask3d.inspection.sources import Source
from mmmask3d.inspection.splits import check_splits
from mmmask3d.visualization.edges import EdgePair

_CHUNK = 4096  # frames handed to the workers at once: what is waiting costs memory


@dataclass(frozen=True)
class CheckOptions:
    """How much is checked."""

    workers: int = 2  # threads, without influence on the result
    registration_frames: int = 100  # per set, spread over it; 0 leaves registration out
    tolerance: float = TOLERANCE  # displacement that counts as registered, share of the width
    seed: int = 0  # of the shuffled pairings and the bootstrap
    progress: bool = True


@dataclass
class CheckedSet:
    """A set and what was measured of it."""

    source: Source
    measures: list[Measures]
    registration: Registration | None  # None where it was left out
    judged: list[int]  # positions of the frames that registration was judged by


def check_sets(
    sources: Sequence[Source], options: CheckOptions
) -> tuple[list[CheckedSet], list[Finding]]:
    """Check some sets, and their splits against each other.

    Returns:
        What was measured, and the findings, errors first.
    """
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # the workers are the parallelism
    try:
        with ThreadPoolExecutor(options.workers) as pool:
            checked = [_check_set(source, options, pool) for source in sources]
    finally:
        cv2.setNumThreads(threads)
    reported: list[Finding] = []
    for one in checked:
        found = Findings(one.source.title)
        check_files(one.source, one.measures, found)
        check_depth(one.source, one.measures, found)
        check_duplicates(one.measures, found)
        if one.registration is not None:
            frames = [one.measures[i] for i in one.judged]
            check_registration(one.registration, frames, options.tolerance, found)
        reported += found.found
    reported += check_splits(sources, [one.measures for one in checked])
    return checked, by_level(reported)


def _check_set(source: Source, options: CheckOptions, pool: ThreadPoolExecutor) -> CheckedSet:
    total = len(source.frames)
    chosen = options.registration_frames
    wanted = set(spread_indices(total, chosen)) if chosen else set()
    quiet = None if options.progress else True
    with tqdm(total=total, unit='frame', desc=f'reading {source.title}', disable=quiet) as bar:
        measures: list[Measures] = []
        pairs: dict[int, EdgePair] = {}
        for start in range(0, total, _CHUNK):
            part = range(start, min(start + _CHUNK, total))
            read = pool.map(lambda i: measure(source, i, edges=i in wanted), part)
            for index, (found, pair) in zip(part, read, strict=True):
                measures.append(found)
                if pair is not None:
                    pairs[index] = pair
                bar.update()
    if not chosen:
        return CheckedSet(source, measures, None, [])
    judged = _of_usual_shape(pairs)
    used = [pairs[i] for i in judged]
    result = registration(used, options.tolerance, options.seed, pool.map)
    return CheckedSet(source, measures, result, judged)


def _of_usual_shape(pairs: dict[int, EdgePair]) -> list[int]:
    """Frames with contours of the most common working size: shifts are a share of it."""
    shapes = {i: pair.colour.shape for i, pair in pairs.items() if has_contours(pair)}
    if not shapes:
        return []
    usual = Counter(sorted(shapes.values())).most_common(1)[0][0]
    return [index for index, shape in shapes.items() if shape == usual]
