"""Decides what a pickle may build: tensors, plain Python, numpy arrays, options, log histories.

``torch.load(weights_only=True)`` builds only what an allowlist names. mmengine's checkpoints need
more than torch's own list (numpy arrays, ``HistoryBuffer``), those of MAE and its kin an
``argparse.Namespace``, and the classes themselves are not safe to allow: ``numpy.dtype`` can be
told that raw bytes are object pointers, ``HistoryBuffer`` takes functions from the file, and
``getattr`` reaches any function of the process. So the names lead to stand-ins that accept plain
data only.

torch < 2.10 also sets items on whatever the file names, and builds tensors that reach beyond their
storage (CVE-2026-24747, tried with 2.9.1); :func:`inspect_zip` refuses both beforehand.
"""

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer


def _expect(fits: bool, what: str) -> None:
    if not fits:
        raise pickle.UnpicklingError(f'GLOBAL {what}')


class _Dtype:
    """Stand-in for ``numpy.dtype``: numbers, booleans and text; of its state the byte order."""

    def __init__(self, code: Any, align: Any = False, copy: Any = True) -> None:
        _expect(isinstance(code, str) and code[:1] in tuple('biufcSU'), f'numpy.dtype({code!r})')
        self.held = np.dtype(code)
        _expect(self.held.names is None, f'numpy.dtype({code!r})')

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.held = self.held.newbyteorder(state[1])


class _Array:
    """Stand-in for ``numpy.ndarray``; ``frombuffer`` takes bytes, and no dtype of objects."""

    held = np.empty(0)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, raw = state
        _expect(isinstance(dtype, _Dtype) and isinstance(raw, bytes), 'numpy.ndarray of objects')
        array = np.frombuffer(raw, dtype.held) if raw else np.empty(0, dtype.held)
        # frombuffer is read-only and borrows the bytes: copy, as unpickling would
        self.held = array.reshape(shape, order='F' if fortran else 'C').copy()


class _History:
    """Stand-in for mmengine's ``HistoryBuffer``.

    The real ``__setstate__`` takes functions from the file into a dictionary shared by all
    buffers; here the functions named in the file are ignored, the registered ones stay.
    """

    held: HistoryBuffer | None = None

    def __setstate__(self, state: dict[str, Any]) -> None:
        values, counts = state['_log_history'], state['_count_history']
        _expect(isinstance(values, _Array) and isinstance(counts, _Array), 'HistoryBuffer')
        self.held = HistoryBuffer(values.held, counts.held, max_length=int(state['max_length']))


class _Namespace:
    """Stand-in for ``argparse.Namespace``, in which MAE, MultiMAE and DeiT keep their options."""

    held: dict[str, Any] = {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        _expect(isinstance(state, dict), 'argparse.Namespace')
        self.held = state


def _make_array(cls: Any, shape: Any, code: Any) -> _Array:
    _expect(cls is _Array, 'numpy _reconstruct of something else than an array')
    return _Array()


def _make_scalar(dtype: Any, raw: Any) -> np.generic:
    _expect(isinstance(dtype, _Dtype) and isinstance(raw, bytes), 'numpy scalar of an object')
    scalar: np.generic = np.frombuffer(raw, dtype.held, count=1)[0]
    return scalar


def _method_name(owner: Any, name: Any) -> str:
    """Take the place of ``getattr``, with which a history names its statistics methods."""
    _expect(owner is _History and isinstance(name, str), 'getattr')
    return str(name)


def _empty_bytes() -> bytes:
    """Take the place of ``bytes``, which Python writes for ``b''`` and only for that."""
    return b''


_STAND_INS: list[tuple[Callable[..., Any], str]] = [
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
    if isinstance(value, _Namespace):
        return resolve(dict(value.held))
    if isinstance(value, _Array | _History | _Dtype):
        return value.held
    _expect(all(value is not it for it, _ in _STAND_INS), 'a type instead of an object')
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
    before = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals([*_STAND_INS])
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


class _Inert:
    """What every name in a pickle becomes while a file is inspected: it does nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> '_Inert':
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class _InertDict(OrderedDict[Any, Any]):
    def __setstate__(self, state: Any) -> None:
        pass


class _Inspector(pickle.Unpickler):
    """Walk through a pickle and note the storages it asks for: (type, key, number of items)."""

    def __init__(self, file: Any) -> None:
        super().__init__(file, encoding='bytes')
        self.storages: list[tuple[str, str, int]] = []

    def find_class(self, module: str, name: str) -> type:
        # Setting an item on anything that is no dictionary raises a TypeError.
        if module == 'collections' and name in ('OrderedDict', 'Counter'):
            return _InertDict
        return type(name, (_Inert,), {})

    def persistent_load(self, pid: Any) -> _Inert:
        _, kind, key, _, count = pid[:5]
        key = key.decode() if isinstance(key, bytes) else str(key)
        self.storages.append((kind.__name__, key, count))
        return _Inert()


def inspect_zip(file: Any) -> None:
    """Check a zip that ``torch.save`` wrote before torch builds anything from it.

    Items may be set on dictionaries only, and every storage must be as large as the file says.

    Raises:
        pickle.UnpicklingError: The file breaks one of these rules.
        zipfile.BadZipFile: The file is damaged.
    """
    with zipfile.ZipFile(file) as archive:
        sizes = {info.filename: info.file_size for info in archive.infolist()}
        pickles = [name for name in sizes if name.endswith('/data.pkl') and name.count('/') == 1]
        if len(pickles) != 1 or len(sizes) != len(archive.infolist()):
            raise zipfile.BadZipFile('expected one entry named data.pkl, and no name twice')
        with archive.open(pickles[0]) as stream:
            inspector = _Inspector(stream)
            try:
                inspector.load()
            except (TypeError, AttributeError) as error:
                raise pickle.UnpicklingError(
                    f'GLOBAL something other than a dict or list as a container ({error})'
                ) from None
    items = {n: t.itemsize for t, n in torch.storage._dtype_to_storage_type_map().items()}
    items['UntypedStorage'] = 1
    for kind, key, count in inspector.storages:
        _expect(kind in items and isinstance(count, int) and count >= 0, f'{kind} as a storage')
        found, expected = sizes.get(pickles[0][:-8] + f'data/{key}', 0), count * items[kind]
        if found < expected:
            raise zipfile.BadZipFile(
                f'storage {key} holds {found} bytes, but {expected} are announced'
            )
