"""Run a converter: in parallel, restartable, and ending in index files and a manifest."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mmmask3d.conversion.converter import Converter, FrameRef, Plan
from mmmask3d.conversion.manifest import MANIFEST, finish
from mmmask3d.conversion.paths import SourceError
from mmmask3d.conversion.storage import OutputFolder, open_output, remove_files
from mmmask3d.conversion.workers import Run, convert_chunk, plan_source, pool

#: Raise it when the same options give other files: folders made before are then not added to.
FORMAT = 1
_CHUNK = 16  # frames a worker converts between two notes in the journal


class ConversionError(RuntimeError):
    """Part of the source is damaged, and it was not asked to leave damaged frames out."""


@dataclass(frozen=True)
class JobOptions:
    """How a conversion runs; only ``size`` decides what it makes."""

    # (width, height) of the output; None for the size of each depth map, or else colour image
    size: tuple[int, int] | None = None
    workers: int = 1  # processes
    on_error: str = 'raise'  # convert the others and fail; 'drop': name damaged frames and go on
    # Only the first frames, which index files and manifest then name alone; a later call goes on.
    limit: int | None = None


@dataclass
class Result:
    """What a conversion did."""

    manifest: dict  # content of manifest.json
    made: int  # frames that had to be converted and were
    problems: list[str]  # what was left out


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
    with open_output(out, identity) as output, pool(converter, options.workers) as run:
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
        manifest = finish(converter, output, identity, names, problems, options.limit)
    return Result(manifest, made, problems)


def _describe(problems: Sequence[str], done: int, total: int) -> str:
    shown = '\n  '.join(problems[:20])
    more = f'\n  ... and {len(problems) - 20} more' if len(problems) > 20 else ''
    return (
        f'{len(problems)} parts of the data set cannot be read:\n  {shown}{more}\n'
        f'{done} of {total} frames found are converted and kept. Repair the source and call again, '
        f'or leave the damaged ones out with --on-error drop.'
    )


def _plan(
    converter: Converter, sources: Sequence[Any], options: JobOptions, run: Run
) -> tuple[dict[str, tuple[int, FrameRef]], list[str]]:
    """Frames of all sources as name: (number of the source, frame), and problems."""
    frames: dict[str, tuple[int, FrameRef]] = {}
    problems: list[str] = []
    # With a limit, some sources at a time until there are enough.
    step = max(1, len(sources) if options.limit is None else options.workers)
    plans: Iterator[Plan] = chain.from_iterable(
        run(plan_source, [(source,) for source in sources[start : start + step]])
        for start in range(0, len(sources), step)
    )
    bar = tqdm(plans, 'finding frames', len(sources), unit='source', disable=None)
    for number, plan in enumerate(bar):
        problems += plan.problems
        for ref in plan.frames:
            if ref.name in frames:
                other = sources[frames[ref.name][0]]
                raise SourceError(
                    f'{other} and {sources[number]} both have a frame {ref.name!r} (blanks, '
                    f'commas and # become _). Rename one, or convert them into separate folders.'
                )
            frames[ref.name] = number, ref
        if options.limit is not None and len(frames) >= options.limit:
            break
    return dict(islice(frames.items(), options.limit)), problems


def _convert_missing(
    missing: dict[str, tuple[int, FrameRef]],
    sources: Sequence[Any],
    output: OutputFolder,
    options: JobOptions,
    run: Run,
) -> list[str]:
    chunks = []
    for number, pairs in groupby(missing.values(), itemgetter(0)):
        refs = [ref for _, ref in pairs]
        for i in range(0, len(refs), _CHUNK):
            chunks.append((output.root, options.size, sources[number], refs[i : i + _CHUNK]))
    problems: list[str] = []
    with tqdm(total=len(missing), unit='frame', desc='converting', disable=None) as bar:
        for records, found in run(convert_chunk, chunks):
            output.add(records)
            problems += found
            bar.update(len(records) + len(found))
    return problems
