"""Reads checkpoint files without ever running code from them, and writes them without half files.

:func:`load_checkpoint_file` never falls back to full unpickling; what a file may build is decided
in :mod:`mmmask3d.checkpoints.unpickling`.
"""

import io
import json
import os
import pickle
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.fileio import LocalBackend, register_backend
from mmengine.utils import digit_version
from mmengine.utils.dl_utils import TORCH_VERSION
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from mmmask3d.atomic_file import write_file
from mmmask3d.checkpoints.unpickling import inspect_zip, only_our_allowlist, resolve

#: Ends the name of the list of files that a large checkpoint is spread over.
INDEX_SUFFIX = '.safetensors.index.json'
ATOMIC_BACKEND = 'mmmask3d_atomic_local'
# What reading a damaged file may raise.
_DAMAGE = (RuntimeError, EOFError, OSError, ValueError, TypeError, KeyError, IndexError)


class CheckpointError(RuntimeError):
    """A checkpoint cannot be read: damaged, truncated, or not a checkpoint at all."""


class UnsafeCheckpointError(CheckpointError):
    """A checkpoint asks for objects whose loading could run code."""


# --------------------------------------------------------------------------------------------
# Reading


def _unsafe(name: str, reason: str) -> UnsafeCheckpointError:
    return UnsafeCheckpointError(
        f'{name}: refused, because reading it would need full unpickling, which can run code: '
        f"the file asks for {reason}. Expected tensors, plain Python objects and mmengine's log "
        'histories. If you trust where it comes from, convert it once, in a sandbox or on a '
        'machine that may be lost: '
        "`import torch; ckpt = torch.load(FILE, map_location='cpu', weights_only=False); "
        "torch.save({'state_dict': ckpt.get('state_dict', ckpt)}, NEW_FILE)`, and use NEW_FILE "
        '(weights only; such a file cannot be resumed from).'
    )


def _read_torch_file(path: str, map_location: Any, mmap: bool) -> Any:
    """Load what ``torch.save`` wrote; see :func:`load_checkpoint_file`."""
    with open(path, 'rb') as file:
        head = file.read(4)
    is_zip = head == b'PK\x03\x04'  # torch's own test
    if not is_zip and head[:1] != b'\x80':
        found = f'a file that starts with {head!r}' if head else 'an empty file'
        raise CheckpointError(
            f'{path}: not a checkpoint. Found {found}; expected one written by torch.save, or a '
            '.safetensors file. Copy or download it again. (A downloaded web page or a Git LFS '
            'pointer looks like this.)'
        )
    try:
        if is_zip:
            inspect_zip(path)
        with only_our_allowlist(), warnings.catch_warnings():
            # torch warns about these and then raises; one message is enough
            warnings.filterwarnings('ignore', message='.*(TorchScript archive|pickle protocol).*')
            checkpoint = torch.load(
                path, map_location=map_location, weights_only=True, mmap=mmap and is_zip
            )
            return resolve(checkpoint)
    except pickle.UnpicklingError as error:
        wanted = re.search(r'GLOBAL (.+?)(?: was not an allowed global|\n|$)', str(error))
        if wanted:
            raise _unsafe(path, wanted.group(1)) from None
        reason = str(error).rsplit('WeightsUnpickler error:', 1)[-1].strip().split('\n')[0]
        raise _unsafe(path, f'a pickle operation that is not allowed ({reason})') from None
    except (*_DAMAGE, zipfile.BadZipFile) as error:
        if 'TorchScript' in str(error):
            raise _unsafe(path, 'a TorchScript archive') from None
        if isinstance(error, RuntimeError) and 'CUDA' in str(error):
            raise
        detail = (str(error).splitlines() or ['no detail'])[0]
        raise CheckpointError(
            f'{path}: the file is damaged or incomplete ({os.path.getsize(path)} bytes; '
            f'{type(error).__name__}: {detail}). Expected a complete checkpoint written by '
            'torch.save; copy or download it again, or use an earlier one.'
        ) from error


def _read_safetensors(path: str, map_location: Any) -> dict[str, Any]:
    device = 'cpu' if map_location is None or callable(map_location) else str(map_location)
    try:
        with safe_open(path, framework='pt', device=device) as file:
            meta = dict(file.metadata() or {})
            state_dict = OrderedDict((key, file.get_tensor(key)) for key in file.keys())  # noqa: SIM118
    except SafetensorError as error:
        raise CheckpointError(
            f'{path}: the file is damaged or not a safetensors file ({error}). Copy or download '
            'it again.'
        ) from error
    return {'meta': meta, 'state_dict': state_dict}


def index_of_shards(path: str) -> dict[str, list[str]]:
    """Names of the tensors in each file that a ``.safetensors.index.json`` lists.

    Raises:
        CheckpointError: It is no such index, or names a file outside of its folder.
    """
    try:
        with open(path, encoding='utf-8') as file:
            places = json.load(file)['weight_map']
        shards: dict[str, list[str]] = {}
        for tensor, shard in places.items():
            shards.setdefault(shard, []).append(tensor)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f'{path}: expected the index of a sharded checkpoint, JSON with a weight_map '
            f'({type(error).__name__}: {error}). Copy or download it again.'
        ) from error
    for shard in shards:
        if os.path.basename(shard) != shard or not shard.endswith('.safetensors'):
            raise CheckpointError(
                f'{path}: names {shard!r}; expected .safetensors files in the same folder.'
            )
    return shards


def _read_shards(path: str, map_location: Any) -> dict[str, Any]:
    state_dict: OrderedDict[str, torch.Tensor] = OrderedDict()
    for shard, names in index_of_shards(path).items():
        file = os.path.join(os.path.dirname(path), shard)
        if not os.path.isfile(file):
            raise FileNotFoundError(f'{file}: missing, but {path} names it. Copy all files.')
        found = _read_safetensors(file, map_location)['state_dict']
        if set(found) != set(names):
            differing = sorted(set(found) ^ set(names))
            raise CheckpointError(
                f'{file}: {len(differing)} tensors are not where {path} says '
                f'({", ".join(differing[:5])}). Copy or download all files again.'
            )
        state_dict |= found
    return {'meta': {}, 'state_dict': state_dict}


def load_checkpoint_file(
    path: str | os.PathLike[str], map_location: Any = 'cpu', mmap: bool = False
) -> dict[str, Any]:
    """Read a local checkpoint; no code from the file is run, and there is no fallback.

    Args:
        path: A file written by ``torch.save`` or a ``.safetensors`` file. The metadata header of
            the latter becomes ``meta`` (strings, as stored), its tensors become ``state_dict``.
            ``model.safetensors.index.json`` stands for all the files that it lists.
        map_location: As for ``torch.load``.
        mmap: Map tensors instead of reading them, to look into large files quickly.

    Raises:
        FileNotFoundError: There is no such file.
        UnsafeCheckpointError: The file would need full unpickling.
        CheckpointError: The file is empty, truncated, damaged or not a checkpoint.
    """
    path = os.path.expanduser(os.fspath(path))
    if not os.path.isfile(path):
        found = 'a folder' if os.path.isdir(path) else 'nothing'
        raise FileNotFoundError(f'{path}: checkpoint not found (there is {found} at this path).')
    if path.endswith('.safetensors'):
        return _read_safetensors(path, map_location)
    if path.endswith(INDEX_SUFFIX):
        return _read_shards(path, map_location)
    if digit_version(TORCH_VERSION) < digit_version('2.6.0'):
        # Names in the allowlist came with it; before, the old file format ran code in spite of
        # weights_only=True (CVE-2025-32434).
        raise CheckpointError(
            f'{path}: reading it safely needs torch 2.6 or newer, found {TORCH_VERSION}. Update '
            'torch, or convert the file to .safetensors.'
        )
    checkpoint = _read_torch_file(path, map_location, mmap)
    if not isinstance(checkpoint, dict):
        raise CheckpointError(
            f'{path}: the file holds a {type(checkpoint).__name__}; expected a dict of weights or '
            "a dict with the key 'state_dict'."
        )
    return checkpoint


# --------------------------------------------------------------------------------------------
# Writing, and finding what was written


@register_backend(ATOMIC_BACKEND, force=True)
class AtomicLocalBackend(LocalBackend):
    """Local files that appear complete or not at all, also when the process is killed."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write a file; see :mod:`mmmask3d.atomic_file`."""
        write_file(filepath, obj)


def save_checkpoint_atomic(checkpoint: dict[str, Any], path: str | os.PathLike[str]) -> None:
    """Write a checkpoint with ``torch.save`` so that ``path`` never holds half of it."""
    with io.BytesIO() as buffer:
        torch.save(checkpoint, buffer)
        write_file(path, buffer.getvalue())


def safetensors_bytes(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> bytes:
    """Content of a ``.safetensors`` file; the same for the same tensors and metadata.

    The library writes the entries of its header in an order that changes from call to call, and so
    does the hash of the file; here they are sorted.
    """
    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    data: bytes = save(tensors, dict(metadata))
    size = int.from_bytes(data[:8], 'little')
    header = json.dumps(json.loads(data[8 : 8 + size]), sort_keys=True, separators=(',', ':'))
    raw = header.encode()
    raw += b' ' * (-len(raw) % 8)  # tensors start at a multiple of 8
    return len(raw).to_bytes(8, 'little') + raw + data[8 + size :]


def _progress(path: str) -> int | None:
    """Return the iteration a training checkpoint was saved at; None if it cannot be resumed."""
    try:
        meta = load_checkpoint_file(path, mmap=True).get('meta')
    except (CheckpointError, OSError):
        return None
    return meta.get('iter') if isinstance(meta, dict) else None


def find_resumable_checkpoint(
    work_dir: str | os.PathLike[str], log: Callable[[str], Any] = print
) -> str | None:
    """Return the newest complete training checkpoint in a work directory, or None.

    mmengine believes the file ``last_checkpoint``, which after a crash can be empty or name a
    file that is missing or half written. Here it is one candidate among the newest readable
    ``epoch_*.pth`` and ``iter_*.pth``; the one with most iterations wins. What was passed over is
    told to ``log``.
    """
    work_dir = Path(work_dir)
    pointer = work_dir / 'last_checkpoint'
    named = pointer.read_text().strip() if pointer.is_file() else ''
    if named and os.path.isdir(named):
        return named  # sharded checkpoint of a strategy, not a file of ours to judge
    numbered: dict[str, list[tuple[int, str]]] = {'epoch': [], 'iter': []}
    for path in work_dir.glob('*.pth'):
        if match := re.fullmatch(r'(epoch|iter)_(\d+)', path.stem):
            numbered[match[1]].append((int(match[2]), str(path)))
    newest_first = [[path for _, path in sorted(g, reverse=True)] for g in numbered.values()]
    readable: list[tuple[int, str]] = []
    for group in ([named] if named else [], *newest_first):
        for candidate in group:
            done = _progress(candidate)
            if done is not None:
                readable.append((done, candidate))
                break
            log(f'{candidate} is missing, incomplete or cannot be resumed from: passed over.')
    return max(readable)[1] if readable else None
