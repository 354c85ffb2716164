"""Reads checkpoints without ever running code from them, and writes them without half files.

mmengine tries ``torch.load(weights_only=True)`` and, when that fails, unpickles the file in full,
which runs whatever code its author put there; its ``http(s)://`` loader unpickles right away, and
the allowlist it opens for its own checkpoints contains ``getattr``, from which any function in the
process can be reached. :func:`load_checkpoint_file` never falls back; what a file may build is
decided in :mod:`mmmask3d.checkpoints.unpickling`.
"""

import io
import json
import logging
import os
import pickle
import re
import tempfile
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import get_dist_info
from mmengine.fileio import LocalBackend, get_file_backend, register_backend
from mmengine.logging import print_log
from mmengine.runner import checkpoint as mm_checkpoint
from mmengine.runner.checkpoint import CheckpointLoader

from mmmask3d.checkpoints.download import check_digits, download, file_sha256, split_sha256
from mmmask3d.checkpoints.unpickling import (
    HAS_NAMED_ALLOWLIST,
    inspect_zip,
    only_our_allowlist,
    resolve,
)

ATOMIC_BACKEND = 'mmmask3d_atomic_local'


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


def _read_torch_file(source: str | io.BytesIO, name: str, map_location: Any, mmap: bool) -> Any:
    """Load what ``torch.save`` wrote; see :func:`load_checkpoint_file`."""
    if isinstance(source, io.BytesIO):
        head = source.getvalue()[:4]
    else:
        with open(source, 'rb') as file:
            head = file.read(4)
    is_zip = head == b'PK\x03\x04'  # torch's own test
    if not head:
        raise CheckpointError(
            f'{name}: the file is empty. Expected a checkpoint; copy or download it again.'
        )
    if not is_zip and head[:1] != b'\x80':
        raise CheckpointError(
            f'{name}: not a checkpoint. Found a file that starts with {head!r}; expected one '
            'written by torch.save, or a .safetensors file. (A downloaded web page or a Git LFS '
            'pointer looks like this.)'
        )
    if not is_zip and not HAS_NAMED_ALLOWLIST:
        # CVE-2025-32434: before torch 2.6 the reader of the old format ran code in spite of
        # weights_only=True.
        raise _unsafe(name, "PyTorch's old file format, which torch < 2.6 does not read safely")
    try:
        if is_zip:
            inspect_zip(source)
            if isinstance(source, io.BytesIO):
                source.seek(0)
        with only_our_allowlist(), warnings.catch_warnings():
            # torch warns about these and then raises; one message is enough
            warnings.filterwarnings('ignore', message='.*(TorchScript archive|pickle protocol).*')
            checkpoint = torch.load(
                source, map_location=map_location, weights_only=True, mmap=mmap and is_zip
            )
            return resolve(checkpoint)
    except pickle.UnpicklingError as error:
        wanted = re.search(r'GLOBAL (.+?)(?: was not an allowed global|\n|$)', str(error))
        if wanted:
            raise _unsafe(name, wanted.group(1)) from None
        reason = str(error).rsplit('WeightsUnpickler error:', 1)[-1].strip().split('\n')[0]
        raise _unsafe(name, f'a pickle operation that is not allowed ({reason})') from None
    except (
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        zipfile.BadZipFile,
    ) as error:
        if 'TorchScript' in str(error):
            raise _unsafe(name, 'a TorchScript archive') from None
        if isinstance(error, RuntimeError) and 'CUDA' in str(error):
            raise
        size = len(source.getvalue()) if isinstance(source, io.BytesIO) else os.path.getsize(source)
        raise CheckpointError(
            f'{name}: the file is damaged or incomplete ({size} bytes; {type(error).__name__}: '
            f'{str(error).splitlines()[0] if str(error) else "no detail"}). Expected a complete '
            'checkpoint written by torch.save; copy or download it again, or use an earlier one.'
        ) from error


def _read_safetensors(path: str, map_location: Any) -> dict[str, Any]:
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError:
        raise CheckpointError(
            f'{path}: reading .safetensors needs the safetensors package: pip install safetensors'
        ) from None
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


def load_checkpoint_file(
    path: str | os.PathLike, map_location: Any = 'cpu', mmap: bool = False
) -> dict[str, Any]:
    """Read a local checkpoint; no code from the file is run, and there is no fallback.

    Args:
        path: A file written by ``torch.save`` or a ``.safetensors`` file. The metadata header of
            the latter becomes ``meta`` (strings, as stored), its tensors become ``state_dict``.
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
    checkpoint = _read_torch_file(path, path, map_location, mmap)
    if not isinstance(checkpoint, dict):
        raise CheckpointError(
            f'{path}: the file holds a {type(checkpoint).__name__}; expected a dict of weights or '
            "a dict with the key 'state_dict'."
        )
    return checkpoint


# --------------------------------------------------------------------------------------------
# mmengine's schemes. The names matter: mmengine logs them without their first ten letters.


def _without_code(checkpoint: dict[str, Any], name: str) -> dict[str, Any]:
    """Drop ``meta['config']``, a text that ``Runner.resume`` runs as Python."""
    meta = checkpoint.get('meta')
    if isinstance(meta, dict) and 'config' in meta:
        print_log(
            f"{name}: ignoring meta['config'], which mmengine would run as Python code when "
            'resuming.',
            logger='current',
            level=logging.WARNING,
        )
        checkpoint['meta'] = {key: value for key, value in meta.items() if key != 'config'}
    return checkpoint


def load_from_local(filename: str, map_location: Any = None) -> dict[str, Any]:
    """Load a local file for mmengine's ``CheckpointLoader``."""
    return _without_code(load_checkpoint_file(filename, map_location), filename)


def load_from_http(
    filename: str, map_location: Any = None, model_dir: str | None = None
) -> dict[str, Any]:
    """Download once to torch's hub folder, then read the file as a local one.

    The URL may carry its hash, ``#sha256=...``; see :func:`mmmask3d.checkpoints.download.download`.
    Processes that share a cache folder wait for the one that downloads.
    """
    quiet = int(os.environ.get('LOCAL_RANK', get_dist_info()[0])) != 0
    path = download(filename, folder=model_dir, progress=False if quiet else None)
    return load_from_local(str(path), map_location)


def load_from_zoo(filename: str, map_location: Any = None) -> dict[str, Any]:
    """Read the published weights of a model in mmmask3d's zoo, ``mmmask3d://NAME``."""
    from mmmask3d.weights.zoo import weights_file

    return load_from_local(str(weights_file(filename)), map_location)


def with_sha256(filename: str, sha256: str) -> str:
    """Location of a checkpoint whose hash is checked when it is read.

    A local file is checked here; a URL gets the hash as its fragment.

    Raises:
        CheckpointError: The file has another hash, or its scheme cannot be checked.
    """
    digits = check_digits(sha256, filename)
    if filename.startswith(('http://', 'https://', 'mmmask3d://')):
        address, given = split_sha256(filename)
        if given not in (None, digits):
            raise CheckpointError(f'{filename}: sha256={digits} contradicts the URL.')
        return f'{address}#sha256={digits}'
    if '://' in filename:
        raise CheckpointError(
            f'{filename}: sha256 is checked for local files, http(s):// and mmmask3d:// only.'
        )
    path = os.path.expanduser(filename)
    if os.path.isfile(path) and (found := file_sha256(path)) != digits:
        raise CheckpointError(
            f'{filename}: its sha256 is {found}, expected {digits}. The file was changed, or the '
            'hash is of another one.'
        )
    return filename


def load_from_torchvision(filename: str, map_location: Any = None) -> dict[str, Any]:
    """Resolve a name of torchvision's model zoo and download it."""
    urls = mm_checkpoint.get_torchvision_models()
    return load_from_http(_look_up(filename, urls), map_location)


def load_from_openmmlab(filename: str, map_location: Any = None) -> dict[str, Any]:
    """Resolve a name of OpenMMLab's model zoo and download it."""
    urls = mm_checkpoint.get_external_models()
    name = filename.split('://', 1)[1]
    name = mm_checkpoint.get_deprecated_model_names().get(name, name)
    url = _look_up(f'open-mmlab://{name}', urls)
    if url.startswith(('http://', 'https://')):
        return load_from_http(url, map_location)
    return load_from_local(os.path.join(mm_checkpoint._get_mmengine_home(), url), map_location)


def load_from_mmcls(filename: str, map_location: Any = None) -> dict[str, Any]:
    """Resolve a name of mmcls' model zoo, download it and keep the backbone."""
    checkpoint = load_from_http(_look_up(filename, mm_checkpoint.get_mmcls_models()), map_location)
    return mm_checkpoint._process_mmcls_checkpoint(checkpoint)


def load_from_ceph(
    filename: str, map_location: Any = None, backend: str = 'petrel'
) -> dict[str, Any]:
    """Read from an object store through mmengine's file backend."""
    data = get_file_backend(filename, backend_args={'backend': backend}).get(filename)
    checkpoint = _read_torch_file(io.BytesIO(data), filename, map_location, mmap=False)
    if not isinstance(checkpoint, dict):
        raise CheckpointError(
            f'{filename}: the file holds a {type(checkpoint).__name__}; expected a dict.'
        )
    return _without_code(checkpoint, filename)


def load_from_refused(filename: str, map_location: Any = None) -> dict[str, Any]:
    """Refuse a scheme that only mmengine's unpickling loader knows."""
    raise UnsafeCheckpointError(
        f'{filename}: mmengine reads this scheme by full unpickling, which can run code. Download '
        'the file and give its local path.'
    )


def _look_up(filename: str, urls: dict[str, str]) -> str:
    scheme, name = filename.split('://', 1)
    if name not in urls:
        raise CheckpointError(
            f'{filename}: the model zoo behind {scheme}:// has no {name!r} ({len(urls)} names '
            'known). Check the name, or give a URL or a local path.'
        )
    return urls[name]


def install_strict_loaders() -> None:
    """Make every checkpoint that mmengine reads in this process go through this module.

    Covers ``init_cfg=dict(type='Pretrained')``, ``load_from``, ``resume``,
    ``_load_checkpoint_with_prefix`` and ``mmengine.runner.load_checkpoint``, which all ask
    ``CheckpointLoader``. A scheme of mmengine's that is not known here is refused; loaders that
    others registered are left alone. Calling it again changes nothing.
    """
    strict: dict[str, Callable] = {
        '': load_from_local,
        'http://': load_from_http,
        'https://': load_from_http,
        'mmmask3d://': load_from_zoo,
        'torchvision://': load_from_torchvision,
        'modelzoo://': load_from_torchvision,
        'open-mmlab://': load_from_openmmlab,
        'openmmlab://': load_from_openmmlab,
        'mmcls://': load_from_mmcls,
        r'(\S+\:)?s3://': load_from_ceph,
        r'(\S+\:)?petrel://': load_from_ceph,
    }
    for prefix, loader in list(CheckpointLoader._schemes.items()):
        if prefix not in strict and loader.__module__.split('.')[0] == 'mmengine':
            strict[prefix] = load_from_refused
    for prefix, loader in strict.items():
        CheckpointLoader.register_scheme(prefix, loader=loader, force=True)


# --------------------------------------------------------------------------------------------
# Writing, and finding what was written


@register_backend(ATOMIC_BACKEND, force=True)
class AtomicLocalBackend(LocalBackend):
    """Local files that appear complete or not at all, also when the process is killed."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write next to the target, flush to the disk, then rename over the target."""
        folder = os.path.dirname(os.path.abspath(filepath))
        os.makedirs(folder, exist_ok=True)
        handle, temporary = tempfile.mkstemp(
            dir=folder, prefix=f'.{os.path.basename(filepath)}.', suffix='.part'
        )
        try:
            with os.fdopen(handle, 'wb') as file:
                file.write(obj)
                file.flush()
                os.fsync(file.fileno())
            # mkstemp makes the file private; give it the mode an ordinary new file would have
            mask = os.umask(0)
            os.umask(mask)
            os.chmod(temporary, 0o666 & ~mask)
            os.replace(temporary, filepath)
        except BaseException:
            os.unlink(temporary)
            raise


def save_checkpoint_atomic(checkpoint: dict[str, Any], path: str | os.PathLike) -> None:
    """Write a checkpoint with ``torch.save`` so that ``path`` never holds half of it."""
    with io.BytesIO() as buffer:
        torch.save(checkpoint, buffer)
        AtomicLocalBackend().put(buffer.getvalue(), os.fspath(path))


def safetensors_bytes(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> bytes:
    """Content of a ``.safetensors`` file; the same for the same tensors and metadata.

    The library writes the entries of its header in an order that changes from call to call, and so
    does the hash of the file; here they are sorted.
    """
    from safetensors.torch import save

    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    data = save(tensors, dict(metadata))
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
    work_dir: str | os.PathLike, log: Callable[[str], Any] = print
) -> str | None:
    """Return the newest complete training checkpoint in a work directory, or None.

    mmengine believes the file ``last_checkpoint``, which after a crash can be empty or name a
    file that is missing or half written. Here it is one candidate among the newest readable
    ``epoch_*.pth`` and ``iter_*.pth``; the one with most iterations wins. What was passed over is
    told to ``log``.
    """
    work_dir = os.fspath(work_dir)
    candidates: list[str] = []
    pointer = os.path.join(work_dir, 'last_checkpoint')
    if os.path.isfile(pointer):
        with open(pointer) as file:
            named = file.read().strip()
        moved = os.path.join(work_dir, os.path.basename(named)) if named else ''
        if named and os.path.isdir(named):
            return named  # sharded checkpoint of a strategy, not a file of ours to judge
        if named and os.path.isfile(named):
            candidates.append(named)
        elif named and os.path.isfile(moved):
            log(f'{pointer} names {named}, which is gone; using {moved}.')
            candidates.append(moved)
        else:
            log(f'{pointer} names {named!r}, which does not exist; looking for other checkpoints.')
    numbered: dict[str, list[tuple[int, str]]] = {'epoch': [], 'iter': []}
    for name in os.listdir(work_dir) if os.path.isdir(work_dir) else ():
        match = re.fullmatch(r'(epoch|iter)_(\d+)\.pth', name)
        if match:
            numbered[match[1]].append((int(match[2]), os.path.join(work_dir, name)))
    best: tuple[int, str] | None = None
    for group in (
        candidates,
        *([p for _, p in sorted(g, reverse=True)] for g in numbered.values()),
    ):
        for path in group:
            done = _progress(path)
            if done is None:
                log(f'{path} is incomplete or cannot be resumed from: passed over.')
                continue
            if best is None or done > best[0]:
                best = (done, path)
            break
    return None if best is None else best[1]
