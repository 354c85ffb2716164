"""Decides what a pickle may build: tensors, plain Python, numpy arrays, options, log histories.

``torch.load(weights_only=True)`` builds only what an allowlist names. mmengine's checkpoints need
more than torch's own list (numpy arrays, ``HistoryBuffer``), those of MAE and its kin an
``argparse.Namespace``, and the classes themselves are not safe to allow: ``numpy.dtype`` can be
told that raw bytes are object pointers, ``HistoryBuffer`` takes functions from the file, and
``getattr`` reaches any function of the process. So the names lead to stand-ins that accept plain
data only. :func:`inspect_zip` checks a file's structure beforehand, which also keeps out files that
exploit torch < 2.10 (CVE-2026-24747).
"""

import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.utils import digit_version
from mmengine.utils.dl_utils import TORCH_VERSION

# (callable, name) pairs in an allowlist came with torch 2.6; without them the objects in
# mmengine's checkpoints would have to be unpickled as the real classes, which is not safe enough.
HAS_NAMED_ALLOWLIST = digit_version(TORCH_VERSION) >= digit_version('2.6.0')


class _Dtype:
    """Stand-in for ``numpy.dtype``: numbers, booleans and text, no objects, no records."""

    def __init__(self, code: Any, align: Any = False, copy: Any = True) -> None:
        if not isinstance(code, str) or not re.fullmatch(r'[biufc]\d{1,2}|[SU]\d{1,9}', code):
            raise pickle.UnpicklingError(f'GLOBAL numpy.dtype with the type code {code!r}')
        self.dtype = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        if (
            not isinstance(state, tuple)
            or len(state) < 5
            or state[1] not in ('<', '>', '|', '=')
            or any(item is not None for item in state[2:5])
        ):
            raise pickle.UnpicklingError(f'GLOBAL numpy.dtype with the state {state!r}')
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """Stand-in for ``numpy.ndarray`` until :func:`resolve` replaces it by the array it holds."""

    def __init__(self, *args: Any) -> None:
        self.array = np.empty(0)

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise pickle.UnpicklingError('GLOBAL numpy.ndarray with a state of unknown form')
        _, shape, dtype, fortran, raw = state
        if not isinstance(dtype, _Dtype) or not isinstance(raw, bytes):
            raise pickle.UnpicklingError('GLOBAL numpy.ndarray of Python objects')
        array = np.frombuffer(raw, dtype.dtype) if raw else np.empty(0, dtype.dtype)
        # frombuffer is read-only and borrows the bytes: copy, as unpickling would
        self.array = array.reshape(shape, order='F' if fortran else 'C').copy()


def _make_array(cls: Any, shape: Any, code: Any) -> _Array:
    if cls is not _Array:
        raise pickle.UnpicklingError('GLOBAL numpy _reconstruct of something else than an array')
    return _Array()


def _make_scalar(dtype: Any, raw: Any) -> np.generic:
    if not isinstance(dtype, _Dtype) or not isinstance(raw, bytes):
        raise pickle.UnpicklingError('GLOBAL numpy scalar of a Python object')
    if len(raw) != dtype.dtype.itemsize:
        raise pickle.UnpicklingError(f'GLOBAL numpy scalar with {len(raw)} bytes')
    return np.frombuffer(raw, dtype.dtype)[0]


class _History:
    """Stand-in for mmengine's ``HistoryBuffer``.

    The real ``__setstate__`` takes functions from the file into a dictionary shared by all
    buffers; here the functions named in the file are ignored, the registered ones stay.
    """

    def __init__(self) -> None:
        self.buffer = HistoryBuffer()

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise pickle.UnpicklingError('GLOBAL HistoryBuffer with a state of unknown form')
        values, counts = state.get('_log_history'), state.get('_count_history')
        length = state.get('max_length', 1000000)
        if (
            not isinstance(values, _Array)
            or not isinstance(counts, _Array)
            or not isinstance(length, int)
        ):
            raise pickle.UnpicklingError('GLOBAL HistoryBuffer with a state of unknown form')
        self.buffer = HistoryBuffer(values.array, counts.array, max_length=length)


class _Namespace:
    """Stand-in for ``argparse.Namespace``, in which MAE, MultiMAE and DeiT keep their options."""

    def __init__(self) -> None:
        self.options: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise pickle.UnpicklingError('GLOBAL argparse.Namespace with a state of unknown form')
        self.options = state


def _method_name(owner: Any, name: Any) -> str:
    """Take the place of ``getattr``, with which a history names its statistics methods."""
    if owner is not _History or not isinstance(name, str):
        raise pickle.UnpicklingError('GLOBAL getattr')
    return name


def _empty_bytes(*args: Any) -> bytes:
    """Take the place of ``bytes``, which Python writes for ``b''`` and only for that."""
    if args:
        raise pickle.UnpicklingError('GLOBAL bytes with arguments')
    return b''


_STAND_INS: list[tuple[Callable, str]] = [
    (_Dtype, 'numpy.dtype'),
    (_Array, 'numpy.ndarray'),
    (_make_array, 'numpy.core.multiarray._reconstruct'),
    (_make_array, 'numpy._core.multiarray._reconstruct'),
    (_make_scalar, 'numpy.core.multiarray.scalar'),
    (_make_scalar, 'numpy._core.multiarray.scalar'),
    (_History, 'mmengine.logging.history_buffer.HistoryBuffer'),
    (_Namespace, 'argparse.Namespace'),
    (_method_name, 'builtins.getattr'),
    (_empty_bytes, 'builtins.bytes'),
]


def resolve(value: Any) -> Any:
    """Replace stand-ins by what they hold, in containers of any depth."""
    if isinstance(value, _Array):
        return value.array
    if isinstance(value, _History):
        return value.buffer
    if isinstance(value, _Dtype):
        return value.dtype
    if isinstance(value, _Namespace):
        return resolve(value.options)
    if any(value is stand_in for stand_in, _ in _STAND_INS):
        raise pickle.UnpicklingError('GLOBAL reference to a type instead of an object')
    if isinstance(value, dict):
        for key in list(value):
            value[key] = resolve(value[key])
    elif isinstance(value, list):
        value[:] = [resolve(item) for item in value]
    elif type(value) is tuple:
        return tuple(resolve(item) for item in value)
    return value


@contextmanager
def only_our_allowlist() -> Iterator[None]:
    """Open our allowlist and nothing else, whatever others added to torch's process-wide one."""
    if not HAS_NAMED_ALLOWLIST:
        yield
        return
    before = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals(_STAND_INS)
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


# --------------------------------------------------------------------------------------------
# A look at a file without building anything it asks for


class _Inert:
    """What every name in a pickle becomes while a file is inspected: it does nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> '_Inert':
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class _Inspector(pickle.Unpickler):
    """Walk through a pickle and note the names and the storages it asks for."""

    def __init__(self, file: Any) -> None:
        super().__init__(file, encoding='bytes')
        self.storages: list[tuple[str, str, int]] = []
        self.names: dict[type, str] = {}

    def find_class(self, module: str, name: str) -> type:
        # dictionaries are the only objects that items may be set on; everything else is inert, so
        # setting items on it raises a TypeError below
        if (module, name) in (('collections', 'OrderedDict'), ('collections', 'Counter')):
            return type('InertDict', (OrderedDict,), {'__setstate__': lambda self, state: None})
        inert = type('Inert', (_Inert,), {})
        self.names[inert] = name
        return inert

    def persistent_load(self, pid: Any) -> _Inert:
        if not isinstance(pid, tuple) or len(pid) < 5:
            raise pickle.UnpicklingError('persistent id of unknown form')
        _, kind, key, _, count = pid[:5]
        if not isinstance(count, int) or count < 0:
            raise pickle.UnpicklingError('storage with an invalid size')
        key = key.decode() if isinstance(key, bytes) else str(key)
        self.storages.append((self.names.get(kind, ''), key, count))
        return _Inert()


def _item_size(storage_name: str) -> int:
    if storage_name == 'UntypedStorage':
        return 1
    for dtype, name in torch.storage._dtype_to_storage_type_map().items():
        if name == storage_name:
            return (
                dtype.itemsize if hasattr(dtype, 'itemsize') else torch._utils._element_size(dtype)
            )
    raise pickle.UnpicklingError(f'GLOBAL {storage_name or "something else"} as a storage')


def inspect_zip(file: Any) -> None:
    """Check a zip that ``torch.save`` wrote before torch builds anything from it.

    Items may be set on dictionaries and added to lists only, and every storage must be as large
    as the file says. torch itself checks both from 2.10 on.

    Raises:
        pickle.UnpicklingError: The file breaks one of these rules.
        zipfile.BadZipFile: The file is damaged.
    """
    with zipfile.ZipFile(file) as archive:
        if len(set(archive.namelist())) != len(archive.namelist()):
            raise zipfile.BadZipFile('two entries of the same name')
        records = {info.filename: info.file_size for info in archive.infolist()}
        pickles = [name for name in records if name.endswith('/data.pkl') and name.count('/') == 1]
        if len(pickles) != 1:
            raise zipfile.BadZipFile(f'{len(pickles)} entries named data.pkl, expected one')
        prefix = pickles[0][: -len('data.pkl')]
        with archive.open(pickles[0]) as stream:
            inspector = _Inspector(stream)
            try:
                inspector.load()
            except (TypeError, AttributeError) as error:
                raise pickle.UnpicklingError(
                    f'GLOBAL something other than a dict or list as a container ({error})'
                ) from None
    for kind, key, count in inspector.storages:
        found, expected = records.get(f'{prefix}data/{key}'), count * _item_size(kind)
        if found is None:
            raise zipfile.BadZipFile(f'storage {key} is missing')
        if found < expected:
            raise zipfile.BadZipFile(
                f'storage {key} holds {found} bytes, but {expected} are announced'
            )
