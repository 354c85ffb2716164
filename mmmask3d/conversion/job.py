"""Run a converter: in parallel, restartable, and ending in index files and a manifest."""

import json
import multiprocessing
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from mmmask3d.conversion.coco import annotate, coco_content
from mmmask3d.conversion.converter import Converter, FrameRef, Plan
from mmmask3d.conversion.frame import bring_to_size, encode, measure
from mmmask3d.conversion.paths import SourceError, safe_name
from mmmask3d.conversion.storage import (
    OutputFolder,
    StorageError,
    open_output,
    remove_files,
    write_file,
)
from mmmask3d.datasets.depth_io import FrameError
from mmmask3d.version import __version__

#: Raise it when the same options give other files: folders made before are then not added to.
FORMAT = 1
MANIFEST = 'manifest.json'
FRAMES = 'frames.jsonl'
_CHUNK = 16  # frames a worker converts between two notes in the journal


class ConversionError(RuntimeError):
    """Part of the source is damaged, and it was not asked to leave damaged frames out."""


class WorkerError(RuntimeError):
    """A worker process was killed."""


@dataclass(frozen=True)
class JobOptions:
    """How a conversion runs; only ``size`` decides what it makes.

    Attributes:
        size: (width, height) of the output; None for the size of the depth map of each frame,
            or, where a frame has none, of its colour image.
        workers: Number of processes.
        on_error: 'raise' to convert what can be converted and then fail, 'drop' to leave damaged
            frames out and name them in the manifest.
        limit: Convert only as many frames, the first ones, to have a look. Index files and manifest
            name these alone; a later call without it goes on.
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
        made: Number of frames that had to be converted and were.
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
        WorkerError: A worker process was killed. A later call goes on.
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
        missing = {name: found for name, found in frames.items() if name not in output.records}
        if missing:
            remove_files(out, [MANIFEST])  # it would speak of a folder that is being changed
        problems += _convert_missing(missing, sources, output, options, run)
        made = sum(name in output.records for name in missing)
        names = {n: frames[n][1].split for n in sorted(frames) if n in output.records}
        if problems and (options.on_error == 'raise' or not names):
            raise ConversionError(_describe(problems, len(names), len(frames)))
        manifest = _finish(converter, output, identity, names, problems, options.limit)
    return Result(manifest, made, problems)


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


def _start_worker_process(converter: Converter, parent: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops the workers
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    _start_worker(converter)


def _end_with(parent: Connection) -> None:
    """End this process when the parent closes its end of a pipe, or dies.

    A worker of ``concurrent.futures`` outlives a parent that was killed, waiting for work.
    """
    parent.poll(None)
    os._exit(1)


class _pool:
    """Runs functions in worker processes, or here where one worker is asked for."""

    def __init__(self, converter: Converter, workers: int) -> None:
        if workers < 1:
            raise ValueError(f'workers must be at least 1, got {workers}')
        self.converter, self.workers = converter, workers
        self.executor: ProcessPoolExecutor | None = None

    def __enter__(self) -> '_pool':
        if self.workers == 1:
            self.threads = cv2.getNumThreads()
            _start_worker(self.converter)
            return self
        # A copy of a process that has used OpenCV's threads may hang, hence no plain fork.
        methods = multiprocessing.get_all_start_methods()
        context = multiprocessing.get_context('forkserver' if 'forkserver' in methods else 'spawn')
        if 'forkserver' in methods:
            context.set_forkserver_preload([__name__])
        self.theirs, self.ours = context.Pipe(duplex=False)
        self.executor = ProcessPoolExecutor(
            self.workers, context, _start_worker_process, (self.converter, self.theirs)
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.executor is None:
            global _converter
            _converter = None
            cv2.setNumThreads(self.threads)
            return
        if error is not None:
            self.ours.close()  # ends the workers now; files are complete or absent all the same
        self.executor.shutdown(cancel_futures=True)
        self.ours.close()
        self.theirs.close()

    def __call__(self, function: Callable, tasks: Iterable[tuple]) -> Iterator[tuple[int, Any]]:
        """Yield (number of the task, result) as results come.

        Few tasks are under way at a time, so that results do not pile up.
        """
        numbered = enumerate(tasks)
        if self.executor is None:
            yield from ((number, function(*task)) for number, task in numbered)
            return
        running: dict[Future, int] = {}
        try:
            while True:
                for number, task in islice(numbered, 2 * self.workers - len(running)):
                    running[self.executor.submit(function, *task)] = number
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    yield running.pop(future), future.result()
        except BrokenProcessPool as error:
            raise WorkerError(
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
                    _remove_frame(root, ref)
    except damage as error:
        for ref in refs[len(records) + len(problems) :]:
            problems.append(f'frame {ref.name}: {error}')
            _remove_frame(root, ref)
    return records, problems


def _remove_frame(root: Path, ref: FrameRef) -> None:
    """Remove what an earlier, interrupted call left of a frame."""
    remove_files(root, [_file(kind, ref.name) for kind in _converter.suffixes])


def _file(kind: str, name: str) -> str:
    return f'{_converter.folders.get(kind, kind)}/{name}{_converter.suffixes[kind]}'


def _convert_frame(root: Path, size: tuple[int, int] | None, opened: Any, ref: FrameRef) -> dict:
    frame = _converter.read(opened, ref.locator)
    images = bring_to_size(frame.images, size, ref.name)
    measures = {kind: measure(kind, image) for kind, image in images.items()}
    _check(measures, ref.name)
    if frame.unsure is not None:
        measures['depth']['unsure'] = round(frame.unsure, 6)
    stored = {kind: image for kind, image in images.items() if kind in _converter.suffixes}
    # Everything is encoded before anything is written.
    data = {
        _file(kind, ref.name): encode(image, _converter.suffixes[kind], ref.name)
        for kind, image in stored.items()
    }
    try:
        files = {file: write_file(root, file, content) for file, content in data.items()}
    except StorageError:
        _remove_frame(root, ref)
        raise
    height, width = next(iter(images.values())).shape[:2]
    record = {
        'name': ref.name,
        'files': files,
        'size': [width, height],
        'measures': {kind: found for kind, found in measures.items() if found},
    }
    if frame.categories:
        record['instances'] = annotate(
            images['instance'], frame.categories, _converter.smallest_instance, frame.crowds
        )
    if frame.extra:
        record['extra'] = frame.extra
    return record


def _check(measures: Mapping[str, dict], name: str) -> None:
    for kind, found in measures.items():
        if kind.startswith('depth') and 'low' not in found:
            raise FrameError(f'{name}: {kind} has no reading in the whole frame.')
        if kind in _converter.classes:
            expected = _label_ids(_converter, kind)
            wrong = [i for i in found['pixels'] if int(i) not in expected]
            if wrong:
                unlabelled, *ids = expected
                raise FrameError(
                    f'{name}: {kind} has the ids {", ".join(wrong)}, expected {unlabelled} '
                    f'(unlabelled) or {ids[0]} to {ids[-1]}.'
                )


def _label_ids(converter: Converter, kind: str) -> dict[int, str]:
    """Ids and what they mean of a label folder, the id of unlabelled pixels first."""
    first = converter.first_ids.get(kind, 1)
    ids = {converter.ignore_ids.get(kind, 0): 'unlabelled'}
    ids.update(enumerate(converter.classes[kind], first))
    return ids


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
    # What a limit leaves is the same for any number of workers, problems included.
    for number in sorted(plans):
        if options.limit is not None and len(frames) >= options.limit:
            break
        problems += plans[number].problems
        for ref in plans[number].frames:
            if safe_name(ref.name) != ref.name:
                raise ValueError(f'{converter.name}: {ref.name!r} did not go through safe_name')
            if ref.name in frames:
                other = sources[frames[ref.name][0]]
                raise SourceError(
                    f'{other} and {sources[number]} both have a frame {ref.name!r} (blanks, '
                    f'commas and # become _). Rename one, or convert them into separate folders.'
                )
            frames[ref.name] = number, ref
    return dict(islice(frames.items(), options.limit)), problems


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
    """Write index files, COCO files, what else is known of frames and, last, the manifest."""
    extras = {name: output.records[name].get('extra', {}) for name in names}
    files: dict[str, bytes] = {}
    splits = {}
    for split, listed in converter.splits(names).items():
        lines = (converter.index_line(name, extras[name]) for name in listed)
        files[f'splits/{split}.txt'] = ''.join(f'{line}\n' for line in lines).encode()
        splits[split] = {'frames': len(listed)}
        if converter.categories:
            file, folder = converter.annotation_file(split)
            content = _coco(converter, output, listed, folder)
            splits[split]['instances'] = len(content['annotations'])
            files[file] = (json.dumps(content) + '\n').encode()
    if any(extras.values()):
        lines = (json.dumps({'name': name, **extra}) for name, extra in extras.items())
        files[FRAMES] = ''.join(f'{line}\n' for line in lines).encode()
    files |= converter.extra_files(names)
    noted = output.write_index(files)
    manifest = {
        **identity,
        'title': converter.title,
        'mmmask3d': __version__,
        'source': os.path.basename(os.path.abspath(converter.source)),
        'source_version': converter.source_version(),
        'frames': len(names),
        'splits': splits,
        'depth_kind': converter.depth_kind,
        'depth_scale': converter.depth_scale,
        'folders': {kind: converter.folders.get(kind, kind) for kind in converter.suffixes},
        'suffixes': dict(converter.suffixes),
        'rgbd_dataset': converter.dataset_settings(),
        'classes': {kind: list(classes) for kind, classes in converter.classes.items()},
        'first_ids': {kind: converter.first_ids.get(kind, 1) for kind in converter.classes},
        'ignore_ids': {kind: converter.ignore_ids.get(kind, 0) for kind in converter.classes},
        'limit': limit,
        'left_out': problems,
        **_sum_up(converter, [output.records[name] for name in names]),
        'crc32': {name: crc for name, (_, crc) in noted.items()},
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
            unsure = [f['unsure'] for f in found if 'unsure' in f]
            if unsure:
                depth[kind]['unsure_share'] = round(float(np.mean(unsure)), 4)
        elif kind in converter.classes:
            pixels: Counter[int] = Counter()
            for f in found:
                pixels.update({int(i): n for i, n in f['pixels'].items()})
            total = sum(pixels.values())
            ids = _label_ids(converter, kind)
            labels[kind] = {c: round(pixels[i] / total, 6) for i, c in ids.items()}
    return {'depth': depth, 'pixel_share': labels}
