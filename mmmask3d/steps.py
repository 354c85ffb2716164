"""Chains of the project's tools: a step runs its command if its result is missing.

A step works in a folder named after a hash of its command and settings, which hold the paths of
what earlier steps made. So a finished step is not run again, and with another option the work goes
to another folder: neither result is taken for the other. An interrupted training goes on.

A step gets as many threads as there are cores or as its caller says, unless ``OMP_NUM_THREADS``
says otherwise.
"""

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config, DictAction

from mmmask3d.engine.run_config import load_config

#: Figures of a validation that are worth a line on the screen.
_SHOWN = (
    'masked_depth/rmse',
    'masked_depth/interp_rmse',
    'masked_depth/mean_rmse',
    'masked_depth/aligned_rmse',
    'mIoU',
    'coco/bbox_mAP',
    'coco/segm_mAP',
)


class StepFailed(RuntimeError):
    """A command failed or did not leave what it should have; the message ends with its log."""


@dataclass(frozen=True)
class Step:
    """A command with a result.

    Args:
        folder: Where the step works.
        command: Arguments for the Python interpreter, the script first.
        products: Files that exist once the step is finished.
        show: Turns a line of output into what the user sees of it, None for nothing.
    """

    folder: Path
    command: tuple[str, ...]
    products: tuple[Path, ...]
    show: Callable[[str], str | None]

    @property
    def finished(self) -> bool:
        """Whether the command ended well and its products are there."""
        return all(path.exists() for path in (self.folder / 'finished', *self.products))

    def run(self, threads: int | None = None) -> bool:
        """Run the command unless its result is there; returns whether it was run.

        The output goes to ``log.txt`` in the folder, and through ``show`` to the screen.

        Args:
            threads: What the command computes with; None for one on each core.

        Raises:
            StepFailed: The command failed or left no result.
        """
        if self.finished:
            return False
        self.folder.mkdir(parents=True, exist_ok=True)
        log = self.folder / 'log.txt'
        code = self._execute(log, threads or usable_cores())
        missing = [str(path) for path in self.products if not path.exists()]
        if code or missing:
            what = f'ended with code {code}' if code else f'did not write {", ".join(missing)}'
            with log.open(errors='replace') as file:
                tail = ''.join(deque(file, maxlen=30))
            raise StepFailed(
                f'{" ".join(self.command)}\n{what}. The end of {log}:\n\n{tail}\n'
                'Started again, the same call goes on from here.'
            )
        (self.folder / 'finished').touch()
        return True

    def _execute(self, log: Path, threads: int) -> int:
        with (
            log.open('w') as file,
            subprocess.Popen(
                [sys.executable, *self.command],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors='replace',
                env={'OMP_NUM_THREADS': str(threads), **os.environ, 'PYTHONUNBUFFERED': '1'},
            ) as process,
        ):
            try:
                for line in process.stdout or ():
                    file.write(line)
                    file.flush()
                    if (shown := self.show(line.rstrip())) is not None:
                        print(f'  {self.folder.name}: {shown}', flush=True)
            except BaseException:
                process.terminate()
                raise
        return process.returncode


def usable_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, 'sched_getaffinity'):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def step(
    root: Path,
    name: str,
    command: Callable[[Path], Sequence[str | os.PathLike]],
    products: Callable[[Path], Sequence[Path]],
    show: Callable[[str], str | None] = lambda line: None,
    settings: Any = None,
) -> Step:
    """Describe a step that works in ``root/name-<8 digits of a hash>``.

    Args:
        root: Folder of the whole chain.
        name: Name of the step.
        command: From the step's folder to the arguments for Python.
        products: From the step's folder to the files it must leave.
        show: See :class:`Step`.
        settings: What decides the result and is not in the command, as JSON can write it.
    """
    decisive = [settings, [os.fspath(part) for part in command(Path(name))]]
    key = hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:8]
    folder = Path(root) / f'{name}-{key}'
    arguments = tuple(os.fspath(part) for part in command(folder))
    return Step(folder, arguments, tuple(products(folder)), show)


def resolve_config(config: str | os.PathLike, overrides: Sequence[str]) -> Config:
    """Read a config and apply ``key=value`` overrides as ``--cfg-options`` of the tools does.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: An override is not of the form ``key=value``.
    """
    for item in overrides:
        if '=' not in item:
            raise ValueError(f'override {item!r}: expected key=value')
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='*', action=DictAction)
    options = parser.parse_args(['--cfg-options', *overrides]).cfg_options
    return load_config(config, cfg_options=options)


def training_step(
    root: Path,
    name: str,
    config: str | os.PathLike,
    overrides: Sequence[str],
    tools: Path,
    encoder: str | os.PathLike | None = None,
) -> Step:
    """Step that trains with ``tools/train.py``; its product is the last checkpoint.

    The config as it results from file and overrides decides, so an edited file is another run.

    Args:
        root: See :func:`step`.
        name: See :func:`step`.
        config: Config file.
        overrides: ``key=value`` pairs as for ``--cfg-options``.
        tools: Folder with ``train.py``.
        encoder: File that the backbone starts from.
    """
    cfg = resolve_config(config, overrides)
    epochs, iterations = (cfg.train_cfg.get(key) for key in ('max_epochs', 'max_iters'))
    last = f'iter_{iterations}.pth' if epochs is None else f'epoch_{epochs}.pth'
    options = [*overrides, *(encoder_overrides(encoder) if encoder else ())]
    return step(
        root,
        name,
        lambda folder: [
            tools / 'train.py', config, '--work-dir', folder, '--resume', *_cfg_options(options),
        ],
        lambda folder: [folder / last],
        show_training,
        cfg.to_dict(),
    )  # fmt: skip


def evaluation_step(
    root: Path,
    name: str,
    config: str | os.PathLike,
    overrides: Sequence[str],
    tools: Path,
    checkpoint: str | os.PathLike,
) -> Step:
    """Step that evaluates a checkpoint; its product holds the figures by name, as JSON."""
    return step(
        root,
        name,
        lambda folder: [
            tools / 'test.py', config, checkpoint, '--work-dir', folder,
            '--out', folder / 'metrics.json', *_cfg_options(overrides),
        ],
        lambda folder: [folder / 'metrics.json'],
        settings=resolve_config(config, overrides).to_dict(),
    )  # fmt: skip


def export_step(
    root: Path, checkpoint: Path, tools: Path, file: str = 'encoder.pth', options: Sequence = ()
) -> Step:
    """Step that writes the encoder of a pre-training; ``options`` are those of the tool."""
    script = tools / 'model_converters/extract_backbone.py'
    return step(
        root,
        'encoder',
        lambda folder: [script, checkpoint, folder / file, *options],
        lambda folder: [folder / file],
    )


def encoder_overrides(encoder: str | os.PathLike) -> list[str]:
    """Overrides that make a config's backbone start from an encoder file."""
    return [
        'model.backbone.init_cfg.type=Pretrained',
        f'model.backbone.init_cfg.checkpoint={os.fspath(encoder)}',
    ]


def _cfg_options(overrides: Sequence[str]) -> list[str]:
    return ['--cfg-options', *overrides] if overrides else []


def show_counts(line: str) -> str | None:
    """About every tenth count of frames that the generator's progress bar prints."""
    count = re.search(r'(\d+)/(\d+) \[', line)
    if count is None or int(count[1]) % max(1, int(count[2]) // 12):
        return None
    return f'{count[1]} of {count[2]} frames'


def show_training(line: str) -> str | None:
    """Progress, losses and chosen figures of a training's log; None for every other line."""
    if line.startswith('Resuming from '):
        return line
    message = line.split(' - INFO - ', 1)[-1]
    values = dict(re.findall(r'([\w/]+): (\S+)', message))
    if place := re.match(r'(Epoch|Iter)\(train\)\s+(\[\d+\])?\[\s*(\d+)/(\d+)\]', message):
        where = f'epoch {place[2][1:-1]}, batch' if place[2] else 'iteration'
        shown = [f'{key} {values[key]}' for key in ('loss', 'eta') if key in values]
        return ', '.join([f'{where} {place[3]}/{place[4]}', *shown])
    if re.match(r'(Epoch|Iter)\(val\).*\[(\d+)/\2\] ', message):
        shown = [f'{key} {values[key]}' for key in _SHOWN if key in values]
        return 'validation: ' + ', '.join(shown) if shown else None
    return None
