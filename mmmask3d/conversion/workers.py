"""Worker processes of a conversion, and what they do: plan sources and convert frames."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import starmap
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import cv2

from mmmask3d.conversion.coco import annotate
from mmmask3d.conversion.converter import Converter, FrameRef, Plan
from mmmask3d.conversion.frame import bring_to_size, encode, measure
from mmmask3d.conversion.manifest import label_ids
from mmmask3d.conversion.paths import SourceError
from mmmask3d.conversion.storage import StorageError, remove_files, write_file
from mmmask3d.datasets.depth_io import FrameError

#: Calls a function with each of some tuples of arguments; gives the results in their order.
Run = Callable[[Callable, Iterable[tuple]], Iterator[Any]]


class WorkerError(RuntimeError):
    """A worker process was killed."""


_converter: Converter  # of this process


def _start_worker(converter: Converter) -> None:
    global _converter
    _converter = converter


def _start_worker_process(converter: Converter, parent: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops the workers
    cv2.setNumThreads(1)  # the workers are the parallelism
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    _start_worker(converter)


def _end_with(parent: Connection) -> None:
    """End this process when the parent closes its end of a pipe, or dies.

    A worker of ``concurrent.futures`` outlives a parent that was killed, waiting for work.
    """
    parent.poll(None)
    os._exit(1)


@contextmanager
def pool(converter: Converter, workers: int) -> Iterator[Run]:
    """Give a function that runs tasks in worker processes, or here where one worker is wanted.

    Raises:
        WorkerError: A worker process was killed.
    """
    if workers == 1:
        _start_worker(converter)
        yield starmap
        return
    # A copy of a process that has used OpenCV's threads may hang, hence no plain fork.
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context('forkserver' if 'forkserver' in methods else 'spawn')
    if 'forkserver' in methods:
        context.set_forkserver_preload([__name__])
    theirs, ours = context.Pipe(duplex=False)
    executor = ProcessPoolExecutor(workers, context, _start_worker_process, (converter, theirs))
    try:
        yield lambda function, tasks: executor.map(function, *zip(*tasks, strict=True))
    except BaseException as error:
        ours.close()  # ends the workers now; files are complete or absent all the same
        if isinstance(error, BrokenProcessPool):
            raise WorkerError(
                'A worker process died, killed by the system or for lack of memory. The same call '
                'goes on where this one stopped; fewer --workers need less memory.'
            ) from error
        raise
    finally:
        executor.shutdown(cancel_futures=True)
        ours.close()
        theirs.close()


def plan_source(source: Any) -> Plan:
    """Plan one source; what is wrong with all of it becomes a problem of the plan."""
    try:
        return _converter.plan(source)
    except (SourceError, FrameError, OSError) as error:
        return Plan(problems=[f'{_converter.title}, {source}: {error}'])


def convert_chunk(
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
    images, as_they_are = bring_to_size(frame.images, size, ref.name)
    measures = {kind: measure(kind, image) for kind, image in images.items()}
    _check(measures, ref.name)
    if frame.unsure is not None:
        measures['depth']['unsure'] = round(frame.unsure, 6)
    # Everything is encoded before anything is written.
    data = {
        _file(kind, ref.name): encode(as_they_are.get(kind, image), suffix, ref.name)
        for kind, image in images.items()
        if (suffix := _converter.suffixes.get(kind))
    }
    try:
        files = {file: write_file(root, file, content) for file, content in data.items()}
    except StorageError:
        _remove_frame(root, ref)
        raise
    height, width = next(iter(images.values())).shape[:2]
    record: dict[str, Any] = {
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
            expected = label_ids(_converter, kind)
            wrong = [i for i in found['pixels'] if int(i) not in expected]
            if wrong:
                unlabelled, *ids = expected
                raise FrameError(
                    f'{name}: {kind} has the ids {", ".join(wrong)}, expected {unlabelled} '
                    f'(unlabelled) or {ids[0]} to {ids[-1]}.'
                )
