"""Runs commands one after the other, each of them once.

Long chains of training, exporting and testing get interrupted, and are started again with an
option changed. A :class:`Stage` therefore works in a folder named after a hash of the options that
decide its result: a finished stage is recognised and not run again, an interrupted one is taken up
again in its folder, and with other options the work goes to another folder, so that neither is
mistaken for the other and nothing is lost.
"""

import fcntl
import hashlib
import json
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmmask3d.atomic_file import write_file

_RECORD = 'stage.json'


class StageFailed(RuntimeError):
    """A command failed or did not leave what it should have; the message ends with its log."""


@dataclass(frozen=True)
class Stage:
    """A command with a result.

    Args:
        folder: Where the stage works; made by :func:`stage` so that it carries the key.
        key: Hash of the options.
        options: What decides the result, for the record.
        command: Arguments for the Python interpreter, the script first.
        products: Files that exist once the stage is finished.
        show: Turns a line of output into what the user sees of it, None for nothing.
    """

    folder: Path
    key: str
    options: dict[str, Any]
    command: tuple[str, ...]
    products: tuple[Path, ...]
    show: Callable[[str], str | None]

    @property
    def finished(self) -> bool:
        """Whether the stage ran to its end with these options and its products are there."""
        try:
            record = json.loads((self.folder / _RECORD).read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return False
        return record.get('key') == self.key and all(path.exists() for path in self.products)

    @property
    def seconds(self) -> float:
        """Duration of the (last) run of a finished stage."""
        return json.loads((self.folder / _RECORD).read_text())['seconds']

    def run(self) -> bool:
        """Run the command unless its result is there; returns whether it was run.

        The output goes to ``log.txt`` in the folder, and through ``show`` to the screen.

        Raises:
            StageFailed: The command failed, left no result, or runs already.
        """
        if self.finished:
            return False
        self.folder.mkdir(parents=True, exist_ok=True)
        log = self.folder / 'log.txt'
        with open(self.folder / '.lock', 'w') as lock:
            # The command inherits the lock, so one that outlived its parent still holds it.
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StageFailed(
                    f'{self.folder}: another process is at work here. Wait for it or end it.'
                ) from None
            start = time.monotonic()
            code = self._execute(log, lock.fileno())
        missing = [str(path) for path in self.products if not path.exists()]
        if code or missing:
            what = f'ended with code {code}' if code else f'did not write {", ".join(missing)}'
            tail = ''.join(deque(log.open(errors='replace'), maxlen=30))
            raise StageFailed(
                f'{" ".join(self.command)}\n{what}. The end of {log}:\n\n{tail}\n'
                'Started again, the same call goes on from here.'
            )
        record = dict(
            key=self.key,
            options=self.options,
            command=self.command,
            seconds=round(time.monotonic() - start, 1),
        )
        write_file(self.folder / _RECORD, json.dumps(record, indent=1).encode())
        return True

    def _execute(self, log: Path, lock: int) -> int:
        """Run the command with its output in ``log``; returns its exit code."""
        process = subprocess.Popen(
            [sys.executable, *self.command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors='replace',
            env={**os.environ, 'PYTHONUNBUFFERED': '1'},
            pass_fds=[lock],
        )
        try:
            with log.open('w') as file:
                for line in process.stdout:
                    file.write(line)
                    file.flush()
                    shown = self.show(line.rstrip())
                    if shown is not None:
                        print(f'  {shown}', flush=True)
            return process.wait()
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()


def stage(
    root: Path,
    name: str,
    options: dict[str, Any],
    command: Callable[[Path], Sequence[str | os.PathLike]],
    products: Callable[[Path], Sequence[Path]],
    show: Callable[[str], str | None] = lambda line: None,
) -> Stage:
    """Describe a stage that works in ``root/name-<key>``.

    Args:
        root: Folder of the whole chain.
        name: Name of the stage.
        options: What decides the result, as JSON can write it; the keys of earlier stages
            belong to it.
        command: From the stage's folder to the arguments for Python.
        products: From the stage's folder to the files it must leave.
        show: See :class:`Stage`.
    """
    text = json.dumps(options, sort_keys=True)
    key = hashlib.sha256(text.encode()).hexdigest()
    folder = Path(root) / f'{name}-{key[:8]}'
    arguments = tuple(os.fspath(part) for part in command(folder))
    return Stage(folder, key, json.loads(text), arguments, tuple(products(folder)), show)
