"""Text files that people write or other programs export: lists of names, times, numbers.

UTF-8 with or without byte-order mark, and UTF-16 with one (Windows editors, PowerShell); lines end
in LF, CRLF or CR. Text in an older encoding (Latin-1, cp1252) does not say in which, so it is
refused instead of guessed.
"""

import codecs
import re
from collections.abc import Iterator
from pathlib import Path

_MARKS = (
    (codecs.BOM_UTF8, 'utf-8-sig'),
    (codecs.BOM_UTF16_LE, 'utf-16'),
    (codecs.BOM_UTF16_BE, 'utf-16'),
)
_LINE_END = re.compile(r'\r\n|\r|\n')
_BLANKS = ' \t'


def decode_text(
    content: bytes | memoryview, where: object, error: type[Exception] = ValueError
) -> str:
    """Text of a file, without byte-order mark, with LF between the lines.

    Args:
        content: The bytes of the file.
        where: Its name, for the message.
        error: What is raised.

    Raises:
        ValueError: Or ``error``: it is no text of the encodings of this module.
    """
    content = bytes(content)  # some file backends give a view
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), 'utf-8')
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as damage:
        line = len(re.findall(rb'\r\n|\r|\n', content[: damage.start])) + 1
        found = content[max(0, damage.start - 20) : damage.end + 20]
        raise error(
            f'{where}: expected text in UTF-8, found {found!r} at byte {damage.start} (line '
            f'{line}). If it is text of an older encoding, save it as UTF-8: iconv -f LATIN1 -t '
            f"UTF-8 '{where}' > new.txt."
        ) from damage
    if '\0' in text:
        raise error(
            f'{where}: expected text in UTF-8, found NUL characters: a binary file, or UTF-16 '
            f'without byte-order mark. Save it as UTF-8.'
        )
    return _LINE_END.sub('\n', text)


def numbered_lines(
    content: bytes | memoryview, where: object, error: type[Exception] = ValueError
) -> Iterator[tuple[int, str]]:
    """Lines that are not empty, without blanks at their ends, each with its number from 1.

    Args:
        content: The bytes of the file.
        where: Its name, for the message.
        error: What is raised, see :func:`decode_text`.
    """
    for number, line in enumerate(decode_text(content, where, error).split('\n'), 1):
        stripped = line.strip(_BLANKS)
        if stripped:
            yield number, stripped


def read_lines(path: str | Path, error: type[Exception] = ValueError) -> list[tuple[int, str]]:
    """Read a local file; see :func:`numbered_lines`."""
    return list(numbered_lines(Path(path).read_bytes(), path, error))


def index_fields(line: str) -> list[str]:
    """Fields of a line of an index: none of an empty line or a comment.

    Fields are separated by blanks, or by tabs where there is a tab, so that names may hold blanks.
    """
    text = line.strip(_BLANKS)
    if not text or text.startswith('#'):
        return []
    if '\t' in text:
        return [field.strip(_BLANKS) for field in text.split('\t')]
    return re.split(' +', text)
