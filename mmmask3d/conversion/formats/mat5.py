"""Read some variables of a MATLAB file of version 5 that may be damaged.

scipy reads these files too, and is what the tests compare with, but its reader takes type codes as
indices of a C array: a flipped bit ends the process (a segmentation fault in scipy 1.17). It also
reads all fields of a struct array, where the sizes of the format allow to pass over those that are
not wanted. The format: "MAT-File Format", MathWorks, chapter 1, "Level 5 MAT-files".
"""

import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmmask3d.conversion.paths import SourceError
from mmmask3d.datasets.image_header import file_format

_HEADER = 128
_MATRIX, _COMPRESSED = 14, 15
_NUMBERS = {
    1: 'i1', 2: 'u1', 3: 'i2', 4: 'u2', 5: 'i4', 6: 'u4', 7: 'f4', 9: 'f8', 12: 'i8', 13: 'u8',
}  # fmt: skip
_TEXTS = {1: 'latin-1', 2: 'latin-1', 4: 'utf-16', 16: 'utf-8', 17: 'utf-16', 18: 'utf-32'}
_CELL, _STRUCT, _CHAR = 1, 2, 4
_NUMERIC_CLASSES = range(6, 16)  # double to uint64
_COMPLEX = 0x800
_DEEPEST = 8  # cells in structs in cells ...
_START = 1024  # unpacked bytes of a compressed variable that hold its name


def read_mat5(
    path: Path,
    names: Sequence[str],
    largest: int,
    fields: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Any]:
    """Read variables.

    Args:
        path: The file.
        names: Variables that have to be there; others are passed over.
        largest: Most bytes that the file, and each variable unpacked, may have.
        fields: Fields to read of a struct array, by variable; all of them by default.

    Returns:
        By name. Numeric: an array with the axes of MATLAB. Text: a string. Cell array: a list, and
        struct array: a list of dicts, both in MATLAB's order (columns first).

    Raises:
        SourceError: The file is larger, of another format, damaged, or lacks a variable; the
            message names the offset, in compressed variables that in what was unpacked.
        OSError: It cannot be opened.
    """
    size = path.stat().st_size
    if size > largest:
        raise SourceError(f'{path}: {size} bytes, expected at most {largest} of such a file.')
    data = path.read_bytes()
    whole = _Part(memoryview(data), _byte_order(path, data), str(path))
    found: dict[str, Any] = {}
    others = []
    at = _HEADER
    while at < len(data):
        element = whole.element(at, len(data))
        part, begin = whole, at
        if element.kind == _COMPRESSED:
            where = f'{path}, variable at offset {at}, unpacked'
            packed = data[element.start : element.stop]
            part, begin = _Part(_unpack(packed, _START, where, whole=False), whole.order, where), 0
        name = part.header(begin + 8, len(part.data)).name
        if name not in names:
            others.append(name)
        else:
            if element.kind == _COMPRESSED:
                part = _Part(_unpack(packed, largest, where), whole.order, where)
            wanted = (fields or {}).get(name)
            found[name] = part.value(part.element(begin, len(part.data)), wanted)
        at = element.after
    missing = [name for name in names if name not in found]
    if missing:
        raise SourceError(
            f'{path}: lacks the variable {", ".join(missing)}, found '
            f'{", ".join(sorted([*found, *others])) or "none"}. Is this another file?'
        )
    return found


def _byte_order(path: Path, data: bytes) -> str:
    if any(file_format(data[at : at + 8]) == 'HDF5' for at in (0, 512)):
        raise SourceError(
            f'{path}: a MATLAB file of version 7.3 (HDF5), expected version 5 as distributed.'
        )
    if len(data) < _HEADER or data[126:128] not in (b'IM', b'MI'):
        raise SourceError(
            f'{path}: no header of a MATLAB file of version 5 in its first {_HEADER} bytes '
            f'({len(data)} bytes in all, starts with {data[:16]!r}). Copy the file again.'
        )
    return '<' if data[126:128] == b'IM' else '>'


def _unpack(packed: bytes, most: int, where: str, whole: bool = True) -> memoryview:
    """At most ``most`` bytes; it is an error if there are more, or the end is missing."""
    unpacker = zlib.decompressobj()
    try:
        data = unpacker.decompress(packed, most + 1 if whole else most)
    except zlib.error as error:
        raise SourceError(f'{where}: cannot be unpacked ({error}). Copy the file again.') from error
    if whole and len(data) > most:
        raise SourceError(f'{where}: more than the {most} bytes that are expected at most.')
    if whole and not unpacker.eof:
        raise SourceError(f'{where}: ends after {len(data)} bytes. Copy the file again.')
    return memoryview(data)


@dataclass(frozen=True)
class _Element:
    """Type code, range of the content, and where the next element begins."""

    kind: int
    start: int
    stop: int
    after: int


@dataclass(frozen=True)
class _Header:
    """What stands before the content of a matrix, and where the content begins."""

    kind: int
    is_complex: bool
    sides: tuple[int, ...]
    name: str
    content: int

    @property
    def count(self) -> int:
        """Number of elements; a Python integer, which does not overflow."""
        product = 1
        for side in self.sides:
            product *= side
        return product


class _Part:
    """The bytes of a file, or of a variable that was compressed."""

    def __init__(self, data: memoryview, order: str, where: str) -> None:
        self.data, self.order, self.where = data, order, where

    def damaged(self, at: int, found: str) -> SourceError:
        return SourceError(
            f'{self.where}: offset {at}: {found}. The file is damaged; copy it again.'
        )

    def element(self, at: int, end: int) -> _Element:
        """The element that begins at ``at`` and ends before ``end``."""
        if end - at < 8:
            raise self.damaged(at, f'{end - at} bytes, expected the 8 of a tag')
        kind, size = struct.unpack_from(self.order + 'II', self.data, at)
        if kind >> 16:  # up to 4 bytes stand in the tag itself
            kind, size, start, after = kind & 0xFFFF, kind >> 16, at + 4, at + 8
            most = 4
        else:
            start, most = at + 8, end - at - 8
            after = start + size + (-size % 8 if kind != _COMPRESSED else 0)
        if size > most:
            raise self.damaged(at, f'an element of {size} bytes where {most} are left')
        return _Element(kind, start, start + size, min(after, end))

    def numbers(self, element: _Element) -> np.ndarray:
        """Numbers of any type; small integers may stand for larger ones and for floats."""
        if element.kind not in _NUMBERS:
            raise self.damaged(element.start, f'type {element.kind}, expected numbers')
        dtype = np.dtype(self.order + _NUMBERS[element.kind])
        content = self.data[element.start : element.stop]
        if len(content) % dtype.itemsize:
            raise self.damaged(element.start, f'{len(content)} bytes of {dtype}')
        return np.frombuffer(content, dtype)

    def text(self, element: _Element) -> str:
        """Text of any encoding."""
        if element.kind not in _TEXTS:
            raise self.damaged(element.start, f'type {element.kind}, expected text')
        encoding = _TEXTS[element.kind]
        if encoding in ('utf-16', 'utf-32'):
            encoding += '-le' if self.order == '<' else '-be'
        try:
            return bytes(self.data[element.start : element.stop]).decode(encoding)
        except UnicodeDecodeError as error:
            raise self.damaged(element.start, f'no {encoding} text') from error

    def header(self, at: int, end: int) -> _Header:
        """The header of a matrix, ``at`` behind its tag."""
        flags = self.element(at, end)
        sides = self.element(flags.after, end)
        name = self.element(sides.after, end)
        first = self.numbers(flags)
        lengths = tuple(int(n) for n in self.numbers(sides))
        if flags.kind != 6 or len(first) != 2 or sides.kind != 5 or len(lengths) < 2:
            raise self.damaged(at, 'no header of a matrix')
        if min(lengths) < 0:
            raise self.damaged(sides.start, f'a matrix of {"x".join(map(str, lengths))}')
        word = int(first[0])
        return _Header(word & 0xFF, bool(word & _COMPLEX), lengths, self.text(name), name.after)

    def value(self, matrix: _Element, fields: Sequence[str] | None = None, depth: int = 0) -> Any:
        """Content of a matrix: see :func:`read_mat5`."""
        if matrix.kind != _MATRIX:
            raise self.damaged(matrix.start, f'type {matrix.kind}, expected a matrix')
        if depth > _DEEPEST:
            raise self.damaged(matrix.start, f'more than {_DEEPEST} levels of cells')
        if matrix.start == matrix.stop:
            return np.empty((0, 0))
        header = self.header(matrix.start, matrix.stop)
        if header.kind in (_CELL, _STRUCT):
            return self._parts(header, matrix.stop, fields, depth)
        element = self.element(header.content, matrix.stop)
        if header.kind == _CHAR:
            text = self.text(element)
            if header.count != len(text) or (text and header.sides[0] != 1):
                raise self.damaged(
                    header.content,
                    f'{len(text)} characters declared as {"x".join(map(str, header.sides))}, '
                    f'expected one row',
                )
            return text
        if header.kind not in _NUMERIC_CLASSES or header.is_complex:
            raise self.damaged(matrix.start, f'a matrix of class {header.kind}, which is not read')
        numbers = self.numbers(element)
        if len(numbers) != header.count:
            sides = 'x'.join(map(str, header.sides))
            raise self.damaged(header.content, f'{len(numbers)} numbers declared as {sides}')
        return numbers.reshape(header.sides, order='F')

    def _parts(self, header: _Header, end: int, fields: Sequence[str] | None, depth: int) -> list:
        """Elements of a cell array, or records of a struct array."""
        at, names = header.content, ['']
        if header.kind == _STRUCT:
            length = self.element(at, end)
            listed = self.element(length.after, end)
            at = listed.after
            width = self.numbers(length)
            text = self.text(listed)
            if len(width) != 1 or width[0] < 1 or len(text) % int(width[0]):
                raise self.damaged(length.start, 'no list of field names')
            step = int(width[0])
            names = [text[i : i + step].split('\0')[0] for i in range(0, len(text), step)]
            if not names:
                raise self.damaged(listed.start, 'a struct array without fields')
        if header.count * len(names) * 8 > end - at:
            raise self.damaged(
                at,
                f'{header.count} x {len(names)} elements declared in {end - at} bytes',
            )
        found = []
        for _ in range(header.count):
            record = {}
            for name in names:
                element = self.element(at, end)
                if header.kind == _CELL or fields is None or name in fields:
                    record[name] = self.value(element, None, depth + 1)
                at = element.after
            found.append(record if header.kind == _STRUCT else record[''])
        return found
