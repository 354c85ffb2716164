"""Run a converter: in parallel, restartable, and ending in index files and a manifest."""

import json
import multiprocessing
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from mmmask3d.conversion.coco import annotate, coco_content
from mmmask3d.conversion.converter import Converter, FrameRef, Plan
from mmmask3d.conversion.frame import bring_to_size, encode, measure
from mmmask3d.conversion.paths import SourceError, safe_name
from mmmask3d.conversion.storage import OutputFolder, open_output, write_file
from mmmask3d.datasets.depth_io import FrameError
from mmmask3d.version import __version__

#: Raise it when the same options give other files: folders made before are then not added to.
FORMAT = 1
MANIFEST = 'manifest.json'
_CHUNK = 16  # frames a worker converts between two notes in the journal


class ConversionError(RuntimeError):
    """Part of the source is damaged, and it was not asked to leave damaged frames out."""


@dataclass(frozen=True)
class JobOptions:
    """How a conversion runs; only ``size`` decides what it makes.

    Attributes:
        size: (width, height) of the output; None for the size of the depth maps.
        workers: Number of processes.
        on_error: 'raise' to convert what can be converted and then fail, 'drop' to leave damaged
            frames out and name them in the manifest.
        limit: Convert the first frames only, to have a look.
    """

    size: tuple[int, int] | None = None
    workers: int = 1
    on_error: str = 'raise'
    limit: int | None = None


@dataclass
class Result:
    """What a conversion did.

    Attributes:
        manifest: Content of ``manifest.json``.
        made: Number of frames that had to be converted.
        problems: What was left out.
    """

    manifest: dict
    made: int
    problems: list[str]


def convert(converter: Converter, out: Path, options: JobOptions = JobOptions()) -> Result:
    """Convert a data set, or what is missing of it.

    Returns:
        What was done.

    Raises:
        ConversionError: Something is damaged and ``on_error`` is 'raise'. All other frames are
            there and a later call does not repeat them; index files and manifest are not written.
        SourceError: The source as a whole cannot be read, or has no frame.
        StorageError: The output folder cannot be used or written to.
    """
    identity = {
        'format': FORMAT,
        'converter': converter.name,
        'size': options.size,
        'options': converter.options(),
    }
    sources = list(converter.sources())
    with open_output(out, identity) as output, _pool(converter, options.workers) as run:
        frames, problems = _plan(converter, sources, options, run)
        if not frames:
            raise SourceError(
                f'{converter.source}: no frame of {converter.title} can be read. '
                + '; '.join(problems[:3])
            )
        missing = _missing(frames, output)
        (out / MANIFEST).unlink(missing_ok=True) if missing else None
        problems += _convert_missing(missing, sources, output, options, run)
        names = {n: frames[n][1].split for n in sorted(frames) if n in output.records}
        if problems and (options.on_error == 'raise' or not names):
            raise ConversionError(_describe(problems, len(names), len(frames)))
        manifest = _finish(converter, output, identity, names, problems, options.limit)
    return Result(manifest, len(missing), problems)


def _describe(problems: Sequence[str], done: int, total: int) -> str:
    shown = '\n  '.join(problems[:20])
    more = f'\n  ... and {len(problems) - 20} more' if len(problems) > 20 else ''
    return (
        f'{len(problems)} parts of the data set cannot be read:\n  {shown}{more}\n'
        f'{done} of {total} frames found are converted and kept. Repair the source and call again, '
        f'or leave the damaged ones out with --on-error drop.'
    )


# -------------------------------------------------------------------- workers

_converter: Converter | None = None  # of this process


def _start_worker(converter: Converter) -> None:
    global _converter
    _converter = converter
    cv2.setNumThreads(1)  # the workers are the parallelism


def _start_worker_process(converter: Converter) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops the workers
    _start_worker(converter)


class _pool:
    """Runs functions in worker processes, or here where one worker is asked for."""

    def __init__(self, converter: Converter, workers: int) -> None:
        if workers < 1:
            raise ValueError(f'workers must be at least 1, got {workers}')
        self.converter, self.workers = converter, workers
        self.executor: ProcessPoolExecutor | None = None

    def __enter__(self) -> '_pool':
        if self.workers == 1:
            _start_worker(self.converter)
            return self
        # A copy of a process that has used OpenCV's threads may hang, hence no plain fork.
        methods = multiprocessing.get_all_start_methods()
        context = multiprocessing.get_context('forkserver' if 'forkserver' in methods else 'spawn')
        if 'forkserver' in methods:
            context.set_forkserver_preload([__name__])
        self.executor = ProcessPoolExecutor(
            self.workers, context, _start_worker_process, (self.converter,)
        )
        return self

    def __exit__(self, *_: object) -> None:
        if self.executor:
            self.executor.shutdown(cancel_futures=True)

    def __call__(self, function: Callable, tasks: Sequence[tuple]) -> Iterator[tuple[int, Any]]:
        """Yield (number of the task, result) as results come."""
        if self.executor is None:
            yield from ((i, function(*task)) for i, task in enumerate(tasks))
            return
        futures: dict[Future, int] = {
            self.executor.submit(function, *task): i for i, task in enumerate(tasks)
        }
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool as error:
            raise RuntimeError(
                'A worker process died, killed by the system or for lack of memory. The same call '
                'goes on where this one stopped; fewer --workers need less memory.'
            ) from error


def _plan_source(source: Any) -> Plan:
    try:
        return _converter.plan(source)
    except (SourceError, FrameError, OSError) as error:
        return Plan(problems=[f'{_converter.title}, {source}: {error}'])


def _convert_chunk(
    root: Path, size: tuple[int, int] | None, source: Any, refs: Sequence[FrameRef]
) -> tuple[list[dict], list[str]]:
    """Convert some frames of one source; returns records of those done, and problems."""
    records, problems = [], []
    damage = (FrameError, SourceError, OSError)
    try:
        with _converter.open(source) as opened:
            for ref in refs:
                try:
                    records.append(_convert_frame(root, size, opened, ref))
                except damage as error:
                    problems.append(f'frame {ref.name}: {error}')
    except damage as error:
        problems += [f'frame {ref.name}: {error}' for ref in refs[len(records) + len(problems) :]]
    return records, problems


def _convert_frame(root: Path, size: tuple[int, int] | None, opened: Any, ref: FrameRef) -> dict:
    frame = _converter.read(opened, ref.locator)
    images = bring_to_size(frame.images, size, ref.name)
    measures = {kind: measure(kind, image) for kind, image in images.items()}
    _check(measures, ref.name)
    # Everything is encoded before anything is written.
    data = {
        kind: encode(image, _converter.suffixes[kind], ref.name) for kind, image in images.items()
    }
    files = {}
    for kind, content in data.items():
        folder = _converter.folders.get(kind, kind)
        file = f'{folder}/{ref.name}{_converter.suffixes[kind]}'
        files[file] = write_file(root, file, content)
    depth = images.get('depth', next(i for i in images.values() if not isinstance(i, bytes)))
    record = {
        'name': ref.name,
        'files': files,
        'size': [depth.shape[1], depth.shape[0]],
        'measures': {kind: found for kind, found in measures.items() if found},
    }
    if frame.categories:
        record['instances'] = annotate(
            images['instance'], frame.categories, _converter.smallest_instance, frame.crowds
        )
    if frame.extra:
        record['extra'] = frame.extra
    return record


def _check(measures: dict[str, dict], name: str) -> None:
    for kind, found in measures.items():
        if found.get('invalid') == 1:
            raise FrameError(f'{name}: {kind} has no reading in the whole frame.')
        if kind in _converter.classes:
            wrong = [i for i in found['pixels'] if int(i) > len(_converter.classes[kind])]
            if wrong:
                raise FrameError(
                    f'{name}: {kind} has the ids {", ".join(wrong)}, expected 0 (unlabelled) to '
                    f'{len(_converter.classes[kind])}.'
                )


# -------------------------------------------------------------------- steps


def _plan(
    converter: Converter, sources: Sequence[Any], options: JobOptions, run: _pool
) -> tuple[dict[str, tuple[int, FrameRef]], list[str]]:
    """Frames of all sources as name: (number of the source, frame), and problems."""
    plans: dict[int, Plan] = {}
    found = 0
    with tqdm(total=len(sources), unit='source', desc='finding frames', disable=None) as bar:
        # With a limit, one source after the other until there are enough.
        step = len(sources) if options.limit is None else options.workers
        for start in range(0, len(sources), max(1, step)):
            some = sources[start : start + step]
            for number, plan in run(_plan_source, [(source,) for source in some]):
                plans[start + number] = plan
                found += len(plan.frames)
                bar.update()
            if options.limit is not None and found >= options.limit:
                break
    frames: dict[str, tuple[int, FrameRef]] = {}
    problems = []
    for number in sorted(plans):
        problems += plans[number].problems
        for ref in plans[number].frames:
            if safe_name(ref.name) != ref.name:
                raise ValueError(f'{converter.name}: {ref.name!r} did not go through safe_name')
            if ref.name in frames:
                other = sources[frames[ref.name][0]]
                raise SourceError(
                    f'{sources[number]} and {other} both have a frame {ref.name!r}. '
                    f'Convert them into separate folders.'
                )
            frames[ref.name] = number, ref
    if options.limit is not None:
        frames = dict(list(frames.items())[: options.limit])
    return frames, problems


def _missing(
    frames: dict[str, tuple[int, FrameRef]], output: OutputFolder
) -> dict[str, tuple[int, FrameRef]]:
    return {name: found for name, found in frames.items() if name not in output.records}


def _convert_missing(
    missing: dict[str, tuple[int, FrameRef]],
    sources: Sequence[Any],
    output: OutputFolder,
    options: JobOptions,
    run: _pool,
) -> list[str]:
    by_source: dict[int, list[FrameRef]] = {}
    for number, ref in missing.values():
        by_source.setdefault(number, []).append(ref)
    chunks = [
        (output.root, options.size, sources[number], refs[i : i + _CHUNK])
        for number, refs in by_source.items()
        for i in range(0, len(refs), _CHUNK)
    ]
    problems: dict[int, list[str]] = {}
    with tqdm(total=len(missing), unit='frame', desc='converting', disable=None) as bar:
        for number, (records, found) in run(_convert_chunk, chunks):
            output.add(records)
            problems[number] = found
            bar.update(len(records) + len(found))
    return [problem for number in sorted(problems) for problem in problems[number]]


def _finish(
    converter: Converter,
    output: OutputFolder,
    identity: dict,
    names: dict[str, str],
    problems: list[str],
    limit: int | None,
) -> dict:
    """Write index files, COCO files and, last, the manifest."""
    files: dict[str, bytes] = {}
    splits = {}
    for split, listed in converter.splits(names).items():
        files[f'splits/{split}.txt'] = ''.join(f'{name}\n' for name in listed).encode()
        splits[split] = {'frames': len(listed)}
        if converter.categories:
            file, folder = converter.annotation_file(split)
            content = _coco(converter, output, listed, folder)
            splits[split]['instances'] = len(content['annotations'])
            files[file] = (json.dumps(content) + '\n').encode()
    files |= converter.extra_files(names)
    manifest = {
        **identity,
        'title': converter.title,
        'mmmask3d': __version__,
        'source': os.path.basename(os.path.abspath(converter.source)),
        'frames': len(names),
        'splits': splits,
        'depth_kind': converter.depth_kind,
        'depth_scale': converter.depth_scale,
        'folders': {kind: converter.folders.get(kind, kind) for kind in converter.suffixes},
        'suffixes': dict(converter.suffixes),
        'classes': {kind: list(classes) for kind, classes in converter.classes.items()},
        'limit': limit,
        'left_out': problems,
        **_sum_up(converter, [output.records[name] for name in names]),
        'crc32': {name: output.write(name, data)[1] for name, data in files.items()},
    }
    output.write(MANIFEST, (json.dumps(manifest, indent=2) + '\n').encode())
    return manifest


def _coco(converter: Converter, output: OutputFolder, names: Sequence[str], folder: str) -> dict:
    frames = []
    outer = f'{folder}/' if folder else ''
    for name in names:
        record = output.records[name]
        file = name.removeprefix(outer) + converter.suffixes['rgb']
        frames.append((file, *record['size'], record.get('instances', [])))
    return coco_content(frames, converter.categories, f'{converter.title}, instances')


def _sum_up(converter: Converter, records: Sequence[dict]) -> dict:
    """Statistics of depth and labels over all frames."""
    depth, labels = {}, {}
    kinds = sorted({kind for record in records for kind in record['measures']})
    for kind in kinds:
        found = [r['measures'][kind] for r in records if kind in r['measures']]
        if kind.startswith('depth'):
            depth[kind] = {
                'frames': len(found),
                'invalid_share': round(float(np.mean([f['invalid'] for f in found])), 4),
                'low': min(f['low'] for f in found) / converter.depth_scale,
                'median': float(np.median([f['median'] for f in found])) / converter.depth_scale,
                'high': max(f['high'] for f in found) / converter.depth_scale,
            }
        elif kind in converter.classes:
            pixels: Counter[int] = Counter()
            for f in found:
                pixels.update({int(i): n for i, n in f['pixels'].items()})
            total = sum(pixels.values())
            classes = ('unlabelled', *converter.classes[kind])
            labels[kind] = {c: round(pixels[i] / total, 6) for i, c in enumerate(classes)}
    return {'depth': depth, 'pixel_share': labels}
